"""A job's cards on all its hosts, by name, and how one of their figures is spread over those of one name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from dsdoctor.checks.job_gpus import job_gpus
from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable, Gpu
from dsdoctor.report.model import Evidence

T = TypeVar("T", int, float)
Place = tuple[str, Gpu]  # host and card


def by_name(cluster: Cluster, unknown: list[tuple[str, str]]) -> dict[str, list[Place]]:
    """The cards that ranks use, by name. Hosts whose cards are not known are added to `unknown` with the reason."""
    found: dict[str, list[Place]] = {}
    for member in cluster.examined:
        try:
            gpus = job_gpus(member.facts, member.entry) if member.facts else ()
        except FactUnavailable as missing:
            unknown.append((member.name, str(missing)))
            continue
        for gpu in gpus:
            found.setdefault(gpu.name, []).append((member.name, gpu))
    return found


def spread(places: list[Place], figure: Callable[[Gpu], T | None], tolerance: float) -> tuple[T, T] | None:
    """The least and the most of a figure, where they are further apart than a part of the most; None otherwise."""
    known = [value for _, gpu in places if (value := figure(gpu))]
    if not known or min(known) >= max(known) * (1 - tolerance):
        return None
    return min(known), max(known)


def listed(places: list[Place], said: Callable[[Gpu], str]) -> Iterator[Evidence]:
    """A line for each card."""
    for host, gpu in places:
        yield Evidence(text=f"GPU {gpu.index}: {said(gpu)}", source=host)
