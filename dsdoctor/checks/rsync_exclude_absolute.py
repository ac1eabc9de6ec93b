"""An --exclude of rsync that is written as an absolute path and so excludes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import cited, commands
from dsdoctor.jobs.script.model import Command, Word
from dsdoctor.report.model import Finding, Fix, Severity

_VALUES = frozenset(
    {
        *(
            "-e",
            "-f",
            "-T",
            "-B",
            "-M",
            "--rsh",
            "--filter",
            "--exclude",
            "--include",
            "--exclude-from",
            "--files-from",
        ),
        *("--include-from", "--bwlimit", "--timeout", "--port", "--log-file", "--rsync-path", "--chmod", "--chown"),
        *("--temp-dir", "--partial-dir", "--backup-dir", "--suffix", "--compare-dest", "--link-dest", "--max-size"),
        *("--min-size", "--password-file", "--out-format", "--info", "--block-size", "--modify-window"),
    }
)


@check(severity=Severity.WARNING, since="0.1")
def rsync_exclude_absolute(context: JobContext) -> Iterator[Finding]:
    """An --exclude of rsync is an absolute path of this machine, which matches nothing.

    ## Why it matters
    A pattern of rsync that begins with / begins at the tree that is copied, not at this machine's root. The cache or
    the data set is copied to every host after all, and with --delete what the hosts have there is replaced.

    ## How to fix it
    Write the path as it is inside of the copied tree.

    ## Source
    rsync(1), ANCHORING INCLUDE/EXCLUDE PATTERNS.
    """
    for command in commands(context):
        if command.name != "rsync":
            continue
        excludes, operands = _parts(command)
        sources = [word.text for word in operands[:-1] if word.known and word.text.startswith("/")]
        for word, pattern in excludes:
            source = next((one for one in sources if _inside(pattern, one)), None)
            if source is None:
                continue
            mended = _anchored(pattern, source)
            yield rsync_exclude_absolute.finding(
                f"rsync --exclude {pattern} excludes nothing: a leading / stands for the copied tree {source}, "
                f"in which it would be {mended}",
                evidence=[cited(context, word.line)],
                fix=[Fix("Write it from the copied tree on", (f"--exclude {shlex.quote(mended)}",))],
            )


def _parts(command: Command) -> tuple[list[tuple[Word, str]], list[Word]]:
    """The patterns that are excluded, and the words that are no options: sources and destination."""
    excludes: list[tuple[Word, str]] = []
    operands: list[Word] = []
    words = iter(command.words[1:])
    for word in words:
        name, equals, value = word.text.partition("=")
        if not word.text.startswith("-"):
            operands.append(word)
        elif name == "--exclude" and equals:
            excludes.append((word, value))
        elif word.text in _VALUES:
            following = next(words, None)
            if following is not None and name == "--exclude":
                excludes.append((following, following.text))
    return excludes, operands


def _inside(pattern: str, source: str) -> bool:
    """Whether a pattern is written as a path of the machine that the source is on."""
    parts = [part for part in source.split("/") if part]
    return len(parts) > 1 and pattern.startswith("/" + "/".join(parts[:2]))


def _anchored(pattern: str, source: str) -> str:
    """The pattern as rsync wants it. Without a / at its end the source's own name is the tree's first folder."""
    base = source.rstrip("/") if source.endswith("/") else source.rpartition("/")[0]
    return pattern[len(base) :] if pattern.startswith(base) else pattern
