"""Files that people write: read as text or YAML (see :mod:`.yamlloader`), made typed values, refused with the line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class FileError(Exception):
    """A file that cannot be used: names the file, the line where it is known, what is there and what is wanted."""

    def __init__(self, path: str | Path, message: str, line: int | None = None) -> None:
        where = f"{path}:{line}" if line else str(path)
        super().__init__(f"{where}: {message}")
        self.path = str(path)
        self.line = line
        self.message = message

    def __reduce__(self) -> tuple[type[FileError], tuple[str, str, int | None]]:
        return FileError, (self.path, self.message, self.line)  # it comes back from worker processes, too


def parse(text: str, source: str | Path = "<text>") -> Any:
    """The value of a YAML document.

    Raises:
        FileError: not YAML, or a key twice; with the line.
    """
    import yaml  # here, for many a file names FileError and reads no YAML

    from dsdoctor.yamlloader import Loader

    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506 - it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise FileError(source, error.problem or str(error), mark.line + 1 if mark else None) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FileError(source, f"not YAML: {error}") from None


def read_text(path: str | Path) -> str:
    """The text of a file in UTF-8. Raises FileError when it is missing, unreadable or not text."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FileError(path, f"not UTF-8 text (byte {error.start} is 0x{error.object[error.start]:02x})") from None
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None


def load(path: str | Path) -> Any:
    """The value of a YAML file. Raises FileError."""
    return parse(read_text(path), path)


_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>[^`]*)`(?: - at `\$?(?P<where>[^`]*)`)?")
_AT = re.compile(r" - at `\$(?P<where>[^`]*)`$")


def convert(value: Any, kind: type[T], source: str | Path, text: str | None = None) -> T:
    """Build a typed value out of what a file held.

    Raises:
        FileError: an unknown key (with "did you mean"), a missing one, or a value of another type; names key and line.
    """
    import msgspec

    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        message = str(error)
        unknown = _UNKNOWN.match(message)
        if unknown:
            field, where = unknown["field"], (unknown["where"] or "").lstrip(".")
            near = _did_you_mean(field, kind, where)
            place = f"{where}." if where else ""
            raise FileError(source, f"unknown key {place}{field}{near}", line_of(text, field)) from None
        at = _AT.search(message)
        where = at["where"].lstrip(".") if at else ""
        wanted = _AT.sub("", message)
        last = re.split(r"[.\[]", where)[-1].rstrip("]") if where else ""
        raise FileError(source, f"{where}: {wanted}" if where else wanted, line_of(text, last)) from None


def line_of(text: str | None, key: str) -> int | None:
    """The line on which a key stands, when it stands on exactly one."""
    if not text or not key:
        return None
    pattern = re.compile(rf"""^[\s\-{{,]*["']?{re.escape(key)}["']?\s*:""")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)]
    return lines[0] if len(lines) == 1 else None


def _did_you_mean(word: str, kind: Any, where: str) -> str:
    """The nearest known key of the structure at `where`, as the end of a sentence."""
    import difflib

    from msgspec.structs import fields as fields_of

    for step in [step for step in re.split(r"[.\[]", where) if step]:
        kind = _child(kind, step.rstrip("]"))
    fields = [field.encode_name for field in fields_of(kind)] if _is_struct(kind) else []
    close = difflib.get_close_matches(word, fields, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known keys: {', '.join(fields)}" if fields else ""


def _child(kind: Any, step: str) -> Any:
    """The type of a field, an element or a value of `kind`."""
    if _is_struct(kind):
        from msgspec.structs import fields

        return next((field.type for field in fields(kind) if field.encode_name == step), None)
    arguments = [argument for argument in getattr(kind, "__args__", ()) if argument not in (type(None), ...)]
    return arguments[-1] if arguments else None


def _is_struct(kind: Any) -> bool:
    from msgspec import Struct

    return isinstance(kind, type) and issubclass(kind, Struct)
