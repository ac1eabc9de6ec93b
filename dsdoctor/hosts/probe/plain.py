"""`socket`, `signal` and `json` in the parts that are written in C.

The modules around these import enum and re, which takes longer than most sections do. Where an interpreter has no such
parts, or others, the modules as they are documented stand in.
"""

from __future__ import annotations

try:
    import _signal as signal  # type: ignore[import-not-found,unused-ignore]
    import _socket as socket
except ImportError:
    import signal  # type: ignore[no-redef,unused-ignore]
    import socket  # type: ignore[no-redef,unused-ignore]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["dumps", "loads", "signal", "socket"]


class Reading:
    """How JSON is read: as json.loads does it unless it is told otherwise."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = float


def refused(value: Any) -> Any:
    """What json says of a value that it has no word for. Raises TypeError."""
    raise TypeError("Object of type %s is not JSON serializable" % type(value).__name__)


def dumps(value: Any) -> str:
    """A value as JSON in ASCII. Raises TypeError or ValueError for what JSON has no word for."""
    try:
        import _json

        write: Any = _json.make_encoder(
            None, refused, _json.encode_basestring_ascii, None, ": ", ", ", False, False, True
        )
    except (ImportError, AttributeError, TypeError):
        import json

        return json.dumps(value)
    return "".join(write(value, 0))


def loads(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for what is none."""
    try:
        import _json

        make: Any = _json.make_scanner
        read = make(Reading())
        value, end = read(text, 0)
        if not text[end:].strip():
            return value
    except Exception:  # then json itself says what is wrong with it
        pass
    import json

    return json.loads(text)
