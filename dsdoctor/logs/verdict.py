"""From what was seen to what is wrong: contexts judged, effects told from causes, the earliest cause named.

A cause explains the symptoms of the other ranks; a weak cause (a timeout that says nothing of why, a process that was
only killed) gives way to any other; an exception that no rule knows stands between the two. Of several attempts in one
log the last one counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dsdoctor.logs.rules import Condition, Pattern, Rule, RuleSet
from dsdoctor.logs.scan import Exc, Place, Scan, Shelf, Sighting
from dsdoctor.report.model import Confidence, Verdict

SCRIPT_EXCEPTION = "training-script-exception"
Attempt = tuple[int, int]  # source, attempt
SAME_TIME = 2.0  # seconds: clocks of two hosts that differ by less do not order two lines


@dataclass(frozen=True)
class Observation:
    """A rule that holds in the log: its pattern, its lines (the first is the evidence), how often it matched."""

    rule: Rule
    pattern: Pattern
    sightings: tuple[Sighting, ...]
    count: int
    attempt: Attempt

    @property
    def first(self) -> Sighting:
        """The line that the verdict points at."""
        return self.sightings[0]


@dataclass(frozen=True)
class Findings:
    """All that the log says, judged."""

    verdict: Verdict
    causes: tuple[Observation, ...]  # of the last attempt, the verdict first, then in order
    effects: tuple[Observation, ...]  # causes that another cause explains
    symptoms: tuple[Observation, ...]
    benign: tuple[Observation, ...]
    exceptions: tuple[Exc, ...]  # unknown to every rule, the first of each stream
    earlier: tuple[Observation, ...]  # causes of attempts before the last
    independent: int  # how many causes explain neither each other nor the same


def judge(scans: list[Scan], rules: RuleSet) -> Findings:
    """Say what is wrong, from the scans of all sources of one job."""
    observed = list(_observations(scans, rules))
    last = {scan.index: scan.attempts for scan in scans}
    current = [each for each in observed if last[each.attempt[0]] == each.attempt[1]]
    causes = [each for each in current if each.rule.role == "cause"]
    symptoms = [each for each in current if each.rule.role == "symptom"]
    names = {each.rule.name for each in (*causes, *symptoms)}
    explained = {name for each in causes for name in each.rule.explains if name in names and name != each.rule.name}
    # Two rules that explain each other would both vanish: then the earlier one stays.
    alive = [each for each in causes if each.rule.name not in explained] or causes
    strong = [each for each in alive if not each.pattern.weak]
    exceptions = _unknown(scans, current)
    chosen = _first(strong) or (None if exceptions else _first(alive))
    ranked = ([chosen] if chosen else []) + _ordered([each for each in alive if each is not chosen])
    shown = _own_lines_only(ranked, exceptions)
    return Findings(
        verdict=_verdict(chosen, exceptions, symptoms, ranked),
        causes=tuple(shown),
        effects=tuple(each for each in causes if each not in alive),
        symptoms=tuple(_ordered(symptoms)),
        benign=tuple(_harmless(current)),
        exceptions=tuple(exceptions),
        earlier=tuple(
            each for each in observed if each.rule.role == "cause" and last[each.attempt[0]] != each.attempt[1]
        ),
        independent=len({each.rule.name for each in strong}),
    )


def _own_lines_only(causes: list[Observation], exceptions: list[Exc]) -> list[Observation]:
    """The causes worth a finding: weak ones go when anything stronger is there."""
    if exceptions or any(not each.pattern.weak for each in causes):
        return [each for each in causes if not each.pattern.weak]
    return causes


def _harmless(observed: list[Observation]) -> Iterator[Observation]:
    """Benign observations whose line no cause or symptom claims."""
    claimed = {
        each.place[:2]
        for observation in observed
        if observation.rule.role != "benign"
        for each in observation.sightings
    }
    for observation in observed:
        if observation.rule.role == "benign" and observation.first.place[:2] not in claimed:
            yield observation


# --- contexts


def _observations(scans: list[Scan], rules: RuleSet) -> Iterator[Observation]:
    """Every rule that holds, once an attempt of a source."""
    context = _Context(scans, rules)
    best: dict[tuple[str, tuple[int, int]], Observation] = {}
    for number, (rule, pattern) in rules.patterns.items():
        held: dict[Attempt, tuple[list[Sighting], int]] = {}
        for attempt, shelf in context.shelves.get(number, ()):
            if shelf.count < pattern.at_least:
                continue
            good = [each for each in shelf if context.holds(each, pattern)]
            if len(good) >= min(pattern.at_least, 2):
                lines, count = held.get(attempt, ([], 0))
                held[attempt] = (lines + good, count + shelf.count)
        for where, (lines, count) in held.items():
            found = Observation(rule, pattern, tuple(sorted(lines, key=_position)), count, where)
            best[rule.name, where] = _better(best.get((rule.name, where)), found)
    yield from best.values()


def _better(one: Observation | None, other: Observation) -> Observation:
    """Of two patterns of one rule: the one that is not weak, then the earlier; the lines of both are kept."""
    if one is None:
        return other
    first, second = sorted((one, other), key=lambda each: (each.pattern.weak, _position(each.first)))
    lines = {each.place[:2]: each for each in (*second.sightings, *first.sightings)}
    rest = sorted((each for each in lines.values() if each.place[:2] != first.first.place[:2]), key=_position)
    return Observation(first.rule, first.pattern, (first.first, *rest), one.count + other.count, one.attempt)


class _Context:
    """Everything that was sighted, by matcher: what the contexts of patterns are judged by."""

    def __init__(self, scans: list[Scan], rules: RuleSet) -> None:
        self._rules = rules
        self._scans = {scan.index: scan for scan in scans}
        self.shelves: dict[int, list[tuple[Attempt, Shelf]]] = {}
        for scan in scans:
            for (matcher, _, _, attempt), shelf in scan.shelves.items():
                self.shelves.setdefault(matcher, []).append(((scan.index, attempt), shelf))

    def holds(self, sighting: Sighting, pattern: Pattern) -> bool:
        """Whether the context of a pattern is met around one line."""
        scan, number = self._scans[sighting.place.source], sighting.place.number
        if pattern.first_collective and sighting.groups.get("seq") not in ("0", "1"):
            return False
        if pattern.at_end is not None and scan.last_line - number > pattern.at_end:
            return False
        if pattern.unless_progress and scan.last_progress > number:
            return False
        return (
            all(self._met(sighting, each, False, True) for each in pattern.followed_by)
            and all(self._met(sighting, each, True, False) for each in pattern.preceded_by)
            and all(self._met(sighting, each, True, True) for each in pattern.near)
            and not any(self._met(sighting, each, True, True) for each in pattern.unless)
        )

    def _met(self, sighting: Sighting, condition: Condition, before: bool, after: bool) -> bool:
        for (source, attempt), shelf in self.shelves.get(self._rules.number(condition), ()):
            if source == sighting.place.source and attempt != sighting.attempt:
                continue
            if any(_related(sighting, each, condition, before, after) for each in shelf):
                return True
        return False


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


# --- order


def _position(sighting: Sighting) -> tuple[int, int]:
    return sighting.place.source, sighting.place.number


def _ordered(observations: list[Observation]) -> list[Observation]:
    """In order of time where all of them have one and they are of several sources, else as they stand."""
    places = [each.first.place for each in observations]
    return sorted(observations, key=lambda each: _key(each.first.place, _timed(places)))


def _timed(places: Iterable[Place]) -> bool:
    kept = list(places)
    return len({place.source for place in kept}) > 1 and all(place.time is not None for place in kept)


def _key(place: Place, timed: bool) -> tuple[float, int, int]:
    return (place.time or 0.0 if timed else 0.0, place.source, place.number)


def _first(observations: list[Observation]) -> Observation | None:
    ordered = _ordered(observations)
    return ordered[0] if ordered else None


# --- exceptions that no rule knows


def _unknown(scans: list[Scan], observed: list[Observation]) -> list[Exc]:
    """The first unknown exception of each stream of the last attempts, in order; none that the run survived."""
    claimed = {each.place[:2] for observation in observed for each in observation.sightings}
    last = {scan.index: (scan.attempts, scan.last_progress) for scan in scans}
    first: dict[tuple[int, str | None, int | None], Exc] = {}
    for scan in scans:
        for each in scan.raised:
            raised = each.raised
            attempt, progress = last[scan.index]
            key = (scan.index, raised.line.host, raised.line.rank)
            if each.attempt != attempt or key in first or each.place[:2] in claimed:
                continue
            if each.covered or raised.ignored or raised.by_launcher or raised.name.endswith("Warning"):
                continue
            if progress > each.place.number:  # training went on afterwards
                continue
            first[key] = each
    timed = _timed([each.place for each in first.values()])
    return sorted(first.values(), key=lambda each: _key(each.place, timed))


# --- the answer


def _verdict(
    chosen: Observation | None, exceptions: list[Exc], symptoms: list[Observation], causes: list[Observation]
) -> Verdict:
    names = tuple(
        dict.fromkeys(
            [each.rule.name for each in _ordered(symptoms)] + [each.rule.name for each in causes if each.pattern.weak]
        )
    )
    if chosen:
        others = any(not each.pattern.weak and each.rule is not chosen.rule for each in causes)
        confidence: Confidence = chosen.pattern.confidence
        if others and confidence == "certain":
            confidence = "likely"
        return _at(chosen.first, chosen.rule.name, confidence, [name for name in names if name != chosen.rule.name])
    if exceptions:
        raised = exceptions[0].raised
        cause = SCRIPT_EXCEPTION if raised.in_script else "unknown"
        confidence = "possible" if raised.in_library or not raised.in_script else "likely"
        line = raised.line
        return Verdict(cause, confidence, line.host, line.rank, line.number, line.text, names)
    alone = [each for each in _ordered(symptoms) if each.rule.stands_alone]
    if alone:
        rest = [name for name in names if name != alone[0].rule.name]
        return _at(alone[0].first, alone[0].rule.name, alone[0].pattern.confidence, rest)
    if symptoms:
        return _at(_ordered(symptoms)[0].first, "unknown", "possible", list(names))
    return Verdict("none", "likely")


def _at(sighting: Sighting, cause: str, confidence: Confidence, symptoms: list[str]) -> Verdict:
    line = sighting.line
    rank = sighting.groups.get("rank", "")
    return Verdict(
        cause,
        confidence,
        host=sighting.groups.get("host", line.host),
        rank=int(rank) if rank.isdigit() and len(rank) < 7 else line.rank,
        line=line.number,
        text=line.text,
        symptoms=tuple(symptoms),
    )
