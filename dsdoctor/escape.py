r"""The one place where text from hosts, logs and job files is made harmless for a screen.

Whatever a log or a host says may hold escape sequences that move the cursor, retitle the window or hide a line, and
Unicode controls that turn the order of letters around. :func:`escape` writes them out as `\x1b`, `\u202e`; printable
text in any language stays as it is.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

T = TypeVar("T")

# C0, DEL, C1; line and paragraph separators; bidirectional controls and marks (Trojan Source, CVE-2021-42574);
# zero-width no-break space; interlinear marks; halves of surrogate pairs (undecodable bytes); tag letters (invisible
# copies of ASCII); non-characters, which XML refuses.
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)
_HARMFUL_IN_BLOCK = re.compile(_HARMFUL.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))


def escape(text: str) -> str:
    r"""The text on one line, control characters written out: a newline as `\n`, an escape as `\x1b`."""
    return _HARMFUL.sub(_written_out, text)


def escape_block(text: str) -> str:
    """The text with its line breaks kept (tabs become spaces), every other control character written out."""
    text = text.replace("\r\n", "\n").expandtabs(8) if "\t" in text or "\r" in text else text
    return _HARMFUL_IN_BLOCK.sub(_written_out, text)


def escaped(value: T) -> T:
    """The same value (a struct, or nested lists and mappings) with every text in it made harmless by `escape_block`.

    A renderer that starts with this cannot forget a field.
    """
    import msgspec

    plain = _walk(msgspec.to_builtins(value))
    clean: T = msgspec.convert(plain, type(value))
    return clean


def _walk(value: Any) -> Any:
    if isinstance(value, str):
        return escape_block(value)
    if isinstance(value, dict):
        return {_walk(key): _walk(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walk(item) for item in value]
    return value


def _written_out(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as `surrogateescape` keeps it
        return f"\\x{code - 0xDC00:02x}"
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    if short:
        return short
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
