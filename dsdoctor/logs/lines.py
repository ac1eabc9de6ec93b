"""One line of a log as a value: what it says, who printed it (host, rank), when, and how far it was indented.

Ranks interleave in one file, so host and rank are taken from every prefix that launchers put before a line: dsdoctor's
own `host:rank| `, pdsh, torchrun (`[default0]:`, `[rank0]:`), mpirun, srun, Ray, Kubernetes; and from inside the text.
"""

from __future__ import annotations

import calendar
import re
from typing import NamedTuple

from dsdoctor.logs.plain import decode
from dsdoctor.logs.records import said

LONGEST = 4096  # characters kept of a line

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)

_HOST = r"[A-Za-z0-9](?:[\w.-]{0,251}\w)?"
_STAMP = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_MERGED = re.compile(rf"(?P<host>{_HOST}):(?:(?P<rank>\d{{1,6}})|-)\| ?")  # - : the host's launcher
_MERGED_BRACKETS = re.compile(rf"\[(?P<host>(?=[\d.:]*[A-Za-z]|\d+\.\d+\.){_HOST}):(?P<rank>\d{{1,6}})\] ")
_TORCHRUN = re.compile(r"\[(?!cuda|GPU)[A-Za-z_][A-Za-z_-]{0,30}(?:\d+\|)?(?P<rank>\d{1,6})\]: ?")
_MPIRUN = re.compile(  # SageMaker adds the host
    r"(?:[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4})?"
    r"\[\d+,(?:mpirank:)?(?P<rank>\d{1,6})(?:,(?P<host>[\w.-]{1,60}))?\]<std(?:out|err)>: ?"
)
_RAY = re.compile(r"\((?:[\w.]+(?:\([^)]*\))? )?pid=\d+(?:, ip=(?P<host>[\d.a-f:]+))?\) ?")
_SRUN = re.compile(r"(?P<rank>\d{1,5}): ")
_IPV4 = re.compile(r"(?P<host>\d{1,3}\.[\dx]{1,3}\.[\dx]{1,3}\.[\dx]{1,3})(?:: ?| (?=\S))")
_NAMED = re.compile(rf"(?P<host>{_HOST}): ")
_KUBERNETES = re.compile(
    r"\[pod/(?P<host>[\w.-]{1,253})/[\w.-]{1,253}\] ?"  # kubectl logs --prefix
    r"|(?:stdout|stderr) [FP] "  # /var/log/pods
)
_STERN = re.compile(
    r"(?P<open>\[)?(?P<host>(?:[a-z0-9][a-z0-9-]{0,200}-)?(?:worker|master|launcher|trainer|chief|node)-\d{1,5})"
    r" (?(open)[a-z0-9][a-z0-9-]{0,62}\]|(?:pytorch|tensorflow|main|app|train(?:er|ing)?|worker|master|launcher)) "
)
_COMPOSE = re.compile(r"(?P<host>[\w.-]{1,60}[-_]\d{1,4}) {1,40}\| ?")
_SWARM = re.compile(rf"[\w.-]{{1,80}}@(?P<host>{_HOST}) {{1,40}}\| ?")
_SYSLOG = re.compile(rf"[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d (?P<host>{_HOST}) [\w./@-]{{1,80}}(?:\[\d{{1,8}}\])?: ?")
_NOTEBOOK = re.compile(r"In \[\d{1,6}\]\| ?")
_NUMBERED = re.compile(r"\[\d{3,7}\] {0,3}(?=[^\s\d]|\d{1,3}%)")  # the lines' numbers, of a web page
_QUOTE = re.compile(r"(?:> ?){1,4}")  # of an e-mail or an issue
_TIMED = re.compile(rf"(?:\[{_STAMP}\] ?|{_STAMP} (?=\S)|\d{{4}}-\d\d-\d\dT[\d:.,]{{8,18}}(?:Z|[+-]\d\d:?\d\d) |\| )")
_ORDER = (
    *(_MERGED, _MERGED_BRACKETS, _TORCHRUN, _MPIRUN, _RAY, _IPV4, _SRUN),
    *(_QUOTE, _NUMBERED, _TIMED, _KUBERNETES, _STERN, _COMPOSE, _SWARM, _SYSLOG, _NOTEBOOK),
)

# What looks like `host: ` and is a program, a file or a word of prose.
_NOT_A_HOST = re.compile(
    r"(?i).*\.(?:py|pyx|c|cc|cpp|cu|cuh|h|hpp|o|so|sh|json|ya?ml|txt|log)$"
    r"|(?:python|pip|conda|bash|sh|gcc|g\+\+|c\+\+|clang|nvcc|cc1|ld|ninja|make|cmake|torchrun|deepspeed|srun|ssh|pdsh"
    r"|sbatch|slurmstepd|wandb|error|warning|info|debug|note|fatal|step|epoch|rank|loss|usage|https?|x86_64)(?![a-z]).*"
    r"|.*(?:error|exception|warning)$"
)
_BAR = re.compile(
    r"[^\n]{0,200}?\d{1,3}%\|[^|\n]{0,400}\| {0,3}[\d.]+[kMGT]?(?:/[\d.?]+[kMGT]?)? ?(?:\[[^\]\n]{0,80}\])?"
)
_RANK_INSIDE = re.compile(r"\[(?:PG [^\]]{0,80} )?Rank (\d{1,6})\]")
_NCCL = re.compile(rf"(?P<host>{_HOST}):\d+:\d+ \[\d+\] ")
_SLURM = re.compile(
    rf"(?:slurmstepd-(?P<stepd>{_HOST}): |srun: error: (?P<srun>{_HOST}): tasks? (?:(?P<task>\d{{1,6}}):)?)"
)
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T _](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?")
_US_DATE = re.compile(r"\b(\d\d)/(\d\d)/(\d{4}) (\d\d):(\d\d):(\d\d)")
_GLOG = re.compile(r"(?:^|[\[\s])[IWEFCD](\d{1,2})(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{1,9})")


class Line(NamedTuple):
    """A line of a log.

    `text` is the line as printed, harmless to show; `body` is what is left without launchers' prefixes, indentation and
    the last state of a progress bar; `indent` counts the blanks before the body. `time` is seconds since the epoch,
    read as UTC, good for comparing lines only.
    """

    number: int
    text: str
    body: str
    indent: int
    host: str | None
    rank: int | None
    time: float | None


def harmless(text: str) -> str:
    """The text without control, invisible and direction-changing characters: safe on a terminal and in a report."""
    return _CONTROLS.sub("", text.replace("\t", "    "))


class LineParser:
    """Builds the lines of one source; remembers its host, its rank, and the host names that a launcher announced."""

    def __init__(self, host: str | None = None, rank: int | None = None) -> None:
        self._host = host
        self._rank = rank
        self._known: set[str] = set()
        self._year = 2000  # of the last full date; glog prints none

    def announce(self, hosts: list[str]) -> None:
        """Take these names for hosts when they stand before a line."""
        if len(self._known) < 4096:
            self._known.update(hosts)

    def parse(self, number: int, raw: bytes) -> Line:
        """The line of these bytes (without its newline)."""
        text = harmless(decode(raw[: 4 * LONGEST]))[:LONGEST].rstrip()
        host, rank, start = self._prefixes(text)
        rest = text[start:]
        if rest.startswith('{"'):
            told = _record(rest)
            named, inner, start = self._prefixes(told)
            host, rank, rest = host or named, rank if rank is not None else inner, told[start:]
        time = self._time(text)
        if "%|" in rest:
            rest = _after_bar(rest)
        body = rest.lstrip()
        if rank is None:
            inside = _RANK_INSIDE.search(body, 0, 200)
            rank = int(inside[1]) if inside else None
        slurm = _SLURM.match(body)
        if slurm:
            host = host or slurm["stepd"] or slurm["srun"]
            rank = int(slurm["task"]) if slurm["task"] else None  # a label before it is that of any task of the host
        if host is None:
            nccl = _NCCL.match(body)
            host = nccl["host"] if nccl else None
        return Line(
            number,
            text.strip(),
            body,
            len(rest) - len(body),
            host if host is not None else self._host,
            rank if rank is not None else self._rank,
            time,
        )

    def _prefixes(self, text: str) -> tuple[str | None, int | None, int]:
        """Host and rank of the prefixes before a line, and where the line itself begins."""
        host: str | None = None
        rank: int | None = None
        start = 0
        begin = len(text) - len(text.lstrip())
        for _ in range(5):
            found = self._prefix(text, begin)
            if found is None:
                break
            named = found.groupdict()
            host = host or named.get("host")
            if named.get("rank") is not None:
                rank = int(named["rank"])
            start = begin = found.end()
        return host, rank, start

    def _prefix(self, text: str, start: int) -> re.Match[str] | None:
        for pattern in _ORDER:
            found = pattern.match(text, start)
            if found:
                return found
        found = _NAMED.match(text, start)
        if not found:
            return None
        name = found["host"]
        if name in self._known:
            return found
        telling = any(character in name for character in "0123456789-.")
        return found if telling and name.lower() == name and not _NOT_A_HOST.fullmatch(name) else None

    def _time(self, text: str) -> float | None:
        """When the line was printed, if it says so in its first 200 characters."""
        head = text[:200]
        date = _DATE.search(head)
        if date:
            self._year = int(date[1])
            return _seconds(date[7], self._year, *(int(date[n]) for n in range(2, 7)))
        date = _US_DATE.search(head)
        if date:
            self._year = int(date[3])
            return _seconds(None, self._year, *(int(date[n]) for n in (1, 2, 4, 5, 6)))
        glog = _GLOG.search(head)
        if glog:
            return _seconds(glog[6], self._year, *(int(glog[n]) for n in range(1, 6)))
        return None


def _record(text: str) -> str:
    """What a record of JSON in the midst of a log says: the end of its traceback, or its message; else the text."""
    lines = said(text.encode("utf-8", "replace"))
    if lines is None:
        return text
    told = [harmless(decode(line)).rstrip() for line in lines]
    return told[-1] if any("Traceback (most" in line for line in told) else " ".join(told)


def _seconds(fraction: str | None, *date: int) -> float | None:
    year, month, day, hour, minute, second = date
    if not (1970 <= year <= 9999 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61):
        return None
    whole = calendar.timegm((year, month, day, hour, minute, second))
    return whole + (float(f"0.{fraction}") if fraction else 0.0)


def _after_bar(text: str) -> str:
    """What follows the last progress bar of a line; the bar itself when nothing does."""
    rest = text
    while True:
        bar = _BAR.match(rest)
        if not bar or not bar.end():
            break
        rest = rest[bar.end() :]
    return rest if rest.strip() else text.strip()
