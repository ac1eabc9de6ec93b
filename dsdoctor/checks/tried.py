"""What came of the deep trial (`--deep`), for the checks that judge it: results, and why something failed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import DeepCollective, DeepFacts, FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Fix

if TYPE_CHECKING:
    from dsdoctor.logs.rules import RuleSet

SHOWN = 8  # lines of what was printed that become evidence


@dataclass(frozen=True)
class Cause:
    """Why something failed, by what it printed. `name` is the rule of `diagnose` that knows it, None for none."""

    name: str | None
    message: str
    host: str | None = None
    rank: int | None = None
    evidence: tuple[Evidence, ...] = ()
    fix: tuple[Fix, ...] = ()


def tried(host: HostFacts) -> DeepFacts | None:
    """What the trial saw on the host; None when there was no trial.

    Raises:
        FactUnavailable: there was one, and it could not begin here.
    """
    return host.deep if "deep" in host.snapshot.sections else None


def trials(cluster: Cluster) -> Iterator[tuple[Member, HostFacts, DeepFacts]]:
    """The hosts on which the trial began, with what it saw; none at all when there was no trial."""
    for member in cluster.examined:
        if member.facts is None:
            continue
        try:
            deep = tried(member.facts)
        except FactUnavailable:
            continue
        if deep is not None:
            yield member, member.facts, deep


def absent(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """The hosts on which the trial could not begin, each with the reason."""
    for member in cluster.examined:
        try:
            _ = tried(member.facts) if member.facts is not None else None
        except FactUnavailable as missing:
            yield member.name, missing.reason


def cause_of(printed: Iterable[tuple[str, int | None, Sequence[str]]], otherwise: str) -> Cause:
    """Why something failed, out of what hosts and ranks printed, the likeliest to know first.

    Where no rule knows it, the message is the first exception that was printed, or `otherwise`; the evidence is then
    the end of what was printed.
    """
    from dsdoctor.logs.diagnose import diagnose

    kept = [(host, rank, tuple(lines)) for host, rank, lines in printed if lines]
    names = {_source(number, rank): (host, rank) for number, (host, rank, _) in enumerate(kept)}
    texts = ["".join(f"{line}\n" for line in lines).encode("utf-8", "replace") for _, _, lines in kept]
    report = diagnose(((name, [text]) for name, text in zip(names, texts, strict=True)), _rules())
    verdict = report.verdict
    host, rank = names.get(verdict.source or "", (None, None)) if verdict is not None else (None, None)
    found = next((each for each in report.findings if verdict is not None and each.name == verdict.cause), None)
    if verdict is None or found is None or verdict.cause in ("none", "unknown"):
        said = verdict.text.strip() if verdict is not None and verdict.text else ""
        return Cause(None, said or otherwise, host, rank, evidence=_ends(kept))
    seen = [
        Evidence(piece.text.strip(), _place(*names[piece.source]))
        for piece in found.evidence
        if piece.source is not None and piece.source in names
    ]
    return Cause(found.name, found.message, host, rank, tuple(seen) or _ends(kept), found.fix)


@cache
def _rules() -> RuleSet:
    """The rules that come with dsdoctor, read once: each of many hosts may have something to be explained."""
    from dsdoctor.logs.rules import load_rules

    return load_rules()


def _source(number: int, rank: int | None) -> str:
    """The name of a log for `diagnose`: host and rank are read out of it, so it holds no word of a host."""
    return f"host{number}/{'agent' if rank is None else f'rank{rank}'}.log"


def _place(host: str, rank: int | None) -> str:
    return host if rank is None else f"{host}, rank {rank}"


def _ends(kept: Sequence[tuple[str, int | None, Sequence[str]]]) -> tuple[Evidence, ...]:
    """The last lines of the first that printed anything, joined to one piece of evidence."""
    for host, rank, lines in kept:
        return (Evidence("\n".join(lines[-SHOWN:]), _place(host, rank)),)
    return ()


def printed_by(host: str, part: DeepCollective) -> Iterator[tuple[str, int | None, Sequence[str]]]:
    """What the ranks of a host printed, then what torchrun did."""
    for each in part.output:
        yield host, each.rank, each.lines
