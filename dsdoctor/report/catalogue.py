"""The README's table of checks, made from the checks themselves: `python -m dsdoctor.report.catalogue README.md`.

The table stands between two marker lines; everything else in the file is left as it is.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

BEGIN = "<!-- checks:begin -->"
END = "<!-- checks:end -->"

_BETWEEN = re.compile(rf"(?<={re.escape(BEGIN)}\n).*?(?={re.escape(END)})", re.DOTALL)


def table() -> str:
    """The checks as a Markdown table: name, severity, what it says."""
    from dsdoctor.checks.catalogue import catalogue

    rows = [
        f"| `{page.name}` | {page.severity.value} | {page.summary.replace('|', chr(92) + '|')} |"
        for page in catalogue()
    ]
    return "\n".join(["| check | severity | what it finds |", "| --- | --- | --- |", *rows]) + "\n"


def with_table(text: str) -> str:
    """The text of a README with the table put between the markers.

    Raises:
        ValueError: the markers are not there, each on a line of its own, once.
    """
    if text.count(f"{BEGIN}\n") != 1 or text.count(END) != 1 or not _BETWEEN.search(text):
        raise ValueError(f"wanted once each, on lines of their own: {BEGIN} and {END}")
    return _BETWEEN.sub(lambda _: table(), text)


def main() -> None:
    """Write the table into the file that is named."""
    path = Path(sys.argv[1])
    before = path.read_text(encoding="utf-8")
    path.write_text(with_table(before), encoding="utf-8")


if __name__ == "__main__":
    main()
