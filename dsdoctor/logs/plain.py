"""Bytes of any encoding into plain ones: ASCII stays ASCII, escape sequences and NULs are gone, lines become text.

Logs mix encodings: PowerShell writes UTF-16 and cmd appends 8-bit text to it, hosts with a Chinese locale print GBK
between lines of UTF-8, and a copy may have been decoded wrongly once already.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

HEAD = 4096  # bytes by which an encoding is told

# CSI (colours, cursor), OSC (titles, links), and the two-byte escapes. Bounded: an unfinished one ends with its line.
_ESCAPES = re.compile(
    rb"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b\n]{0,2048}(?:\x07|\x1b\\)?"
    rb"|[PX^_][^\x1b\n]{0,2048}(?:\x1b\\)?|[ -/]{0,4}[0-~])?"
)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# So much ASCII without a zero is no UTF-16: Chinese text looks so by chance once in 10^10 characters.
_NARROW = re.compile(rb"[\t-\r\x1b -~]{32,}")
_NARROWEST = 32

_CJK = re.compile("[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")
_ODD = re.compile("[^\x00-\x7f\u3000-\u303f\u4e00-\u9fff\uff00-\uffef\u2500-\u259f]")
# UTF-8 that was read as Windows-1252 or Latin-1: the lead of two or three bytes, and a byte that follows one.
_MOJIBAKE = re.compile("[\u00c2-\u00ef](?:[\u0080-\u00bf]|[€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ])")
_WINDOWS = {character: code for code in range(0x80, 0xA0) for character in bytes([code]).decode("cp1252", "ignore")}


def clean(data: bytes) -> bytes:
    """Without escape sequences and NULs."""
    data = _ESCAPES.sub(b"", data) if b"\x1b" in data else data
    return data.translate(None, b"\x00") if b"\x00" in data else data


def decode(raw: bytes) -> str:
    """UTF-8, or GB18030 where UTF-8 fails and the result is mostly Chinese, or UTF-8 with replacement characters.

    Chinese that somebody decoded as Windows-1252 before is put right, as far as its bytes are still there.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return _not_utf8(raw)
    return text if text.isascii() else _mended(text)


def _not_utf8(raw: bytes) -> str:
    try:
        text = raw.decode("gb18030")
    except UnicodeDecodeError:
        return raw.decode("utf-8", "replace")
    return text if _mostly_chinese(text) else raw.decode("utf-8", "replace")


def _mostly_chinese(text: str) -> bool:
    return len(_CJK.findall(text)) > 2 * len(_ODD.findall(text))


def _mended(text: str) -> str:
    """Text that is UTF-8 read as Windows-1252 read again, when that is Chinese."""
    if len(_MOJIBAKE.findall(text)) < 2 or _CJK.search(text):
        return text
    raw = bytearray()
    for character in text:
        code = _WINDOWS.get(character, ord(character))
        if code > 0xFF:
            return text
        raw.append(code)
    again = raw.decode("utf-8", "replace")
    return again if len(_CJK.findall(again)) > len(_ODD.findall(again)) else text


def to_utf8(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """UTF-16 and UTF-32 recoded to UTF-8; anything else (UTF-8, GB18030, bytes) as it is, without a byte-order mark."""
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= HEAD:
            break
    encoding, mark = _sniff(head)
    if encoding == "utf-8":
        yield head[mark:]
        yield from source
        return
    recoder = _Recoder(encoding)
    yield recoder.feed(head[mark:])
    for chunk in source:
        yield recoder.feed(chunk)
    yield recoder.end()


def _sniff(head: bytes) -> tuple[str, int]:
    """The encoding by its byte-order mark (and the mark's length), or by where the zero bytes of ASCII text stand."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding, len(mark)
    sample = head[:HEAD]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if odd > 4 and odd * 5 > len(sample) // 2 and even * 20 < odd:
        return "utf-16-le", 0
    if even > 4 and even * 5 > len(sample) // 2 and odd * 20 < even:
        return "utf-16-be", 0
    return "utf-8", 0


class _Recoder:
    """UTF-16 or UTF-32 to UTF-8; what was appended to UTF-16 in 8-bit text is passed through."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
        self._mixes = encoding.startswith("utf-16")
        self._narrow = False  # in a part of 8-bit text
        self._fresh = False  # of which a line has just ended
        self._passed = False  # has just ended itself
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The next bytes, recoded as far as they can be told."""
        if not self._mixes:
            return self._wide(data)
        return self._mixed(self._rest + data, final=False)

    def end(self) -> bytes:
        """What is left at the end."""
        rest = self._mixed(self._rest, final=True) if self._mixes else b""
        return rest + self._wide(b"", final=True)

    def _mixed(self, data: bytes, final: bool) -> bytes:
        out: list[bytes] = []
        place = 0
        while place < len(data):
            narrow = self._narrow
            end = (self._eight_bit if narrow else self._sixteen_bit)(data, place, final, out)
            if end == place and narrow == self._narrow:
                break
            place = end
        self._rest = data[place:]
        return b"".join(out)

    def _eight_bit(self, data: bytes, place: int, final: bool, out: list[bytes]) -> int:
        """Pass on until the line in which zero bytes show that UTF-16 has begun again."""
        zero = data.find(0, place)
        if zero < 0:
            # The last line is held back, with its end: only what follows tells whether it is of UTF-16.
            line = max(place, data.rfind(b"\n", place, max(place, len(data) - 1)) + 1)
            end = len(data) if final or len(data) - line > HEAD else line
        else:
            end = self._wide_again(data, place, zero)
            self._narrow, self._passed = False, True
        out.append(data[place:end])
        if end > place:
            self._fresh = data.endswith(b"\n", place, end)
        return end

    def _wide_again(self, data: bytes, place: int, zero: int) -> int:
        """Where UTF-16 begins whose first zero byte is known: at the beginning of its line, if that is not narrow."""
        first = max(place, zero - 1 if self._encoding == "utf-16-le" else zero)  # the zero is half of a character
        line = data.rfind(b"\n", place, first) + 1
        begins = line > place or self._fresh
        line = max(line, place)
        narrow = zero - line > HEAD or _NARROW.search(data, line, first)
        if first < zero and data[first : first + 1] == b"\n" and narrow:
            return zero  # of U+5F00, say, behind a line of 8-bit text
        return line if begins and not narrow else first

    def _sixteen_bit(self, data: bytes, place: int, final: bool, out: list[bytes]) -> int:
        """Decode until the next run of 8-bit text, or so far that no run can have begun."""
        if self._passed and len(data) - place < 2 and not final:
            return place
        run = _NARROW.search(data, place + (2 if self._passed else 0))  # not where 8-bit text has just ended
        if run:
            end = run.start() + (run.start() - place) % 2
            self._narrow, self._fresh = True, False
            out.append(self._wide(data[place:end], final=True))
        else:
            end = len(data) if final else max(place, len(data) - _NARROWEST)
            end -= 0 if final else (end - place) % 2
            out.append(self._wide(data[place:end]))
        self._passed = self._passed and end == place
        return end

    def _wide(self, data: bytes, final: bool = False) -> bytes:
        text = self._decoder.decode(data, final)
        if final:
            self._decoder.reset()
        return text.encode("utf-8", "replace")
