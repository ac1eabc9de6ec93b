"""The errors of GPUs in the kernel's log."""

from __future__ import annotations

import errno
import os

from .files import SBIN, ProbeError, at, which
from .processes import uptime_seconds
from .programs import run
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

XID = r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+)(?:, *(.*))?"
XID_PROCESS = r"\b(?:pid|name)=(?:'[^']*'|<[^>]*>|[^,]*)(?:, *|$)"
WANTED = b"NVRM: Xid"
NEWLINE = 10
KMSG_BYTES = 32 << 20
KMSG_RECORD = 8192  # PRINTKRB_RECORD_MAX: a shorter buffer is refused


@section
def fact_kernel_log(ask: Ask) -> dict[str, Any]:
    """Source: /dev/kmsg, else the journal, else dmesg(1). Many hosts let only root read it; then `source` is empty."""
    problems = []
    for source, lines in (("/dev/kmsg", kmsg_lines), ("journalctl", journal_lines), ("dmesg", dmesg_lines)):
        try:
            found = lines()
        except (ProbeError, OSError) as failure:
            problems.append("%s: %s" % (source, failure.strerror if isinstance(failure, OSError) else failure))
            continue
        since = None if source == "journalctl" else age_of_first(found)  # of a journal only what matches was asked for
        return {"source": source, "detail": "", "xids": xids(found), "since_seconds": since}
    return {"source": "", "detail": "; ".join(problems), "xids": [], "since_seconds": None}


def age_of_first(lines: list[tuple[float, str]]) -> float | None:
    """How many seconds ago the first of the messages came."""
    now = uptime_seconds()
    return None if now is None or not lines else round(max(0.0, now - lines[0][0]), 1)


def kmsg_lines() -> list[tuple[float, str]]:
    """The first of the kernel's messages and those wanted, with their seconds since the boot.

    `PRIORITY,NUMBER,MICROSECONDS,FLAGS;TEXT`, and lines about the device that begin with a blank. Source:
    Documentation/ABI/testing/dev-kmsg.
    """
    found: list[tuple[float, str]] = []
    for lines in kmsg():
        for line in lines:
            parsed = message(line) if not found or WANTED in line else None
            found += [parsed] if parsed else []
    if not found:
        raise ProbeError("no message is in it")
    return found


def kmsg() -> Iterator[list[bytes]]:
    """The lines of the first message in the kernel's log, and of those wanted. Raises OSError.

    Each read gives one message, and the last would block. There are thousands: all are read into one buffer.
    """
    handle = os.open(at("/dev/kmsg"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    buffer, rest, size = bytearray(KMSG_RECORD), b"", 0
    into, read, find = [buffer], os.readv, buffer.find
    try:
        while size < KMSG_BYTES:
            try:
                length = read(handle, into)
            except OSError as failure:
                if failure.errno == errno.EPIPE:
                    continue  # overwritten while it was read: the next one is there
                if failure.errno == errno.EAGAIN:
                    break
                raise
            if not length:
                break
            if not size or rest or buffer[length - 1] != NEWLINE or find(WANTED, 0, length) >= 0:
                lines = (rest + bytes(buffer[:length])).split(b"\n")
                rest = lines.pop()  # a message ends with its line; a file in the log's place need not
                yield lines
            size += length
    finally:
        os.close(handle)
    yield [rest]


def message(line: bytes) -> tuple[float, str] | None:
    """The seconds since the boot and the text of a record; None for a line that is none."""
    head, semicolon, text = line.partition(b";")
    fields = head.split(b",")
    if not semicolon or len(fields) < 4 or not all(field.isdigit() for field in fields[:3]):
        return None
    return int(fields[2]) / 1e6, text.decode("utf-8", "replace")


def journal_lines() -> list[tuple[float, str]]:
    """The kernel's messages of this boot in the journal. Raises ProbeError where this user is not shown any."""
    program = which("journalctl")
    if program is None:
        raise ProbeError("there is none")
    command = [program, "--dmesg", "--boot", "--quiet", "--no-pager", "--output=short-monotonic"]
    if not stamped(run(command + ["--lines=1"])[1]):
        raise ProbeError("it shows this user no kernel message")
    code, output, errors = run(command + ["--grep=NVRM: Xid"])  # status 1: nothing matches
    if code not in (0, 1) or (code == 1 and errors.strip()):
        raise ProbeError(" ".join(errors.split())[:200] or "status %d" % code)
    return stamped(output)


def dmesg_lines() -> list[tuple[float, str]]:
    """The kernel's messages as dmesg(1) prints them."""
    program = which("dmesg", ("/bin",) + SBIN)
    if program is None:
        raise ProbeError("there is none")
    code, output, errors = run([program])
    lines = stamped(output)
    if code or not lines:
        raise ProbeError(" ".join(errors.split())[:200] or "it printed nothing")
    return lines


def stamped(output: str) -> list[tuple[float, str]]:
    """Lines that begin with their seconds since the boot in brackets."""
    import re

    found = [re.match(r"(?:<\d+>)?\[\s*(\d+\.\d+)\] (.*)", line) for line in output.splitlines()]
    return [(float(match.group(1)), match.group(2)) for match in found if match]


def xids(lines: list[tuple[float, str]]) -> list[dict[str, Any]]:
    """The errors of NVIDIA's driver among kernel messages, one entry a number and card, without the process."""
    drivers = [(when, line) for when, line in lines if "NVRM" in line]
    if not drivers:
        return []
    import re

    now = uptime_seconds()
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for when, line in drivers:
        match = re.search(XID, line)
        if match is None:
            continue
        key = (match.group(1).lower(), int(match.group(2)))
        row = found.setdefault(key, {"address": key[0], "code": key[1], "count": 0})
        row["count"] += 1
        row["last_seconds_ago"] = None if now is None else round(max(0.0, now - when), 1)
        row["text"] = re.sub(XID_PROCESS, "", match.group(3) or "")[:200].strip()
    return list(found.values())
