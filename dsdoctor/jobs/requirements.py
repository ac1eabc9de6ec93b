"""The packages that a job wants on its hosts: a requirements file, or lines of the job file, as pip has them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from dsdoctor.yamlfile import FileError

# A requirements file that requires itself, or one that is nested endlessly, ends here.
MAX_DEPTH = 8

_COMMENT = re.compile(r"(?:^|\s)#.*$")
_NESTED = re.compile(r"(?:-r|--requirement)(?:\s*=?\s*)(?P<name>\S.*)$")
# What pip takes and no version can be compared with: a folder, a file, an address, an option.
_NO_VERSION = re.compile(r"-|[./]|[A-Za-z]+(?:\+[a-z]+)?://|\S+\.(?:whl|zip|tar\.gz)$")


@dataclass(frozen=True)
class JobRequirement:
    """One requirement. `declared`: the job file names it or its file; others were found beside the code."""

    text: str  # PEP 508: "transformers>=4.40,<5"
    source: str
    line: int | None = None
    declared: bool = True


def check_requirement(text: str, source: str, line: int | None = None) -> None:
    """Refuse a text that is no requirement. Raises FileError."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise FileError(source, f"requirements: {text!r} is none that pip would take: {reason}", line) from None


def check_specifier(text: str, source: str) -> None:
    """Refuse a text that is no range of versions. Raises FileError."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        raise FileError(source, f'requires_python: {text!r} is no range of versions; write ">=3.9"') from None


def parse_requirements(
    text: str, source: str, read: Callable[[str, str], tuple[str, str]], *, declared: bool, depth: int = 0
) -> Iterator[JobRequirement]:
    """The requirements of a file's text; `read(name, source)` gives text and path of a file named by `-r`.

    Options, folders and addresses are passed over: there is no version in them to compare. In a file that nobody
    declared, so is what pip would refuse.

    Raises:
        FileError: a declared file has a line that is no requirement, or names itself.
    """
    if depth > MAX_DEPTH:
        raise FileError(source, f"requirements files name each other more than {MAX_DEPTH} deep")
    for line, content in _lines(text.splitlines()):
        nested = _NESTED.match(content)
        if nested:
            inner, path = read(nested["name"].strip("\"'"), source)
            yield from parse_requirements(inner, path, read, declared=declared, depth=depth + 1)
            continue
        requirement = re.split(r"\s--?[a-z]", content)[0].strip()  # --hash=..., --config-settings ...
        if not requirement or _NO_VERSION.match(requirement):
            continue
        try:
            check_requirement(requirement, source, line)
        except FileError:
            if declared:
                raise
            continue
        yield JobRequirement(requirement, source, line, declared)


def _lines(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The lines without comments, those that end in a backslash joined with the next, each with its number."""
    held, begun = "", 0
    for number, line in enumerate(lines, 1):
        begun = begun or number
        content = _COMMENT.sub("", line).rstrip()
        held += content[:-1] if content.endswith("\\") else content
        if not content.endswith("\\"):
            if held.strip():
                yield begun, held.strip()
            held, begun = "", 0
    if held.strip():
        yield begun, held.strip()
