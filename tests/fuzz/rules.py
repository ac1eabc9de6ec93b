"""A rule file of any text: a rule, or a refusal that names the file."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from dsdoctor.logs.rules import FOLDER, RuleSet, parse_rule
from dsdoctor.logs.scan import Scanner
from dsdoctor.yamlfile import FileError

LONGEST = 4000  # bytes of an input
_FOLDER = tempfile.TemporaryDirectory()
_FILE = Path(_FOLDER.name) / "some-cause.yaml"


def one(data: bytes) -> None:
    """What was accepted must be of use to the scanner; its patterns are not tried, for they may be slow by right."""
    _FILE.write_bytes(data)
    try:
        rule = parse_rule(_FILE)
    except FileError as refused:
        assert str(_FILE) in str(refused)
        return
    Scanner(RuleSet((rule,)))


def seeds() -> Iterator[bytes]:
    """The rules of the package, short ones first."""
    for path in sorted(FOLDER.glob("*.yaml"), key=lambda path: path.stat().st_size)[:60]:
        yield path.read_bytes()


def words() -> Iterator[str]:
    """Keys and YAML's marks."""
    yield from (
        "role: cause",
        "patterns:",
        "- keyword: ",
        "pattern: ",
        "message: ",
        "why: ",
        "fixes:",
        "- title: ",
        "env: ",
    )
    yield from (
        "followed_by: ",
        "within: ",
        "&a ",
        "*a",
        "<<: ",
        "!!python/object:",
        "!!binary ",
        "? ",
        "|\n",
        ">-\n",
        "{x}",
        "(?P<x>",
    )
