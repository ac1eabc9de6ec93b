"""Drawing a run while it goes on: headings of stages, the ranks' lines, what was noted, the verdict of a failure."""

from __future__ import annotations

import sys

from dsdoctor.escape import escape
from dsdoctor.run.events import (
    Copying,
    Diagnosed,
    Event,
    LineSeen,
    Noted,
    StageDone,
    StageSkipped,
    StageStarted,
)
from dsdoctor.terminal import StatusLine, say


class RunView:
    """Says on standard error what happens. Lines of rank 0 and of the launchers are shown; all are in the logs."""

    def __init__(self, hosts: int, everything: bool = False) -> None:
        self._everything = everything
        self._named = hosts > 1
        self._copied: dict[str, int] = {}
        self._status = StatusLine()

    def __call__(self, event: Event) -> None:
        """Draw one event."""
        if isinstance(event, LineSeen):
            self._line(event)
        elif isinstance(event, Copying):
            self._copying(event)
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
        if not self._everything and event.rank not in (0, None):
            return
        who = event.host if event.rank is None else f"{event.host}:{event.rank}" if self._named else str(event.rank)
        say(f"  {escape(who)}| {escape(event.text)}")

    def _copying(self, event: Copying) -> None:
        """One line drawn over itself while files are copied, and a line to keep when a host has them."""
        before = self._copied.get(event.host, -1)
        self._copied[event.host] = event.percent
        if event.percent == 100 and before != 100:
            self._status.clear()
            say(f"  code is on {escape(event.host)}")
        elif event.percent < 100:
            under_way = [f"{escape(host)} {done} %" for host, done in self._copied.items() if done < 100]
            self._status.show(f"  copying code: {', '.join(under_way)}")

    def _diagnosed(self, event: Diagnosed) -> None:
        from dsdoctor.report import text
        from dsdoctor.terminal import look_of

        say("")
        say(text.render(event.report, look_of(sys.stderr)))
