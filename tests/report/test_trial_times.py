"""What a report says of the deep trial's times."""

from __future__ import annotations

from typing import Any

from dsdoctor.cluster import Cluster, HostEntry, Member, Reach
from dsdoctor.facts import HostFacts, Section, Snapshot
from dsdoctor.report.trial_times import trial_notes

SUMS = [{"bytes": 1024, "seconds": 0.0005}, {"bytes": 64 << 20, "seconds": 0.25}]


def cluster(**deep: Any) -> Cluster:
    """Hosts with what the trial saw on each; None for one without, a text for why it did not begin."""
    members = []
    for name, value in deep.items():
        section = Section(error=value) if isinstance(value, str) else Section(value=value)
        sections = {} if value is None else {"deep": section}
        members.append(Member(HostEntry(name, 1), Reach(True), HostFacts(Snapshot(host=name, sections=sections))))
    return Cluster(tuple(members))


def part(rank: int, seconds: float = 0.25, **more: Any) -> dict[str, Any]:
    sums = [SUMS[0], {"bytes": 64 << 20, "seconds": seconds}]
    ranks = [{"rank": rank, "at": "done", "sums": sums, "device": "NVIDIA A100" if rank else ""}]
    return {"scope": "job", "backend": "nccl", "world_size": 2, "hosts": ["a", "b"], "ranks": ranks, **more}


def test_without_a_trial_nothing_is_said() -> None:
    assert trial_notes(cluster(a=None), verbose=True) == ()
    assert trial_notes(cluster(a="there is no connection"), verbose=True) == ()


def test_the_slowest_rank_counts() -> None:
    seen = cluster(a={"collectives": [part(0)]}, b={"collectives": [part(1, 0.5)]})
    assert trial_notes(seen) == ("All-reduce of 64 MiB over 2 ranks on 2 hosts (nccl): 500 ms (0.134 GB/s).",)


def test_steps_and_ranks_are_told_to_who_asks() -> None:
    steps = [{"name": "torch", "seconds": 2.04}, {"name": "gpus", "seconds": 30.0, "error": "did not go on for 30 s"}]
    seen = cluster(a={"steps": steps, "collectives": [part(1)]}, b={})
    assert trial_notes(seen, verbose=True)[1:] == (
        "a: torch 2.0 s, gpus 30.0 s (failed)",
        "a: job all-reduce, rank 1 on NVIDIA A100: 1 KiB in 0.5 ms (0.00205 GB/s), 64 MiB in 250 ms (0.268 GB/s)",
        "b: no step was begun",
    )


def test_what_failed_or_had_one_rank_has_no_speed() -> None:
    assert trial_notes(cluster(a={"collectives": [part(0, error="did not end within 70 s")]})) == ()
    assert trial_notes(cluster(a={"collectives": [part(0, scope="host", world_size=1)]})) == ()
    assert trial_notes(cluster(a={"collectives": [{"scope": "job", "not_tried": "b was lost"}]})) == ()
