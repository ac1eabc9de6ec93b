"""What this host says, as JSON: written by hand, for json itself takes as long to come in as Python."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def as_json(value: Any) -> str:
    """A value in JSON, in ASCII."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict):
        return "{%s}" % ", ".join("%s: %s" % (quoted(key), as_json(each)) for key, each in value.items())
    return "[%s]" % ", ".join(as_json(each) for each in value)


def quoted(text: str) -> str:
    """A text in JSON."""
    try:
        from _json import encode_basestring_ascii as encode  # json's own, without all of json
    except ImportError:
        from json.encoder import encode_basestring_ascii as encode
    return encode(text)
