"""Drawing a run while it goes on: headings of stages, the ranks' lines, what was noted, the verdict of a failure."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from dataclasses import asdict

from dsdoctor.cli._copy_view import CopyView
from dsdoctor.cli._other_ranks import OtherRanks
from dsdoctor.cli._watching import progress_line
from dsdoctor.escape import escape
from dsdoctor.run.events import (
    Copying,
    Diagnosed,
    Event,
    LineSeen,
    Noted,
    Progressed,
    RankFailed,
    StageDone,
    StageSkipped,
    StageStarted,
)
from dsdoctor.terminal import StatusLine, say

KEPT = 2000  # events that wait for a slow screen; lines beyond them are left out there, not in the logs
LINE_SHOWN = 2000  # characters of a line


class RunView:
    """Says on standard error what happens.

    Lines of rank 0 and of the launchers are shown, of other ranks what they fail of; all are in the logs. Drawn by a
    thread of its own: a terminal that is stopped (Ctrl-S, a pager) must hold up nobody.
    """

    def __init__(self, hosts: int) -> None:
        self._named = hosts > 1
        self._events: queue.Queue[Event | None] = queue.Queue(maxsize=KEPT)
        self._left_out = 0
        self._copies, self._others = CopyView(), OtherRanks()
        self._progress, self._told = StatusLine(), ""  # the line under all others, and what it says
        self._thread = threading.Thread(target=self._draw_all, daemon=True)
        self._thread.start()

    def __call__(self, event: Event) -> None:
        """Take an event to draw; never waits."""
        if isinstance(event, LineSeen) and event.rank not in (0, None):
            for line in self._others.line(event):
                self._put(line)
        elif isinstance(event, RankFailed):
            told = self._others.failed(event)
            if told is not None:
                self._put(Noted(told[0], warning=True))
                for line in told[1]:
                    self._put(line)
        else:
            if isinstance(event, StageStarted):
                self._others.begin()
            self._put(event)

    def _put(self, event: Event) -> None:
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self._left_out += 1

    def close(self, timeout: float = 3.0) -> None:
        """Draw what is left, for as long as the screen takes it."""
        with contextlib.suppress(queue.Full):
            self._events.put(None, timeout=timeout)
        self._thread.join(timeout)
        if self._left_out and not self._thread.is_alive():
            say(f"  {self._left_out} lines were not shown; the logs have them")

    def _draw_all(self) -> None:
        while (event := self._events.get()) is not None:
            if isinstance(event, Progressed):
                self._told = f"  {escape(progress_line(asdict(event)))}"
            elif not isinstance(event, LineSeen | Noted | Copying):
                self._told = ""
            self._draw(event)
            if self._told:
                self._progress.show(self._told)
        self._progress.clear()

    def _draw(self, event: Event) -> None:
        if isinstance(event, LineSeen):
            self._line(event)
        elif isinstance(event, Copying):
            self._copies(event)
        elif isinstance(event, StageStarted):
            say(f"\n[{event.index}/{event.total}] {escape(event.name)}")
        elif isinstance(event, StageSkipped):
            say(f"\n[{event.index}/{event.total}] {escape(event.name)}: done before")
        elif isinstance(event, StageDone):
            say(f"      {escape(event.name)} done in {event.seconds:.1f} s")
        elif isinstance(event, Noted):
            say(f"  {'! ' if event.warning else ''}{escape(event.text)}")
        elif isinstance(event, Diagnosed):
            self._diagnosed(event)

    def _line(self, event: LineSeen) -> None:
        who = event.host if event.rank is None else f"{event.host}:{event.rank}" if self._named else str(event.rank)
        more = " …" if len(event.text) > LINE_SHOWN else ""
        say(f"  {escape(who)}| {escape(event.text[:LINE_SHOWN])}{more}")

    def _diagnosed(self, event: Diagnosed) -> None:
        from dsdoctor.report import text
        from dsdoctor.terminal import look_of

        say("")
        say(text.render(event.report, look_of(sys.stderr)))
