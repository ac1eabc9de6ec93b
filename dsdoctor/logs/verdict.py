"""From what was seen to what is wrong: effects told from causes, the earliest cause named.

A cause explains the symptoms of the other ranks; a weak cause (a timeout that says nothing of why, a process that was
only killed) gives way to any other; an exception that no rule knows stands between the two. Of several attempts in one
log the last one counts. In a document (notes, a README) every fenced block is judged by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from dsdoctor.logs.observe import Observation, observe
from dsdoctor.logs.places import superseded
from dsdoctor.logs.rules import SCRIPT_EXCEPTION, RuleSet
from dsdoctor.logs.scan import Exc, Place, Scan, Sighting
from dsdoctor.report.model import Confidence, Verdict

ENTRY = 80  # lines of an entry of torchrun's table of failures, with its traceback
HELD_BACK = 200  # lines of training steps: what fits into the 8 KiB that Python holds back when it writes to a file
COMPLAINTS = ("child-process-failed", "stopped-by-launcher")  # rules about what a launcher says of a rank that failed


@dataclass(frozen=True)
class Findings:
    """All that the log says, judged."""

    verdict: Verdict
    causes: tuple[Observation, ...] = ()  # the verdict's first, then in order
    symptoms: tuple[Observation, ...] = ()
    exceptions: tuple[Exc, ...] = ()  # unknown to every rule, the first of each stream
    benign: tuple[Observation, ...] = ()
    earlier: tuple[Observation, ...] = ()  # causes of attempts before the last
    document: bool = False  # blocks about different things, rather than the log of one job

    @property
    def independent(self) -> tuple[str, ...]:
        """The causes that do not explain each other."""
        counted = [each for each in self.causes if self.document or not each.pattern.weak]
        return tuple(dict.fromkeys(each.rule.name for each in counted))


def judge(scans: list[Scan], rules: RuleSet) -> Findings:
    """Say what is wrong, from the scans of all sources of one job."""
    observed = list(observe(scans, rules))
    logs = [scan for scan in scans if not scan.document]
    documents = [scan for scan in scans if scan.document]
    before = superseded(scan.name for scan in logs)
    latest = [scan for scan in logs if scan.name not in before]
    last = {(scan.index, scan.parts[-1]) for scan in latest}
    current = [each for each in observed if each.scope in last]
    current = [each for each in current if not _survived(each, logs, current)]
    judged = [_judge(current, _unknown(latest, current), scans)]
    for scan in documents:
        mine = [each for each in observed if each.scope[0] == scan.index]
        raised = [each for each in _unknown([scan], mine) if each.raised.in_script]
        for scope in sorted({each.scope for each in mine} | {(scan.index, each.part) for each in raised}):
            inside = [each for each in mine if each.scope == scope]
            judged.append(_judge(inside, [each for each in raised if (scan.index, each.part) == scope], scans))
    found = judged[0] if not documents else _joined(judged)
    earlier = [
        each
        for each in observed
        if each.rule.role == "cause" and each.scope not in last and each.scope[0] in {scan.index for scan in logs}
    ]
    return Findings(
        found.verdict, found.causes, found.symptoms, found.exceptions, found.benign, tuple(earlier), bool(documents)
    )


def _judge(observed: list[Observation], exceptions: list[Exc], scans: list[Scan]) -> Findings:
    """What is wrong in one scope: the log of a job, or a block of a document."""
    causes = _ordered([each for each in observed if each.rule.role == "cause"])
    symptoms = _ordered([each for each in observed if each.rule.role == "symptom"])
    explained = {name for each in causes for name in each.rule.explains if name != each.rule.name}
    # Two rules that explain each other would both vanish: then both stay.
    alive = [each for each in causes if each.rule.name not in explained] or causes
    strong = [each for each in alive if not each.pattern.weak]
    # What a launcher raises is about a rank, and outranks nothing.
    raised = [each for each in exceptions if not each.raised.by_launcher]
    kept = strong or ([] if raised else alive)
    weak = [each.rule.name for each in causes if each not in kept]
    return Findings(
        verdict=_placed(_verdict(kept, exceptions, symptoms, weak), kept, scans),
        causes=tuple(kept),
        symptoms=tuple(symptoms),
        exceptions=tuple(exceptions),
        benign=tuple(_harmless(observed)),
    )


def _joined(judged: list[Findings]) -> Findings:
    """The findings of all blocks of a document (and of logs beside it); the verdict is the earliest, a cause first."""
    causes = [each for found in judged for each in found.causes]
    explained = {name for each in causes for name in each.rule.explains}
    causes = [each for each in causes if not (each.pattern.weak and each.rule.name in explained)]
    names = {each.rule.name for each in causes}
    symptoms = [
        each
        for found in judged
        for each in found.symptoms
        if each.rule.stands_alone and not found.causes and not (found.exceptions or each.rule.name in names)
    ]
    order = (
        [found for found in judged if any(not each.pattern.weak for each in found.causes)]
        + [found for found in judged if found.exceptions]
        + [found for found in judged if found.causes]
        + [found for found in judged if found.verdict.cause not in ("none", "unknown")]
        + judged
    )
    return Findings(
        verdict=order[0].verdict,
        causes=tuple(causes),
        symptoms=tuple(symptoms),
        exceptions=tuple(each for found in judged for each in found.exceptions),
        benign=tuple(each for found in judged for each in found.benign),
    )


def _survived(observation: Observation, scans: list[Scan], observed: list[Observation]) -> bool:
    """Whether the training went on to its end after a fault that would have stopped it, and no launcher complained."""
    if observation.rule.silent or observation.rule.role == "benign":
        return False
    place = observation.sightings[-1].place
    if any(scan.index == place.source and scan.last_success > place.number for scan in scans):
        return True
    if observation.rule.role != "cause":
        return False
    if any(each.rule.name in COMPLAINTS for each in observed):
        return False
    return any(scan.index == place.source and scan.last_end > place.number for scan in scans)


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


# --- order


def _ordered(observations: list[Observation]) -> list[Observation]:
    """In order of time where all of them have one and they are of several sources, else as they stand."""
    places = [each.first.place for each in observations]
    return sorted(observations, key=lambda each: _key(each.first.place, _timed(places)))


def _timed(places: Iterable[Place]) -> bool:
    kept = list(places)
    return len({place.source for place in kept}) > 1 and all(place.time is not None for place in kept)


def _key(place: Place, timed: bool) -> tuple[float, int, int]:
    return (place.time or 0.0 if timed else 0.0, place.source, place.number)


# --- exceptions that no rule knows


def _unknown(scans: list[Scan], observed: list[Observation]) -> list[Exc]:
    """The first unknown exception of each stream of the last attempts, in order; none that the run survived."""
    claimed = {each.place[:2] for observation in observed for each in observation.sightings}
    first: dict[tuple[int, int, str | None, int | None], Exc] = {}
    complaints = _complaints(observed)
    for scan in scans:
        for each in scan.raised:
            line, raised = each.raised.line, each.raised
            if not scan.document and scan.parts[each.part] != scan.parts[-1]:
                continue
            key = (scan.index, scan.scope(each.part), line.host, line.rank)
            if key in first or each.place[:2] in claimed:
                continue
            if raised.ignored or raised.name.endswith("Warning"):
                continue
            if not scan.document and _went_on(scan, each.place.number, complaints.get(scan.index, 0)):
                continue
            first[key] = each
    timed = _timed([each.place for each in first.values()])
    # What the launcher itself raises is most often about a rank: it comes after the ranks' own.
    return sorted(first.values(), key=lambda each: (each.raised.by_launcher, *_key(each.place, timed)))


def _complaints(observed: list[Observation]) -> dict[int, int]:
    """Where in each source a launcher last says that a rank has failed."""
    last: dict[int, int] = {}
    for each in observed:
        if each.rule.name in COMPLAINTS:
            for sighting in each.sightings:
                last[sighting.place.source] = max(sighting.place.number, last.get(sighting.place.source, 0))
    return last


def _went_on(scan: Scan, number: int, complaint: int) -> bool:
    """Whether the training went on after an exception in this line, so that it was dealt with.

    Where a launcher then says that a rank has failed, a few more steps show nothing: standard output comes by another
    way than standard error, and late when it is held back.
    """
    if scan.last_success > number:
        return True
    return scan.last_progress > number + (HELD_BACK if complaint > number else 0)


# --- the answer


def _verdict(causes: list[Observation], exceptions: list[Exc], symptoms: list[Observation], weak: list[str]) -> Verdict:
    """The answer: the earliest cause; else the exception; else what a symptom means when it stands alone."""
    names = list(dict.fromkeys([*(each.rule.name for each in symptoms), *weak]))
    if causes:
        chosen = causes[0]
        others = any(each.rule is not chosen.rule for each in causes if not each.pattern.weak)
        confidence: Confidence = "likely" if others and chosen.pattern.confidence == "certain" else "certain"
        if chosen.pattern.confidence != "certain":
            confidence = chosen.pattern.confidence
        return _at(chosen.first, chosen.rule.name, confidence, names)
    if exceptions:
        raised = exceptions[0].raised
        cause = SCRIPT_EXCEPTION if raised.in_script else "unknown"
        sure: Confidence = "likely" if raised.in_script and not raised.in_library else "possible"
        line = raised.line
        return Verdict(cause, sure, line.host, line.rank, line.number, line.text, tuple(names))
    alone = [each for each in symptoms if each.rule.stands_alone]
    if alone:
        return _at(alone[0].first, alone[0].rule.name, alone[0].pattern.confidence, names)
    if symptoms:
        return _at(symptoms[0].first, "unknown", "possible", names)
    return Verdict("none", "likely")


def _placed(verdict: Verdict, causes: list[Observation], scans: list[Scan]) -> Verdict:
    """The verdict with host and global rank where the line only had a local rank.

    torchrun's table of failures has them. Without it the local rank is the rank when there is but one host.
    """
    if not causes:
        return verdict
    local, place = _local_rank(causes[0], verdict), causes[0].first.place
    table = [each for scan in scans if scan.index == place.source for each in scan.failed]
    if verdict.rank is None and causes[0].first.line.indent >= 2:  # the traceback of an error file, in the table itself
        above = [each for each in table if 0 < place.number - each.number <= ENTRY]
        if above:
            return msgspec.structs.replace(verdict, host=verdict.host or above[-1].host, rank=above[-1].rank)
    if not local.isdigit() or len(local) > 6:
        return verdict
    for each in reversed([each for each in table if each.local_rank == int(local) and each.number > place.number]):
        return msgspec.structs.replace(verdict, host=verdict.host or each.host, rank=each.rank)
    return verdict if verdict.host or verdict.rank is not None else msgspec.structs.replace(verdict, rank=int(local))


def _local_rank(cause: Observation, verdict: Verdict) -> str:
    """The local rank that the evidence names; else, where that names no rank at all, the one of its other lines."""
    if "local_rank" in cause.first.groups or verdict.rank is not None:
        return cause.first.groups.get("local_rank", "")
    host = cause.first.line.host
    others = [each for each in cause.sightings if each.groups.get("local_rank") and each.line.host == host]
    named = {each.groups["local_rank"] for each in others}
    return named.pop() if len(named) == 1 else ""


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
        symptoms=tuple(name for name in symptoms if name != cause),
    )
