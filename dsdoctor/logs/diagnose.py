"""The logs of a job in, a report out: findings with their lines and mends, the verdict, and what is harmless."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from dsdoctor.logs.observe import Observation
from dsdoctor.logs.rules import SCRIPT_EXCEPTION, Rule, RuleSet, fill, load_rules
from dsdoctor.logs.scan import Exc, Scan, Scanner, Sighting
from dsdoctor.logs.verdict import Findings, judge
from dsdoctor.report.model import Confidence, Evidence, Finding, Fix, Report, Severity, Verdict

Names = Mapping[int, str]  # of the sources, by their number

LINES = 6  # of evidence in a finding
NOTES = 24  # harmless things named


def diagnose(
    sources: Iterable[tuple[str, Iterable[bytes]]], rules: RuleSet | None = None, facts: Report | None = None
) -> Report:
    """Say why a job failed, from its logs.

    Args:
        sources: name and bytes of each log, in any encoding and of any length; each is read once, in order. Host and
            rank are taken from names like `HOST/rank3.log` and from the prefixes of the lines.
        rules: the knowledge base; that of the package when it is not given.
        facts: the report of `check` over the hosts of the job, if there is one: a cause whose check also found it is
            confirmed, one whose check passed is less sure.

    The `seconds` of the report are 0: the caller has the clock.
    """
    known = rules or load_rules()
    return conclude(list(Scanner(known).scan_all(sources)), known, facts)


def conclude(scans: list[Scan], rules: RuleSet, facts: Report | None = None) -> Report:
    """The same, from scans that were made elsewhere (in several processes)."""
    found = judge(scans, rules)
    names = {scan.index: scan.name for scan in scans}
    verdict = found.verdict
    if verdict.line is not None:
        verdict = msgspec.structs.replace(verdict, source=_source_of(found, names))
    if verdict.cause == "none" and any(scan.cut for scan in scans):
        verdict = msgspec.structs.replace(verdict, confidence="possible")  # the end is where failures stand
    if facts is not None:
        verdict = _confirmed(verdict, rules, facts)
    return Report(
        command="diagnose",
        seconds=0.0,
        findings=tuple(_findings(found, rules, names)),
        verdict=verdict,
        notes=tuple(_notes(found, scans, verdict, rules, facts)),
    )


# --- findings


def _findings(found: Findings, rules: RuleSet, names: Names) -> Iterable[Finding]:
    """One finding a rule: causes first, then symptoms, then what no rule knows."""
    by_rule: dict[str, list[Observation]] = {}
    for observation in (*found.causes, *found.symptoms):
        by_rule.setdefault(observation.rule.name, []).append(observation)
    for observations in by_rule.values():
        yield _finding(observations, _severity(observations[0].rule, found), names)
    if found.exceptions and (found.document or not found.causes):
        yield _exception_finding(found, rules, names)


def _severity(rule: Rule, found: Findings) -> Severity:
    """A symptom is an error only when no cause is there to be mended instead."""
    if rule.role == "cause" or not (found.causes or found.exceptions):
        return Severity.ERROR
    return Severity.WARNING if found.document else Severity.INFO


def _finding(observations: list[Observation], severity: Severity, names: Names) -> Finding:
    first = observations[0]
    groups = first.first.groups
    sightings = tuple(each for observation in observations for each in observation.sightings)
    return Finding(
        name=first.rule.name,
        severity=severity,
        message=fill(first.pattern.message or first.rule.message, groups),
        hosts=_hosts(sightings),
        ranks=_ranks(sightings),
        evidence=_evidence(sightings, names),
        fix=fixes(first.rule, groups),
    )


def fixes(rule: Rule, groups: dict[str, str]) -> tuple[Fix, ...]:
    """The ways out of a rule with what the line said put in; none is safe to be run unasked, for its text is a log's.

    What a rule only looks at first ("See which …") goes before the commands of the first way out.
    """
    ways = list(rule.fixes)
    looks: list[str] = []
    while len(ways) > 1 and ways[0].title.startswith("See ") and ways[0].commands:
        look = ways.pop(0)
        looks += [f"# {look.title[0].lower()}{look.title[1:]}", *look.commands]
    if looks:
        then = ("# then", *ways[0].commands) if ways[0].commands else ()
        ways[0] = msgspec.structs.replace(ways[0], commands=(*looks, *then))
    return tuple(
        Fix(
            title=fill(way.title, groups),
            commands=tuple(fill(command, groups, quote=not command.startswith("#")) for command in way.commands),
            env=way.env,
        )
        for way in ways
    )


def _evidence(sightings: tuple[Sighting, ...], names: Names) -> tuple[Evidence, ...]:
    """The first line, then the first of each other stream, then further ones; no text twice in one stream."""
    streams: set[tuple[int, str | None, int | None]] = set()
    first: list[Sighting] = []
    further: list[Sighting] = []
    for each in sightings:
        stream = (each.place.source, each.line.host, each.line.rank)
        (further if stream in streams else first).append(each)
        streams.add(stream)
    kept: dict[tuple[int, int], Sighting] = {}
    texts: set[str] = set()
    for each in (*first, *further):
        if len(kept) < LINES and (not kept or each.line.text not in texts):
            kept[each.place[:2]] = each
            texts.add(each.line.text)
    return tuple(Evidence(each.line.text, names[each.place.source], each.place.number) for each in kept.values())


def _exception_finding(found: Findings, rules: RuleSet, names: Names) -> Finding:
    raised = [each.raised for each in found.exceptions]
    evidence = tuple(
        Evidence(each.raised.line.text, names[each.place.source], each.place.number)
        for each in found.exceptions[:LINES]
    )
    hosts = tuple(dict.fromkeys(each.line.host for each in raised if each.line.host))
    ranks = tuple(sorted({each.line.rank for each in raised if each.line.rank is not None}))
    if raised[0].in_script:
        name, fix = SCRIPT_EXCEPTION, fixes(rules[SCRIPT_EXCEPTION], {})
        message = f"the training script raised {raised[0].name}; the other ranks only see that it is gone"
    else:
        name, fix = "unknown", (Fix("Read upwards from these lines in the log of that rank, and search for the first"),)
        message = f"{raised[0].name} was raised, and no rule knows it: the first exception of each rank is below"
    return Finding(name, Severity.ERROR, message, hosts, ranks, evidence, fix)


def _hosts(sightings: tuple[Sighting, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(host for each in sightings if (host := each.groups.get("host", each.line.host))))


def _ranks(sightings: tuple[Sighting, ...]) -> tuple[int, ...]:
    ranks = set()
    for each in sightings:
        text = each.groups.get("rank", "")
        rank = int(text) if text.isdigit() and len(text) < 7 else each.line.rank
        if rank is not None:
            ranks.add(rank)
    return tuple(sorted(ranks))


# --- verdict and notes


def _source_of(found: Findings, names: Names) -> str | None:
    """The source of the verdict's line."""
    places: list[Sighting | Exc] = [each.first for each in (*found.causes, *found.symptoms)]
    places += found.exceptions
    for each in places:
        line = each.line if isinstance(each, Sighting) else each.raised.line
        if line.number == found.verdict.line and line.text == found.verdict.text:
            return names[each.place.source]
    return None


def _confirmed(verdict: Verdict, rules: RuleSet, facts: Report) -> Verdict:
    """The verdict with what the checks of its rule found on the hosts weighed in."""
    checks = rules.rules[verdict.cause].checks if verdict.cause in rules.rules else ()
    here = {finding.name: finding for finding in facts.findings if finding.name in checks}
    if any(verdict.host is None or not each.hosts or verdict.host in each.hosts for each in here.values()):
        return msgspec.structs.replace(verdict, confidence="certain")
    if checks and all(name in facts.passed for name in checks):
        lower: Confidence = "likely" if verdict.confidence == "certain" else "possible"
        return msgspec.structs.replace(verdict, confidence=lower)
    return verdict


def _notes(found: Findings, scans: list[Scan], verdict: Verdict, rules: RuleSet, facts: Report | None) -> Iterable[str]:
    yield from _remarks(scans)
    if not any(scan.size for scan in scans):
        yield "The log is empty."
        return
    if len(found.independent) > 1:
        what = "These notes hold" if found.document else "The log shows"
        yield (
            f"{what} {len(found.independent)} failures that do not explain each other: "
            f"{', '.join(found.independent)}. The verdict is for the earliest; mend each on its own."
        )
    if found.earlier:
        names = dict.fromkeys(each.rule.name for each in found.earlier)
        yield f"Earlier attempts failed of {', '.join(names)}; the verdict is for the last one."
    if verdict.cause in rules.rules:
        yield rules[verdict.cause].why
    if facts is not None and verdict.cause in rules.rules:
        yield from _facts_note(verdict, rules[verdict.cause], facts)
    if verdict.cause == "unknown" and not found.exceptions and found.symptoms:
        yield "The cause is not in this log, only what it did to others: look at the log of the rank that ended first."
    if verdict.cause == "none" and not found.benign:
        yield "Nothing in the log says that anything is wrong. If the job hangs, take its ranks' stacks (py-spy dump)."
    yield from _harmless_notes(found.benign)


def _remarks(scans: list[Scan]) -> Iterable[str]:
    """What was not read, or not to its end, one note a reason."""
    by_reason: dict[str, list[str]] = {}
    for scan in scans:
        if scan.remark:
            by_reason.setdefault(scan.remark, []).append(scan.name)
    for reason, names in list(by_reason.items())[:NOTES]:
        others = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        read = "" if all(scan.size == 0 for scan in scans if scan.remark == reason) else "; what is there was read"
        yield f"{names[0]}{others} {reason}{read}."


def _harmless_notes(benign: tuple[Observation, ...]) -> Iterable[str]:
    """What was printed and needs nothing done, one note a rule."""
    by_rule: dict[str, list[Observation]] = {}
    for observation in benign:
        by_rule.setdefault(observation.rule.name, []).append(observation)
    for observations in list(by_rule.values())[:NOTES]:
        first, count = observations[0], sum(each.count for each in observations)
        times = f", {count} times" if count > 1 else ""
        message = fill(first.rule.message, first.first.groups)
        yield f"Harmless: {message} (line {first.first.place.number}{times})."


def _facts_note(verdict: Verdict, rule: Rule, facts: Report) -> Iterable[str]:
    found = [name for name in rule.checks if any(finding.name == name for finding in facts.findings)]
    passed = [name for name in rule.checks if name in facts.passed]
    if found:
        yield f"The check {found[0]} finds the same on the hosts."
    elif passed and len(passed) == len(rule.checks):
        yield f"The check {passed[0]} finds nothing of it on the hosts now: look whether it was mended since."
