"""The hosts that a check over several hosts cannot judge, because a fact of theirs is not known."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import Check
from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable
from dsdoctor.report.model import Skipped


def lacking(cluster: Cluster, check: Check, *sections: str) -> Iterator[Skipped]:
    """One entry for each examined host that lacks one of the sections, with the reason."""
    for member in cluster.examined:
        try:
            for section in sections:
                getattr(member.facts, section)
        except FactUnavailable as missing:
            yield check.skipped([member.name], str(missing))
