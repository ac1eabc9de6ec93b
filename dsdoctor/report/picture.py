"""A picture of a report in a terminal, for the README: `python -m dsdoctor.report.picture REPORT.json OUT.svg CMD`.

REPORT.json is what `dsdoctor check --format json` printed, so that the picture shows a real run.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import msgspec

from dsdoctor.report import text
from dsdoctor.report.layout import Look
from dsdoctor.report.model import Report

COLUMNS = 100


def read_report(content: str) -> Report:
    """The report that a JSON rendering holds. Raises msgspec.ValidationError for another object."""
    value = json.loads(content)
    return msgspec.convert(value, Report)


def svg(report: Report, command: str) -> str:
    """The report as an SVG of a terminal, with the command typed above it."""
    import io

    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, legacy_windows=False)
    screen = f"\x1b[1;32m$\x1b[0m {command}\n{text.render(report, Look(COLUMNS, color=True))}"
    console.print(Text.from_ansi(screen.rstrip("\n")), overflow="fold")  # long commands go on, as on a screen
    # A fixed id: the same report makes the same file. The fonts that rich would fetch are left out.
    picture = console.export_svg(title="dsdoctor", unique_id="dsdoctor")
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


def main() -> None:
    """Read a report, write the picture."""
    source, target, *words = sys.argv[1:]
    report = read_report(Path(source).read_text(encoding="utf-8"))
    command = " ".join(words) or f"dsdoctor {report.command}"
    Path(target).write_text(svg(report, command), encoding="utf-8")


if __name__ == "__main__":
    main()
