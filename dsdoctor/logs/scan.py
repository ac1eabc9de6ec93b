"""One pass over one source: which patterns matched which lines, which exceptions were raised, where attempts begin.

Only lines that hold a keyword are looked at one by one (and those of an open traceback), so that the speed is that of
the keyword search; what is kept is bounded whatever the source holds.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from dsdoctor.logs import exceptions
from dsdoctor.logs.blocks import Block, blocks
from dsdoctor.logs.exceptions import ExceptionTracker, Raised
from dsdoctor.logs.keywords import Keywords
from dsdoctor.logs.lines import LONGEST, Line, LineParser
from dsdoctor.logs.places import place_of
from dsdoctor.logs.rules import RuleSet
from dsdoctor.logs.source import IncompleteError, NotTextError

SEGMENT = LONGEST  # bytes of a line looked at in one piece
REACH = SEGMENT * 3 // 4  # of which further words are looked for; one that stands later begins the next piece
BEFORE = SEGMENT // 4  # bytes of a long line looked at before a word in it
FIRST, LAST = 16, 8  # sightings of one pattern in one stream that are kept
SIGHTINGS = 20_000  # kept of all sources together, about
RAISED = 256  # exceptions kept of one source
PARTS = 10_000
FENCE = "```"
PROGRESS_TAIL = 1 << 16  # bytes at the end of a block in which training steps are looked for

_PROGRESS = (b"it/s]", b"s/it]", b"'loss': ", b'"loss": ', b"train_runtime")
_ENDED = b"train_runtime"
# torchrun's agent, once all its ranks have ended well: whatever was restarted before has been got over.
_SUCCEEDED = (b"worker group finished (SUCCEEDED", b"worker group successfully finished")
_WORKERS = re.compile(r"Running on the following workers: (?P<hosts>[\w.,:@-]{1,4000})")
_BEGIN = re.compile(
    r"(?P<head>\[runner\.py:\d+:main\] cmd = )|(?P<restart>will restart worker group)"
    r"|^(?:\+ |\$ |.{0,120}[#$] ?)?(?:[A-Z_]+=\S* ){0,20}(?P<command>(?:deepspeed|torchrun|accelerate launch"
    r"|python\d? (?:-u )?-m torch\.distributed\.(?:run|launch)) .{0,3000})"
)
_BEGIN_WORDS = (
    *("cmd = ", "will restart worker group"),
    *("deepspeed ", "torchrun ", "accelerate launch ", "-m torch.distributed."),
)
_END_WORDS = ("exits with return code", "ChildFailedError", "Killing subprocess", "failed (exitcode:", "train_runtime")
_SOURCE = re.compile(
    r"(?:\d{1,5} +)?(?:raise|assert|warnings?\.warn|warn|logger\.\w+)[ (]|[│┃❱]|-{1,5}> ?\d{1,5} |\d{1,5} {4,}\S"
)
_OWN_WORDS = ("Running on the following workers: ", FENCE, "(local_rank: ", "host      : ")
_FAILED_HOST = re.compile(r"^host {1,8}: (?P<host>[\w.-]{1,253})")
_FAILED_RANK = re.compile(r"^rank {1,8}: (?P<rank>\d{1,6}) \(local_rank: (?P<local>\d{1,6})\)")
_NAMED_OUTPUT = re.compile(r"--(?:output[_-]dir|run[_-]name|save[_-](?:dir|name|path))[ =](\S+)")


class Failed(NamedTuple):
    """An entry of torchrun's table of failures."""

    number: int
    host: str | None
    rank: int
    local_rank: int


class Place(NamedTuple):
    """Where in all the sources a line stands."""

    source: int
    number: int
    time: float | None


class Sighting(NamedTuple):
    """A line that a matcher matched."""

    place: Place
    line: Line
    groups: dict[str, str]
    part: int
    quoted: bool = False  # a line of source, as a traceback shows it


class Exc(NamedTuple):
    """An exception, with its place."""

    place: Place
    raised: Raised
    part: int


@dataclass
class Shelf:
    """The sightings of one matcher in one stream: the first few, the latest few, and how many there were."""

    first: list[Sighting] = field(default_factory=list)
    last: deque[Sighting] = field(default_factory=lambda: deque(maxlen=LAST))
    count: int = 0

    def add(self, sighting: Sighting) -> bool:
        """Keep it, or drop the oldest but the first ones. False when nothing more is held than before."""
        self.count += 1
        if len(self.first) < FIRST:
            self.first.append(sighting)
            return True
        grows = len(self.last) < LAST
        self.last.append(sighting)
        return grows

    def joined(self, other: Shelf) -> Shelf:
        """Both together, of two parts of one attempt."""
        shelf = Shelf(count=self.count + other.count)
        shelf.first = [*self.first, *self.last, *other.first, *other.last]
        return shelf

    def __iter__(self) -> Iterator[Sighting]:
        yield from self.first
        yield from self.last


ShelfKey = tuple[int, "str | None", "int | None", int]  # matcher, host, rank, part


@dataclass
class Scan:
    """What was found in one source. It is cut into parts: by attempts at the job, and by the fences of a document."""

    name: str
    index: int
    shelves: dict[ShelfKey, Shelf] = field(default_factory=dict)
    raised: list[Exc] = field(default_factory=list)
    parts: list[int] = field(default_factory=lambda: [1])  # the attempt that each part belongs to
    fences: int = 0  # lines of ``` in it
    failed: list[Failed] = field(default_factory=list)  # torchrun's table, which alone knows global ranks
    last_line: int = 0  # number of the last line that is not empty
    last_progress: int = 0  # number of the last line that shows a training step or its end
    last_end: int = 0  # number of the last line that shows the end of a whole training
    last_success: int = 0  # number of the last line in which a launcher says that all ranks have ended well
    size: int = 0  # bytes
    remark: str | None = None  # why it was not read to its end, or at all
    cut: bool = False  # it was not read to its end

    @property
    def document(self) -> bool:
        """Whether it is Markdown with several fenced blocks: notes, each block about something else."""
        return self.fences >= 4

    def scope(self, part: int) -> int:
        """What a line is judged together with: its block in a document, its attempt in a log."""
        return part if self.document else self.parts[part]


class Scanner:
    """Scans sources with one set of rules; the automaton is built once.

    Of one of many sources less is kept, so that a job's hundred logs take the time and memory of one as long.
    """

    def __init__(self, rules: RuleSet, sources: int = 1) -> None:
        self._rules = rules
        self._sources = sources
        wanted = [(word, number) for number, matcher in enumerate(rules.matchers) for word in matcher.words]
        own = (*exceptions.WORDS, *_OWN_WORDS, *_BEGIN_WORDS, *_END_WORDS)
        self.keywords = Keywords([*wanted, *((word, -1) for word in own)])

    def scan_all(self, sources: Iterable[tuple[str, Iterable[bytes]]], first: int = 0) -> Iterator[Scan]:
        """Read sources in their order, numbered from `first` on; host and rank of each are taken from its name."""
        for index, (name, chunks) in enumerate(sources, first):
            yield self.scan(index, name, chunks, *place_of(name))

    def scan(
        self, index: int, name: str, chunks: Iterable[bytes], host: str | None = None, rank: int | None = None
    ) -> Scan:
        """Read one source to its end. `host` and `rank` are those of the whole source, where its name tells."""
        work = _Work(self._rules, self.keywords, Scan(name, index), LineParser(host, rank), self._sources)
        for block in blocks(_as_far_as_it_goes(chunks, work.found), name):
            work.block(block)
        return work.found


def _as_far_as_it_goes(chunks: Iterable[bytes], found: Scan) -> Iterator[bytes]:
    try:
        yield from chunks
    except IncompleteError as reason:
        found.remark, found.cut = str(reason), not isinstance(reason, NotTextError)


class _Work:
    """The state of one pass over one source."""

    def __init__(self, rules: RuleSet, keywords: Keywords, found: Scan, parser: LineParser, sources: int) -> None:
        self._matchers = rules.matchers
        self._keywords = keywords
        self._search = keywords.search(sources)
        self._most = max(1000, SIGHTINGS // sources)
        self._number = 1  # of the line at which the next block begins
        self._parser = parser
        self._tracker = ExceptionTracker()
        self._kept = 0
        self._ended: set[str | None] = set()  # hosts on which a run has ended
        self._commands: list[str] = []
        self._failed_host: str | None = None
        self.found = found

    def block(self, block: Block) -> None:
        """Search one block."""
        data, number = block.data, self._number
        hits = self._search.hits(data, block.last)
        self.found.size += len(data)
        position, index, counted = 0, 0, 0
        while position < len(data):
            if not self._tracker.open:
                if index >= len(hits):
                    break
                start = hits[index][0]
                position = max(position, data.rfind(b"\n", position, start) + 1, data.rfind(b"\r", position, start) + 1)
                if start - position >= REACH:
                    position = start - BEFORE
            end = self._end(data, position)
            following = end + 1 if end - position < SEGMENT else position + REACH
            words: set[int] = set()
            while index < len(hits) and hits[index][0] < following:
                words.update(self._keywords.numbers[hits[index][2]])
                index += 1
            number += block.breaks(counted, position)
            counted = position
            self._line(number, data[position:end], words)
            position = following
        self._number = number + block.breaks(counted, len(data))
        self._progress(block)

    def _end(self, data: bytes, start: int) -> int:
        """Where the segment that begins at `start` ends: at a newline, a carriage return, or after SEGMENT bytes."""
        limit = min(len(data), start + SEGMENT)
        end = data.find(b"\n", start, limit)
        back = data.find(b"\r", start, limit if end < 0 else end)
        ends = [place for place in (end, back) if place >= 0]
        return min(ends) if ends else limit

    def _progress(self, block: Block) -> None:
        """Note where the last training step and the last line stand."""
        data = block.data
        # In a full block the end is enough: a training that goes on shows it more often than that.
        tail = max(0, len(data) - PROGRESS_TAIL)
        last = max(_last(data, mark, tail) for mark in _PROGRESS)
        if last >= 0:
            self.found.last_progress = self._number - block.breaks(last, len(data))
        ended = data.rfind(_ENDED, tail)
        if ended >= 0:
            self.found.last_end = self._number - block.breaks(ended, len(data))
        succeeded = max(data.rfind(mark, tail) for mark in _SUCCEEDED)
        if succeeded >= 0:
            self.found.last_success = self._number - block.breaks(succeeded, len(data))
        end = len(data.rstrip())
        if end:
            self.found.last_line = self._number - block.breaks(end, len(data))

    def _line(self, number: int, raw: bytes, words: set[int]) -> None:
        if not words and not raw:
            return
        line = self._parser.parse(number, raw)
        place = Place(self.found.index, number, line.time)
        if -1 in words:
            words.discard(-1)
            self._own(line)
        part = len(self.found.parts) - 1
        raised = self._tracker.feed(line)
        quoted = raised is None and (self._tracker.inside(line) or bool(_SOURCE.match(line.body)))
        for each in sorted(words):
            groups = self._matchers[each].groups(line.body, line.text)
            if groups is not None:
                self._keep(each, Sighting(place, line, groups, part, quoted))
        if raised is not None and len(self.found.raised) < RAISED:
            self.found.raised.append(Exc(place, raised, part))

    def _keep(self, matcher: int, sighting: Sighting) -> None:
        line = sighting.line
        rank = _number(sighting.groups.get("rank"), line.rank)
        key = (matcher, sighting.groups.get("host", line.host), rank, sighting.part)
        shelf = self.found.shelves.get(key)
        if shelf is None:
            if self._kept >= self._most:
                return
            shelf = self.found.shelves[key] = Shelf()
        if self._kept < self._most:
            self._kept += shelf.add(sighting)
        else:
            shelf.count += 1

    def _own(self, line: Line) -> None:
        """Lines that say which hosts there are, where a block of a document or a run begins or ends."""
        if line.body.startswith(FENCE):
            self.found.fences += 1
            self._part(self.found.parts[-1])
            return
        host, rank = _FAILED_HOST.match(line.body), _FAILED_RANK.match(line.body)
        if host:
            self._failed_host = host["host"] if host["host"] != "localhost" else None
        if rank and len(self.found.failed) < RAISED:
            self.found.failed.append(Failed(line.number, self._failed_host, int(rank["rank"]), int(rank["local"])))
        workers = _WORKERS.search(line.body)
        if workers:
            self._parser.announce(workers["hosts"].split(","))
        if any(word in line.body for word in _END_WORDS):
            if len(self._ended) < 4096:
                self._ended.add(line.host)
            return
        begin = _BEGIN.search(line.body, 0, 4000)
        if not begin:
            return
        command = begin["command"] or ""
        if self._ended and (line.host is None or line.host in self._ended):
            self._ended.clear()
            if not self._new_output(command):
                self._part(self.found.parts[-1] + 1)
        self._commands = [*self._commands[-31:], command]

    def _part(self, attempt: int) -> None:
        if len(self.found.parts) < PARTS:
            self.found.parts.append(attempt)

    def _new_output(self, command: str) -> bool:
        """Whether a command writes elsewhere than those before it: the next stage of a job, not another attempt."""
        named = set(_NAMED_OUTPUT.findall(command))
        before = {name for each in self._commands for name in _NAMED_OUTPUT.findall(each)}
        return bool(named) and bool(before) and not named & before


def _last(data: bytes, mark: bytes, tail: int) -> int:
    """Where a mark of progress stands last; `?it/s]` is a bar that has not begun."""
    place = data.rfind(mark, tail)
    while place > 0 and data[place - 1 : place] == b"?":
        place = data.rfind(mark, tail, place)
    return place


def _number(text: str | None, otherwise: int | None) -> int | None:
    return int(text) if text is not None and text.isdigit() and len(text) < 7 else otherwise
