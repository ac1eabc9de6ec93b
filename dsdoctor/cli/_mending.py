"""`check --job … --fix`: mended copies of the job's configs, shown as a difference, written after a yes."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dsdoctor.escape import escape, escape_block
from dsdoctor.terminal import say
from dsdoctor.yamlfile import FileError

if TYPE_CHECKING:
    from dsdoctor.checks.mending import Mended
    from dsdoctor.cluster import Cluster
    from dsdoctor.jobs.job import ResolvedJob


def mend_configs(job: ResolvedJob, cluster: Cluster, ignore: Sequence[str], *, ask: bool) -> bool:
    """Offer a mended copy of each config in which something certain is to be changed; whether there was any.

    Raises:
        FileError: a copy cannot be written.
    """
    from itertools import chain

    from dsdoctor.checks.mending import mended_configs
    from dsdoctor.checks.mending_accelerate import mended_accelerate

    offered = False
    both = (mended_configs(job, cluster, _read, ignore), mended_accelerate(job, cluster, _read, ignore))
    for mended in chain(*both):
        offered = True
        place, there = _place(Path(mended.path), mended.after)
        _show(mended, place)
        if there:
            say(f"{escape(str(place))} is there already, as it should be")
        elif not ask or click.confirm("Write it there?", default=False, err=True):
            _write(place, mended.after)
            say(f"written: {escape(str(place))}; {escape(mended.path)} is as it was. {_how_to_use(job, place)}")
    return offered


def _show(mended: Mended, place: Path) -> None:
    """The changes with their reasons, the difference, and what is left to the user."""
    from dsdoctor.checks.mending import described

    say(f"{escape(mended.path)} can be mended; a copy would be {escape(str(place))}:")
    for change in mended.changes:
        say(f"  {escape(described(change))}")
    lines = difflib.unified_diff(
        mended.before.splitlines(), mended.after.splitlines(), mended.path, str(place), "", "", 3, ""
    )
    say("\n".join(f"    {escape(line)}" for line in lines))
    if mended.left:
        say("What is left is yours to decide:")
    for finding in mended.left:
        ways = " Or: ".join(fix.title for fix in finding.fix)
        say(f"  {escape_block(finding.message)}" + (f" ({escape_block(ways)})" if ways else ""))


def _place(original: Path, text: str) -> tuple[Path, bool]:
    """Where the copy goes, beside the original, and whether it is there already; no file that is there is touched."""
    for candidate in _names(original):
        if not candidate.exists() and not candidate.is_symlink():
            return candidate, False
        try:
            same = candidate.is_file() and candidate.read_text(encoding="utf-8", errors="replace") == text
        except OSError:
            continue
        if same:
            return candidate, True
    raise AssertionError("the names do not end")


def _names(original: Path) -> Iterator[Path]:
    """ds_config.mended.json, ds_config.mended-2.json and so on; another suffix than JSON's is kept as well."""
    for number in count(1):
        yield original.with_name(f"{original.stem}.mended{f'-{number}' if number > 1 else ''}{original.suffix}")


def _write(place: Path, text: str) -> None:
    try:
        with place.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError as error:
        raise FileError(place, f"cannot be written: {error.strerror}") from None


def _how_to_use(job: ResolvedJob, place: Path) -> str:
    """What makes the job take the copy."""
    if job.script is not None or job.accelerate is not None or job.job.script == "-":
        return f"Name {escape(place.name)} where {escape(job.source)} names the original"
    return "dsdoctor launch uses such a copy by itself"


def _read(path: str) -> str:
    from dsdoctor.jobs.load_any import read_exactly

    return read_exactly(Path(path))
