"""Hosts that hold different things at the same path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from dsdoctor.checks.amounts import amount
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.sights import Sight, is_path, names, sights
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import InputPath
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_SHOWN = 5
_MODEL = (".safetensors", ".bin", ".json", ".model", ".txt", ".gguf", ".py", ".tiktoken")


@check(severity=Severity.WARNING, since="0.1")
def inputs_differ(cluster: Cluster, context: JobContext) -> Iterator[Finding | Skipped]:
    """The hosts hold different files at a model or data path that the job names.

    ## Why it matters
    Ranks that load different weights or tokenizers compute something wrong, or stop when the shapes differ. Data that
    differs gives the ranks different numbers of batches: one finishes early, and the others wait for it until the
    timeout. Data that is divided among the hosts on purpose looks the same; then ignore this.

    ## How to fix it
    Copy it from the host that is right.

    ## Source
    Names and sizes of all files, and the content of small ones, up to 50,000 entries a path. What programs leave behind
    (.git, .cache, cache-*.arrow, *.lock) does not count.
    """
    seen, skipped = sights(inputs_differ, cluster, context, "model", "data")
    yield from skipped
    for sight in seen:
        there = [(member, path) for member, path in sight.found if path.kind in ("file", "folder") and path.readable]
        if len(there) < 2 or not is_path(sight):
            continue
        whole = [(member, path) for member, path in there if path.complete and path.digest]
        if len(whole) < len(there):
            rest = [pair for pair in there if pair not in whole]
            yield inputs_differ.skipped(names(rest), f"{sight.named.path} has more than could be read in time")
        usual = Counter(path.digest for _, path in whole).most_common(1)
        odd = [(member, path) for member, path in whole if path.digest != usual[0][0]]
        if odd:
            right = next((member, path) for member, path in whole if path.digest == usual[0][0])
            yield from _finding(sight, odd, right, context)


def _finding(
    sight: Sight, odd: list[tuple[Member, InputPath]], right: tuple[Member, InputPath], context: JobContext
) -> Iterator[Finding]:
    differing = {member.name: _differing(path, right[1]) for member, path in odd}
    changed = [name for found in differing.values() for name in found]
    if sight.named.role == "model" and changed and not any(name.endswith(_MODEL) for name in changed):
        return  # a README, a picture
    severe = sight.named.role == "model" and any(
        _in_both(odd, right, name) for name in changed if name.endswith(_MODEL)
    )
    distinct = sorted(set(changed))
    shown = ", ".join(distinct) if len(distinct) <= _SHOWN else f"{len(distinct)} names in it differ"
    yield inputs_differ.finding(
        f"{sight.called()} is another one than on {right[0].name}" + (f": {shown}" if changed else ""),
        hosts=names(odd),
        severity=Severity.ERROR if severe else None,
        evidence=[
            *(Evidence(text=_figures(path), source=member.name) for member, path in (right, *odd)),
            context.cite(sight.cited()),
        ],
        fix=[
            Fix(f"Copy it from {right[0].name} to {', '.join(names(odd))}, or the other way round where that is right")
        ],
    )


def _in_both(odd: list[tuple[Member, InputPath]], right: tuple[Member, InputPath], name: str) -> bool:
    """Whether a file is there on both sides; one that is on one side alone may be a second form of the weights."""
    held = [{entry.name for entry in path.entries} for _, path in (right, *odd)]
    return name in held[0] and any(name in names for names in held[1:])


def _differing(one: InputPath, other: InputPath) -> list[str]:
    """What lies right below the path and differs; nothing where there is more than was listed."""
    mine = {entry.name: entry for entry in one.entries}
    theirs = {entry.name: entry for entry in other.entries}
    return sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))


def _figures(path: InputPath) -> str:
    files = f"{path.files} file{'' if path.files == 1 else 's'}"
    return f"{path.at}: {files}, {amount(path.total_bytes)}, digest {path.digest}"
