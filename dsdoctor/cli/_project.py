"""`.dsdoctor.yaml`: what a project's folder sets for every command that is called below it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from dsdoctor.report.baseline import Baseline
    from dsdoctor.report.model import Report

NAME = ".dsdoctor.yaml"


def split_names(ctx: click.Context, option: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """The names of an option that may be given several times, each a name or several with commas between them.

    Raises:
        BadParameter: it was given and holds no name; taken for "all", it would be the opposite of what was meant.
    """
    found = tuple(name for part in value for word in part.split(",") if (name := word.strip()))
    if value and not found:
        raise click.BadParameter("it names no check", ctx=ctx, param=option)
    return found


class Adding(click.Option):
    """An option that may be given several times; what is given is added to what the project's file has."""

    def consume_value(self, ctx: click.Context, opts: Any) -> Any:
        """The values of the project's file, then those of the command line."""
        value, source = super().consume_value(ctx, opts)
        if source is click.core.ParameterSource.COMMANDLINE:
            value = (*(ctx.lookup_default(self.name or "") or ()), *value)
        return value, source


def project_file(start: Path) -> Path | None:
    """The nearest `.dsdoctor.yaml` in a folder or above it, up to the home folder or the repository's top.

    One that belongs to somebody else (not to the user, nor to root) is passed over: it could name a program to run.
    """
    home = Path.home()
    for folder in (start, *start.parents):
        path = folder / NAME
        if path.is_file() and (not hasattr(os, "geteuid") or path.stat().st_uid in (0, os.geteuid())):
            return path
        if folder == home or (folder / ".git").exists():
            break
    return None


def apply_project(ctx: click.Context, command: str) -> None:
    """Make the project's settings the defaults of a command that is about to be parsed.

    Raises:
        FileError: the file cannot be read, has an unknown key, or a value of another type.
    """
    try:
        path = project_file(Path.cwd())
    except OSError:  # the folder is gone, or may not be read
        return
    if path is not None:
        from dsdoctor.cli._project_settings import read_settings

        ctx.default_map = {command: read_settings(path)}
        ctx.meta[NAME] = str(path)


def judged(report: Report, baseline: str | None) -> Report:
    """The report with what the baseline file has let pass, and a note of the file that set the defaults."""
    import msgspec

    path = click.get_current_context().meta.get(NAME)
    if path is not None:
        report = msgspec.structs.replace(report, notes=(*report.notes, f"Defaults from {path}"))
    if baseline is None:
        return report
    from dsdoctor.report.baseline import accept, unseen

    known = read_baseline(baseline)
    told = unseen(report, known)
    notes = (*report.notes, f"{baseline}: {told}") if told else report.notes
    return accept(msgspec.structs.replace(report, notes=notes), known)


def keep_baseline(report: Report, path: str) -> None:
    """Write what a report found into a baseline file, whole or not at all."""
    import msgspec

    from dsdoctor import __version__
    from dsdoctor.report.baseline import baseline_of
    from dsdoctor.terminal import deliver

    encoded = msgspec.json.format(msgspec.json.encode(baseline_of(report, __version__)), indent=1)
    deliver(encoded.decode(), path)


def read_baseline(path: str) -> Baseline:
    """The findings that are let pass. Raises FileError."""
    from dsdoctor.report.baseline import SCHEMA, Baseline
    from dsdoctor.yamlfile import FileError, convert, parse, read_text

    try:
        text = read_text(path)
        baseline = convert(parse(text, path), Baseline, path, text)
    except FileError as error:
        told = f"{error.message}; wanted is a file that `dsdoctor check --save-baseline FILE` has written"
        raise FileError(path, told, error.line) from None
    if baseline.schema != SCHEMA:
        raise FileError(path, f"schema: {baseline.schema!r}; this version reads {SCHEMA}")
    return baseline
