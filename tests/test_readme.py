"""The README says what the program does: its table of checks is the one made from the checks."""

import re
from pathlib import Path

import pytest

from dsdoctor.report.catalogue import BEGIN, END, table, with_table

README = Path(__file__).parent.parent / "README.md"


def test_the_table_of_checks_is_current() -> None:
    text = README.read_text(encoding="utf-8")
    assert with_table(text) == text, "run: python -m dsdoctor.report.catalogue README.md"


def test_every_check_has_a_row() -> None:
    files = Path(__file__).parent.parent.joinpath("dsdoctor", "checks").glob("*.py")
    declared = {path.stem.replace("_", "-") for path in files if re.search(r"^@check\(", path.read_text(), re.M)}
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \| (?:error|warning|info) \| .+ \|$", table(), re.M)) == declared


def test_only_what_is_between_the_markers_changes() -> None:
    text = f"# a\n{BEGIN}\nold | table\n{END}\nrest\n"
    assert with_table(text) == f"# a\n{BEGIN}\n{table()}{END}\nrest\n"
    assert with_table(with_table(text)) == with_table(text)


@pytest.mark.parametrize("text", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{BEGIN}\n{END}\n"])
def test_missing_markers_are_told(text: str) -> None:
    with pytest.raises(ValueError, match="checks:begin"):
        with_table(text)
