"""Lines of JSON into the lines that a program printed: what collectors of logs make of them is undone.

Docker, fluentd, Kubernetes, CloudWatch, Cloud Logging, Loki, journald, and loggers such as structlog, loguru and
python-json-logger each have keys of their own; torchrun's `error.json` and Elastic's hits nest them. A record may hold
a whole traceback, and becomes as many lines, with the host, rank and time it names before each.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from dsdoctor.logs.plain import clean

DEEPEST = 3  # records inside records: Docker's of structlog's
LONGEST = 1 << 20  # bytes of a record

_KEYS = rb"log|message|msg|event|text|line|body|MESSAGE|textPayload|@message|short_message"
_RECORD = re.compile(rb'[{,] ?"(?:' + _KEYS + rb')" ?: ?["{]')
# One key of a record that is spread over lines, as cloud consoles export them.
_ENTRY = re.compile(rb'[ \t]{1,40}"(?:message|@message|textPayload|line|log)": (?P<text>"(?:[^"\\\n]|\\.)*"),?\r?$')
_ENTRY_WORDS = (b'message": "', b'textPayload": "', b'"line": "', b'"log": "')

_MESSAGES = tuple(_KEYS.decode().split("|"))
_PLAIN = ("log", "message", "msg", "MESSAGE", "textPayload", "@message", "short_message")  # no data set has these
_BESIDE = frozenset(
    ("level", "levelname", "severity", "time", "timestamp", "@timestamp", "ts", "asctime", "stream", "logger", "record")
)
_INSIDE = ("jsonPayload", "_source", "message", "fields", "extraInfo", "result")
_ERRORS = ("exception", "exc_info", "exc_text", "stack_trace", "stacktrace", "traceback", "py_callstack", "error")
_HOSTS = (
    *(("kubernetes", "pod_name"), ("kubernetes", "pod", "name"), ("resource", "labels", "pod_name"), ("labels", "pod")),
    *(("pod_name",), ("pod",), ("hostname",), ("host", "name"), ("host",), ("node",), ("node_name",), ("_HOSTNAME",)),
    *(("labels", "node_name"), ("labels", "instance"), ("kubernetes", "host"), ("resource", "labels", "node_name")),
    *(("logStreamName",), ("logStream",), ("@logStream",)),
)
_RANKS = (("rank",), ("global_rank",), ("RANK",), ("extra", "rank"), ("record", "extra", "rank"), ("labels", "rank"))
_TIMES = (
    *(("time",), ("timestamp",), ("@timestamp",), ("ts",), ("asctime",), ("__REALTIME_TIMESTAMP",)),
    ("record", "time", "timestamp"),
)
_HOST = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,251}\w)?")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?")


def records(data: bytes) -> list[tuple[int, int, list[bytes]]]:
    """The records among the lines of a text: where each begins and ends (without its newline), and its lines."""
    found: list[tuple[int, int, list[bytes]]] = []
    for start, end in _candidates(data):
        lines = said(data[start:end])
        if lines is not None:
            found.append((start, end, lines))
    return found


def _candidates(data: bytes) -> Iterator[tuple[int, int]]:
    """The lines that may be records; where there are none this takes no time."""
    words = (b'{"', b'{ "', *(_ENTRY_WORDS if b'": "' in data else ()))
    next_place = {word: data.find(word) for word in words}
    while True:
        places = [place for place in next_place.values() if place >= 0]
        if not places:
            return
        start = data.rfind(b"\n", 0, min(places)) + 1
        end = data.find(b"\n", min(places))
        end = len(data) if end < 0 else end
        yield start, end
        for word, place in next_place.items():
            if 0 <= place < end:
                next_place[word] = data.find(word, end)


def said(line: bytes) -> list[bytes] | None:
    """The lines that a line of JSON says, each with what stood before the JSON; None when it is no record of a log."""
    if len(line) > LONGEST:
        return None
    entry = _ENTRY.match(line)
    if entry:
        value = _decoded(entry["text"])
        return _lines(b"", {"message": value}) if isinstance(value, str) else None
    start = line.find(b"{")
    if not 0 <= start <= 300 or not _RECORD.search(line, start):
        return None
    head, tail = line[:start], line[start:].rstrip(b" \t\r,]")
    if head.endswith(b"[") and not head[:-1].strip():
        value = _decoded(b"[" + tail + b"]")
        return _all_lines(value) if isinstance(value, list) else None
    return _lines(head, _decoded(tail))


def _decoded(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    try:
        return json.loads(text.decode("utf-8", "replace"), strict=False)  # knows NaN, and raw control characters
    except (ValueError, RecursionError):
        return None


def _all_lines(values: list[Any]) -> list[bytes] | None:
    found = [_lines(b"", value) for value in values]
    return [line for lines in found if lines for line in lines] if any(found) else None


def _lines(head: bytes, value: Any) -> list[bytes] | None:
    """What a record says, with its prefix before each line."""
    if not isinstance(value, dict):
        return None
    text = "\n".join(_texts(value, DEEPEST))
    if not text.strip():
        return None
    prefix = head + _prefix(value, text).encode("utf-8", "replace")
    lines = clean(text.encode("utf-8", "replace")).rstrip(b"\r\n").split(b"\n")
    return [prefix + line for line in lines]


def _texts(value: dict[str, Any], depth: int) -> Iterator[str]:
    """The message of a record, then its exception."""
    key = next((key for key in _MESSAGES if isinstance(value.get(key), str) and _is_log(key, value)), None)
    told = value[key] if key else ""
    if told.startswith("{") and depth:
        inner = _decoded(told.encode("utf-8", "replace"))
        texts = list(_texts(inner, depth - 1)) if isinstance(inner, dict) else []
        told = "\n".join(texts) or told
    if told:
        yield told.rstrip("\n")
    for name in _INSIDE:
        inside = value.get(name)
        if isinstance(inside, dict) and depth:
            yield from _texts(inside, depth - 1)
    if key or depth < DEEPEST:
        for name in _ERRORS:
            error = value.get(name)
            text = error if isinstance(error, str) else _traceback(error)
            if text and text.strip() not in told:
                yield text


def _is_log(key: str, value: dict[str, Any]) -> bool:
    """Whether it is a line of a log rather than a row of a data set."""
    return key in _PLAIN or not _BESIDE.isdisjoint(value)


def _traceback(value: Any) -> str:
    """The traceback that structlog's `dict_tracebacks` took apart."""
    lines: list[str] = []
    for error in value if isinstance(value, list) else ():
        if not isinstance(error, dict) or not isinstance(error.get("exc_type"), str):
            return ""
        frames = error.get("frames")
        lines.append("Traceback (most recent call last):")
        for frame in frames if isinstance(frames, list) else ():
            if isinstance(frame, dict):
                lines.append(f'  File "{frame.get("filename")}", line {frame.get("lineno")}, in {frame.get("name")}')
        lines.append(f"{error['exc_type']}: {error.get('exc_value', '')}")
    return "\n".join(lines)


def _prefix(value: dict[str, Any], text: str) -> str:
    """Time, host and rank of a record, as dsdoctor writes them before a line."""
    host = next((name for path in _HOSTS if (name := _host(_at(value, path)))), None)
    rank = next((number for path in _RANKS if (number := _rank(_at(value, path))) is not None), None)
    stamp = next((stamp for path in _TIMES if (stamp := _time(_at(value, path)))), None)
    before = f"{stamp} " if stamp and not _STAMP.match(text) else ""
    if host:
        return f"{before}{host}:{rank if rank is not None else '-'}| "
    return f"{before}[rank{rank}]: " if rank is not None else before


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def _host(value: Any) -> str | None:
    return value if isinstance(value, str) and _HOST.fullmatch(value) and not value.isdigit() else None


def _rank(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 7:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**6 else None


def _time(value: Any) -> str | None:
    """The time as a stamp: a text that is one, or seconds, milli-, micro- or nanoseconds since the epoch."""
    if isinstance(value, str) and not value.isdigit():
        found = _STAMP.match(value)
        return found[0] if found else None
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    for _ in range(3):
        seconds = seconds / 1000 if seconds > 1e11 else seconds
    if not 1e8 < seconds < 1e11:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
