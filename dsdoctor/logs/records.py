"""Lines of JSON into the lines that a program printed: what collectors of logs make of them is undone.

Docker, fluentd, Kubernetes, CloudWatch, Cloud Logging, Loki, journald, and loggers such as structlog, loguru and
python-json-logger each have keys of their own; torchrun's `error.json` and Elastic's hits nest them. A record may hold
a whole traceback, and becomes as many lines, with the host, rank and time it names before each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import msgspec

from dsdoctor.logs.plain import clean

T = TypeVar("T")

DEEPEST = 3  # records inside records: Docker's of structlog's
LONGEST = 1 << 20  # bytes of a record
SAMPLE = 1 << 14  # bytes at each end of a large text that tell whether there are records in it

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
_EPOCH = datetime(1970, 1, 1)
_HOST = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,251}\w)?")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?")


def records(data: bytes) -> list[tuple[int, int, list[bytes]]]:
    """The records among the lines of a text: where each begins and ends (without its newline), and its lines.

    A collector makes a record of every line, so a large text that has none at its ends is left as it is; a single
    record in the midst of it is read by :class:`dsdoctor.logs.lines.LineParser`.
    """
    found: list[tuple[int, int, list[bytes]]] = []
    if len(data) > 4 * SAMPLE and not any(next(_candidates(end), None) for end in (data[:SAMPLE], data[-SAMPLE:])):
        return found
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
    text = _text(value, DEEPEST)
    if not text and not isinstance(value.get(_plan(tuple(value)).message or ""), str):
        return None
    prefix = head + _prefix(value, text).encode("utf-8", "replace")
    lines = clean(text.encode("utf-8", "replace")).split(b"\n")
    return [prefix + line for line in lines]


class _Plan(NamedTuple):
    """Which keys of a record are worth a look; the records of one log have the same."""

    message: str | None
    inside: tuple[str, ...]
    errors: tuple[str, ...]
    hosts: tuple[tuple[str, ...], ...]
    ranks: tuple[tuple[str, ...], ...]
    times: tuple[tuple[str, ...], ...]


@lru_cache(maxsize=256)
def _plan(keys: tuple[str, ...]) -> _Plan:
    log = not _BESIDE.isdisjoint(keys)
    return _Plan(
        next((key for key in _MESSAGES if key in keys and (log or key in _PLAIN)), None),
        inside=tuple(key for key in _INSIDE if key in keys),
        errors=tuple(key for key in _ERRORS if key in keys),
        hosts=tuple(path for path in _HOSTS if path[0] in keys),
        ranks=tuple(path for path in _RANKS if path[0] in keys),
        times=tuple(path for path in _TIMES if path[0] in keys),
    )


def _text(value: dict[str, Any], depth: int) -> str:
    """The message of a record, then its exception, without line breaks at the end."""
    plan = _plan(tuple(value))
    told = value[plan.message] if plan.message else ""
    if not isinstance(told, str):
        told = ""
    told = told.rstrip("\r\n")
    if told.startswith(('{"', '{ "')) and depth:
        inner = _decoded(told.encode("utf-8", "replace"))
        told = (_prefixed(inner, depth - 1) if isinstance(inner, dict) else "") or told
    if not plan.inside and not plan.errors:
        return told
    texts = [told]
    texts += [_text(value[key], depth - 1) for key in plan.inside if isinstance(value[key], dict) and depth]
    if plan.message or depth < DEEPEST:  # an error alone, on the outside, may be anything
        errors = [each if isinstance(each, str) else _traceback(each) for each in map(value.get, plan.errors)]
        texts += [each.rstrip() for each in errors if each.strip() not in told]
    return "\n".join(filter(None, texts))


def _prefixed(value: dict[str, Any], depth: int) -> str:
    """What a record inside another one says, with what it knows of its host, rank and time."""
    text = _text(value, depth)
    prefix = _prefix(value, text) if text else ""
    return "\n".join(prefix + line for line in text.split("\n"))


def _traceback(value: Any) -> str:
    """The traceback that structlog's `dict_tracebacks` took apart."""
    lines: list[str] = []
    for error in value if isinstance(value, list) else ():
        if not isinstance(error, dict) or not isinstance(error.get("exc_type"), str):
            return ""
        frames = error.get("frames")
        lines.append("Traceback (most recent call last):")
        for frame in frames if isinstance(frames, list) else ():
            if isinstance(frame, dict) and isinstance(frame.get("filename"), str):
                lines.append(f'  File "{frame.get("filename")}", line {frame.get("lineno")}, in {frame.get("name")}')
        lines.append(f"{error['exc_type']}: {error.get('exc_value', '')}")
    return "\n".join(lines)


def _prefix(value: dict[str, Any], text: str) -> str:
    """Time, host and rank of a record, as dsdoctor writes them before a line."""
    plan = _plan(tuple(value))
    host = _first(value, plan.hosts, _host)
    rank = _first(value, plan.ranks, _rank)
    before = "" if _STAMP.match(text) else _first(value, plan.times, _time)
    before = f"{before} " if before else ""
    if host:
        return f"{before}{host}:{rank if rank is not None else '-'}| "
    return f"{before}[rank{rank}]: " if rank is not None else before


def _first(value: dict[str, Any], paths: tuple[tuple[str, ...], ...], read: Callable[[Any], T | None]) -> T | None:
    """What the first of these paths that holds such a thing leads to."""
    for path in paths:
        inside: Any = value
        for key in path:
            inside = inside.get(key) if isinstance(inside, dict) else None
        found = read(inside)
        if found is not None:
            return found
    return None


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
        seconds = float(value or 0)
    except (TypeError, ValueError, OverflowError):
        return None
    for _ in range(3):
        seconds = seconds / 1000 if seconds > 1e11 else seconds
    if not 1e8 < seconds < 1e11:
        return None
    moment = _EPOCH + timedelta(seconds=seconds)
    return moment.isoformat(timespec="milliseconds") + "Z"
