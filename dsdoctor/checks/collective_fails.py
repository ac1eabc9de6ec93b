"""The ranks of a host, or of all hosts, cannot all-reduce; tried for real."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dsdoctor.checks.engine import check
from dsdoctor.checks.tried import absent, cause_of, printed_by, trials
from dsdoctor.cluster import Cluster
from dsdoctor.facts import DeepCollective, DeepFacts, DeepRank
from dsdoctor.report.layout import count, fold
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

Part = tuple[str, DeepCollective]  # a host, and what it saw

# What a rank did when it had come to a point and no further.
_DOING = {
    "started": "importing torch",
    "imported": "joining the others",
    "joined": "setting out to add",
    "adding": "adding",
}


@check(severity=Severity.ERROR, since="0.1", trial="deep")
def collective_fails(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """An all-reduce fails, hangs or gives wrong sums, on one host or over all; tried only with `--deep`.

    ## Why it matters
    It is the first thing that every data-parallel job does, and where a wrong interface, a firewall, mixed NCCL
    versions, a small /dev/shm or broken peer-to-peer show: with an error at best, with half an hour of silence else.

    ## How to fix it
    The cause is named from what the ranks printed. Where one host fails by itself, the network is not the reason.

    ## Source
    All-reduces of 1 KiB, 1 MiB and 64 MiB through torchrun, started with the environment, addresses and port that
    `dsdoctor launch` would take, first on each host, then over all; NCCL where there are GPUs, else gloo.
    """
    known = {member.name: deep for member, _, deep in trials(cluster)}
    for name, reason in absent(cluster):
        yield collective_fails.skipped([name], reason)
    for name, deep in known.items():
        part = deep.collective("host")
        if part is not None and part.not_tried is not None:
            yield collective_fails.skipped([name], f"no all-reduce was tried on the host: {part.not_tried}")
        elif part is not None:
            yield from _judged([(name, part)])
    parts = [(name, part) for name, deep in known.items() if (part := deep.collective("job")) is not None]
    lost = {name: deep for name, deep in known.items() if deep.lost is not None}
    for name, deep in lost.items():
        yield _lost(name, deep)
    untried = next((part.not_tried for _, part in parts if part.not_tried is not None), None)
    if untried is None:
        yield from _judged([part for part in parts if part[0] not in lost])
    elif not lost:
        yield collective_fails.skipped(
            [name for name, _ in parts], f"no all-reduce over all hosts was tried: {untried}"
        )


def _judged(parts: Sequence[Part]) -> Iterator[Finding]:
    """What is wrong with one all-reduce, by what its hosts saw."""
    failed = [part for part in parts if part[1].error is not None]
    wrong = [(name, rank) for name, part in parts for rank in part.ranks if any(each.wrong for each in rank.sums)]
    if failed:
        yield _failed(sorted(parts, key=lambda part: (not part[1].first, part[1].error is None)), failed)
    elif wrong:
        yield _wrong(parts, wrong)


def _failed(parts: Sequence[Part], failed: Sequence[Part]) -> Finding:
    """`parts` has the host first at which it went wrong first."""
    first, seen = parts[0]
    printed = [each for name, part in parts for each in printed_by(name, part)]
    cause = cause_of(printed, f"{first} {seen.error}" if seen.scope == "job" else seen.error or "no answer")
    evidence = [Evidence(_reached(part), name) for name, part in parts]
    hosts = [cause.host] if cause.host is not None and seen.scope == "job" else [name for name, _ in failed]
    return collective_fails.finding(
        f"{_who(seen)} cannot all-reduce with {seen.backend}: {cause.message}",
        hosts=hosts,
        evidence=[*cause.evidence, *evidence],
        fix=[*cause.fix, *_further(seen)],
    )


def _who(part: DeepCollective) -> str:
    ranks = count(part.world_size, "rank")
    return f"the {ranks} of this host" if part.scope == "host" else f"the {ranks} of {count(len(part.hosts), 'host')}"


def _reached(part: DeepCollective) -> str:
    """How far the ranks of a host came, and how it ended."""
    by_point: dict[str, list[str]] = {}
    heard = {rank.rank: rank for rank in part.ranks}
    for number in part.expected:
        by_point.setdefault(_point(heard.get(number)), []).append(str(number))
    came = "; ".join(f"rank {', '.join(numbers)}: {point}" for point, numbers in by_point.items())
    ways = ", ".join(dict.fromkeys(rank.interface for rank in part.ranks if rank.interface))
    return f"{came or 'no rank'}{f', by {ways}' if ways else ''} ({part.error or 'ended well'})"


def _point(rank: DeepRank | None) -> str:
    if rank is None:
        return "was not heard of"
    if rank.at == "done":
        return "done"
    size = f" {rank.adding:,} bytes" if rank.at == "adding" and rank.adding else ""
    return f"{_DOING.get(rank.at, rank.at)}{size}"


def _wrong(parts: Sequence[Part], wrong: Sequence[tuple[str, DeepRank]]) -> Finding:
    seen = parts[0][1]
    evidence = [
        Evidence(f"rank {rank.rank}: {each.wrong:,} of {each.bytes // 4:,} sums wrong ({each.bytes:,} bytes)", name)
        for name, rank in wrong
        for each in rank.sums
        if each.wrong
    ]
    ways = [Fix("Run the trial again: what is wrong each time at the same rank is that rank's card or host")]
    if seen.backend == "nccl":
        ways.insert(0, Fix("Have NCCL go through the host's memory", env={"NCCL_P2P_DISABLE": "1"}))
    return collective_fails.finding(
        f"{_who(seen)} all-reduce with {seen.backend} and get wrong sums at rank "
        f"{', '.join(str(rank.rank) for _, rank in wrong)}",
        hosts=list(dict.fromkeys(name for name, _ in wrong)),
        evidence=evidence,
        fix=ways,
    )


def _lost(name: str, deep: DeepFacts) -> Finding:
    step = deep.steps[-1].name if deep.steps else "its start"
    return collective_fails.finding(
        f"{name} was lost in the trial, at {step}: {deep.lost}",
        hosts=[name],
        evidence=[Evidence(f"{each.name}: {each.error or 'well'}, {each.seconds:.1f} s", name) for each in deep.steps],
        fix=[
            Fix("See whether the host is up, and what its kernel says: dmesg, and the console of its management board")
        ],
    )


def _further(part: DeepCollective) -> Iterator[Fix]:
    if part.scope == "job":
        yield Fix(f"See which ways between {fold(part.hosts)} are open: add --network to this command")
    if part.backend == "nccl":
        yield Fix("Let NCCL say what it does", env={"NCCL_DEBUG": "INFO"})
