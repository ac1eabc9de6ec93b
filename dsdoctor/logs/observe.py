"""Which rules hold in a log: every match judged by what stands before, after and around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dsdoctor.logs.rules import Condition, Pattern, Rule, RuleSet
from dsdoctor.logs.scan import Scan, Shelf, Sighting

Scope = tuple[int, int]  # source, and its attempt (or the block of a document)
SAME_TIME = 2.0  # seconds: clocks of two hosts that differ by less do not order two lines


@dataclass(frozen=True)
class Observation:
    """A rule that holds in the log: its pattern, its lines (the first is the evidence), how often it matched."""

    rule: Rule
    pattern: Pattern
    sightings: tuple[Sighting, ...]
    count: int
    scope: Scope

    @property
    def first(self) -> Sighting:
        """The line that the verdict points at."""
        return self.sightings[0]


def observe(scans: list[Scan], rules: RuleSet) -> Iterator[Observation]:
    """Every rule that holds, once in each scope of each source."""
    context = _Context(scans, rules)
    best: dict[tuple[str, Scope], Observation] = {}
    for number, (rule, pattern) in rules.patterns.items():
        held: dict[Scope, tuple[list[Sighting], int]] = {}
        for scope, shelf in context.streams(number):
            lines = _counting(shelf, pattern)
            good = [each for each in lines if context.holds(each, pattern)] if shelf.count >= pattern.at_least else []
            if good and len(good) >= min(pattern.at_least, 2):
                others, count = held.get(scope, ([], 0))
                held[scope] = (others + good, count + shelf.count)
        for scope, (seen, count) in held.items():
            found = Observation(rule, pattern, tuple(sorted(_said(seen), key=position)), count, scope)
            best[rule.name, scope] = _better(best.get((rule.name, scope)), found)
    yield from best.values()


def _said(seen: list[Sighting]) -> list[Sighting]:
    """The messages themselves rather than the source lines that raise them, which a traceback of the rank shows first.

    Both are of one rank, though the source line may name another host: that of its placeholder, `{host}`.
    """
    told = {(each.line.host, each.line.rank) for each in seen if not each.quoted}
    return [each for each in seen if not (each.quoted and (each.line.host, each.line.rank) in told)]


def position(sighting: Sighting) -> tuple[int, int]:
    """Where a line stands: the order of sources, then of lines."""
    return sighting.place.source, sighting.place.number


def _counting(shelf: Shelf, pattern: Pattern) -> list[Sighting]:
    """The lines of a stream that a pattern is about: all of them, or the last state of something that goes on."""
    lines = list(shelf)
    if not pattern.latest:
        return lines
    return [each for each in lines[-1:] if "done" not in each.groups]


def _better(one: Observation | None, other: Observation) -> Observation:
    """Of two patterns of one rule: not the weak one, nor a mere possibility, nor a line of source; then the earlier.

    The lines of both are kept.
    """
    if one is None:
        return other
    first, second = sorted((one, other), key=_preference)
    lines = {each.place[:2]: each for each in (*second.sightings, *first.sightings)}
    rest = sorted((each for each in lines.values() if each.place[:2] != first.first.place[:2]), key=position)
    return Observation(first.rule, first.pattern, (first.first, *rest), max(one.count, other.count), one.scope)


def _preference(found: Observation) -> tuple[bool, bool, bool, tuple[int, int]]:
    first = found.first
    return found.pattern.weak, found.pattern.confidence == "possible", first.quoted, position(first)


class _Context:
    """Everything that was sighted, by matcher: what the contexts of patterns are judged by."""

    def __init__(self, scans: list[Scan], rules: RuleSet) -> None:
        self._rules = rules
        self._scans = {scan.index: scan for scan in scans}
        self._shelves: dict[int, dict[tuple[Scope, str | None, int | None], Shelf]] = {}
        for scan in scans:
            for (matcher, host, rank, part), shelf in scan.shelves.items():
                streams = self._shelves.setdefault(matcher, {})
                key = ((scan.index, scan.scope(part)), host, rank)
                streams[key] = streams[key].joined(shelf) if key in streams else shelf

    def streams(self, matcher: int) -> Iterator[tuple[Scope, Shelf]]:
        """What a matcher matched, by scope and stream."""
        for (scope, _, _), shelf in self._shelves.get(matcher, {}).items():
            yield scope, shelf

    def holds(self, sighting: Sighting, pattern: Pattern) -> bool:
        """Whether the context of a pattern is met around one line."""
        scan, number = self._scans[sighting.place.source], sighting.place.number
        if pattern.first_collective and sighting.groups.get("seq") not in ("0", "1"):
            return False
        if pattern.at_end is not None and scan.last_line - number > pattern.at_end:
            return False
        if pattern.unless_progress and scan.last_progress > number:
            return False
        if pattern.without_traceback and self._raised(sighting):
            return False
        return (
            all(self._met(sighting, each, False, True) for each in pattern.followed_by)
            and all(self._met(sighting, each, True, False) for each in pattern.preceded_by)
            and all(self._met(sighting, each, True, True) for each in pattern.near)
            and not any(self._met(sighting, each, True, True) for each in pattern.unless)
        )

    def _raised(self, sighting: Sighting) -> bool:
        """Whether the rank that a line is about has raised an exception in the same attempt."""
        scan = self._scans[sighting.place.source]
        wanted = _global_rank(sighting, scan)
        return any(
            not each.raised.by_launcher
            and each.place[:2] != sighting.place[:2]
            and scan.scope(each.part) == scan.scope(sighting.part)
            and not _differ(each.raised.line.rank, wanted)
            and not _differ(each.raised.line.host, sighting.line.host)
            for each in scan.raised
        )

    def _met(self, sighting: Sighting, condition: Condition, before: bool, after: bool) -> bool:
        scan = self._scans[sighting.place.source]
        here = scan.scope(sighting.part)
        for (source, scope), shelf in self.streams(self._rules.number(condition)):
            if source != scan.index and scan.document:
                continue
            if source == scan.index and scope != here:
                continue
            if any(_related(sighting, each, condition, before, after) for each in shelf):
                return True
        return False


def _global_rank(sighting: Sighting, scan: Scan) -> int | None:
    """The rank that a line is about; torchrun's table below tells which one a local rank is."""
    rank, local = sighting.groups.get("rank"), sighting.groups.get("local_rank")
    if rank and rank.isdigit():
        return int(rank)
    if not local or not local.isdigit():
        return sighting.line.rank
    for each in scan.failed:
        if (
            each.number > sighting.place.number
            and each.local_rank == int(local)
            and not _differ(each.host, sighting.line.host)
        ):
            return each.rank
    return int(local)


def _related(sighting: Sighting, other: Sighting, condition: Condition, before: bool, after: bool) -> bool:
    """Whether another line stands where a condition wants it."""
    if condition.where != "anywhere" and _differ(sighting.line.host, other.line.host):
        return False
    if condition.where == "stream" and _differ(sighting.line.rank, other.line.rank):
        return False
    here, there = sighting.place, other.place
    if here.source == there.source:
        distance = there.number - here.number
        if condition.within is not None and abs(distance) > condition.within:
            return False
        return (after and distance >= 0) or (before and distance <= 0)
    if condition.within is not None and condition.where != "anywhere":
        return False
    if here.time is None or there.time is None or (before and after):
        return True
    return there.time >= here.time - SAME_TIME if after else there.time <= here.time + SAME_TIME


def _differ(one: object, other: object) -> bool:
    return one is not None and other is not None and one != other
