"""What the deep trial took, and what its all-reduces reached, in sentences for the report."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.cluster import Cluster
from dsdoctor.facts import DeepCollective, DeepFacts, DeepRank, FactUnavailable
from dsdoctor.report.layout import count


def trial_notes(cluster: Cluster, verbose: bool = False) -> tuple[str, ...]:
    """A sentence on the all-reduce of the job; with `verbose` each host's steps with their times, and each rank."""
    found: dict[str, DeepFacts] = {}
    for member in cluster.examined:
        try:
            if member.facts is not None and "deep" in member.facts.snapshot.sections:
                found[member.name] = member.facts.deep
        except FactUnavailable:
            continue
    return tuple(_notes(found, verbose))


def _notes(found: dict[str, DeepFacts], verbose: bool) -> Iterator[str]:
    scope = "job" if any(deep.collective("job") for deep in found.values()) else "host"
    parts = [part for deep in found.values() if (part := deep.collective(scope)) is not None]
    if parts and all(part.error is None and part.not_tried is None for part in parts):
        yield from _reached(parts, scope)
    for name, deep in found.items() if verbose else ():
        steps = ", ".join(f"{step.name} {step.seconds:.1f} s" + (" (failed)" * bool(step.error)) for step in deep.steps)
        yield f"{name}: {steps or 'no step was begun'}"
        for rank in _ranks(deep):
            yield f"{name}: {rank}"


def _reached(parts: list[DeepCollective], scope: str) -> Iterator[str]:
    """What the slowest rank needed for the largest all-reduce."""
    for part in parts if scope == "host" else parts[:1]:
        if part.world_size < 2:
            continue
        sums = [rank.sums[-1] for each in (parts if scope == "job" else [part]) for rank in each.ranks if rank.sums]
        if not sums:
            continue
        largest = max(each.bytes for each in sums)
        seconds = max(each.seconds for each in sums if each.bytes == largest)
        where = f"{count(part.world_size, 'rank')} on {count(len(part.hosts), 'host')}"
        yield f"All-reduce of {_size(largest)} over {where} ({part.backend}): {_speed(largest, seconds)}."


def _ranks(deep: DeepFacts) -> Iterator[str]:
    for part in deep.collectives:
        for rank in part.ranks if part.world_size > 1 else ():  # one rank alone has nobody to wait for
            yield f"{part.scope} all-reduce, rank {rank.rank} {_on(rank)}: {_times(rank) or rank.at}"


def _on(rank: DeepRank) -> str:
    return f"on {rank.device}" if rank.device else "on the processor"


def _times(rank: DeepRank) -> str:
    return ", ".join(f"{_size(each.bytes)} in {_speed(each.bytes, each.seconds)}" for each in rank.sums)


def _speed(size: int, seconds: float) -> str:
    """The time, and the algorithm bandwidth as nccl-tests has it: bytes of one rank by seconds."""
    time = f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
    return f"{time} ({size / max(seconds, 1e-9) / 1e9:.3g} GB/s)"


def _size(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
