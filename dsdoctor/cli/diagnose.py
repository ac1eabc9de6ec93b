"""`dsdoctor diagnose`: a log in, the cause of the failure out."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dsdoctor.cli._options import report_options, with_options

if TYPE_CHECKING:
    from dsdoctor.report.model import Report
    from dsdoctor.terminal import StatusLine


@click.command()
@click.argument("paths", nargs=-1, metavar="[FILE|DIR]...")
@with_options(
    click.option("--facts", "recorded", metavar="DIR", help="Saved snapshots of the hosts, to confirm the cause by."),
    click.option("--rules", metavar="DIR", help="Rules of your own; they win over ours of the same name."),
    *report_options(),
)
def diagnose(
    paths: tuple[str, ...],
    recorded: str | None,
    rules: str | None,
    form: str,
    output: str | None,
    verbose: bool,
    fail_on: str,
) -> int:
    """Say why a job failed, from its logs.

    Takes files (notebooks, pages and JSON of log collectors too), folders of logs, compressed logs and archives; a
    run's directory; without any, or with -, standard input: paste a log and press Ctrl-D. Nothing is sent anywhere.
    """
    from dsdoctor.report.formats import render
    from dsdoctor.report.layout import Look
    from dsdoctor.report.model import Severity
    from dsdoctor.terminal import deliver, look_of

    report = _diagnosed(paths or ("-",), recorded, rules)
    look = look_of(sys.stdout) if output in (None, "-") else Look()
    severity = Severity(fail_on)
    deliver(render(report, form, look, verbose=verbose, fail_on=severity), output)
    return report.exit_code(severity)


def _diagnosed(paths: tuple[str, ...], recorded: str | None, rules: str | None) -> Report:
    import msgspec

    from dsdoctor.logs.diagnose import conclude
    from dsdoctor.logs.rules import load_rules
    from dsdoctor.run.read_logs import read_logs
    from dsdoctor.terminal import say, status_line
    from dsdoctor.yamlfile import FileError

    known = load_rules(rules)
    place = recorded if recorded is not None else _facts_of_run(paths)
    facts = _checked(place) if place is not None else None
    pasted = _tell_how_to_paste(paths)
    with status_line() as line:
        progress = _Progress(line)
        scans = read_logs(paths, known, progress)
        if pasted:
            say("")  # the answer begins below the paste
        report = conclude(scans, known, facts)
    if not any(scan.size for scan in scans):  # an empty log does not say that all is well
        given = ", ".join("standard input" if path == "-" else path for path in paths)
        name, reason = next(
            ((scan.name, scan.remark) for scan in scans if scan.remark),
            (given, "there is nothing in it (empty, or cut off before its first line)"),
        )
        raise FileError(name, f"{reason}; wanted a log")
    return msgspec.structs.replace(report, seconds=time.monotonic() - progress.began)


def _facts_of_run(paths: tuple[str, ...]) -> str | None:
    """The facts that a run's directory holds, when that is what was given."""
    if len(paths) != 1 or paths[0] == "-":
        return None
    run = Path(paths[0])
    return str(run / "facts") if (run / "plan.json").is_file() and any(run.glob("facts/*.json")) else None


def _checked(folder: str) -> Report:
    """What the checks say of saved facts."""
    from dsdoctor.checks.engine import run_checks
    from dsdoctor.hosts.examine import HostChoice, from_snapshots
    from dsdoctor.hosts.snapshots import load
    from dsdoctor.report.assemble import report_of

    cluster = from_snapshots(HostChoice(), load(folder), folder)
    return report_of(cluster, run_checks(cluster), 0.0)


def _tell_how_to_paste(paths: tuple[str, ...]) -> bool:
    """Say how, when a person is to paste; whether that is so."""
    from dsdoctor.terminal import is_terminal, say

    wanted = "-" in paths and is_terminal(sys.stdin)
    if wanted:
        say("Paste the log here, then press Enter and Ctrl-D. (Ctrl-C leaves.)")
    return wanted


class _Progress:
    """Shows how much was read once reading takes a while."""

    def __init__(self, line: StatusLine) -> None:
        from dsdoctor.terminal import is_terminal

        self._line = line
        self._by_hand = is_terminal(sys.stdin)
        self._size = 0
        self._shown = self.began = time.monotonic()

    def __call__(self, name: str, size: int) -> None:
        from dsdoctor.escape import escape

        now = time.monotonic()
        if self._by_hand and name == "stdin":
            self.began = now  # what a person took to paste is not ours, and they see it
            return
        self._size += size
        if now - self._shown > 0.5:
            self._line.show(f"{self._size / 1e6:.0f} MB read, {escape(name)}")
            self._shown = now
