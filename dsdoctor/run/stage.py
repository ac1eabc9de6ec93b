"""One stage on all hosts: start the guardians together, follow them, stop all at the first failure.

Nothing here knows names of processes: a host is told to stop, or its line is dropped, and its guardian ends what it
started. A host that falls silent is lost after `Limits.lifeline` seconds; its own guardian, hearing nothing either,
stops by itself.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping

from dsdoctor.hosts.transport import Transport
from dsdoctor.plan.model import LaunchPlan, StagePlan
from dsdoctor.run.attempt import Attempt
from dsdoctor.run.coming_up import ComingUp
from dsdoctor.run.events import HostsStarted, LineSeen, Noted, RankFailed, Show
from dsdoctor.run.guard import Frame, Guard, spool_of
from dsdoctor.run.in_order import InOrder
from dsdoctor.run.stage_end import Failures, HostEnd, Limits, StageEnd, ended_how, failed_worker, killed_words
from dsdoctor.run.stage_logs import StageLogs
from dsdoctor.run.taken import Keeping, Taken
from dsdoctor.run.watch import Watch

CLEARED_SECONDS = 1.0  # for guardians to take their spools away; what is left then is asked for later


class StageRun:
    """A stage being carried out on all hosts. Ctrl-C and SIGTERM stop it everywhere first.

    `stop_asked` is looked at about once a second: another process may want the run to stop.
    """

    def __init__(
        self,
        plan: LaunchPlan,
        stage: StagePlan,
        transports: Mapping[str, Transport],
        logs: StageLogs,
        *,
        show: Show,
        limits: Limits,
        attempt: Attempt | None = None,
        stop_asked: Callable[[], bool] = lambda: False,
        watch: Watch | None = None,
    ) -> None:
        self.plan, self.stage, self.logs = plan, stage, logs
        self.show, self.limits = show, limits
        self.attempt, self.stop_asked = attempt or Attempt(), stop_asked
        before = self.attempt.taken_over or Taken(time.time())
        self.began = before.began
        self.offsets = dict(before.offsets)
        self.frames: queue.Queue[tuple[str, Frame]] = queue.Queue(maxsize=10_000)
        self.guards = {
            host.name: Guard(host, transports[host.name], lambda name, frame: self.frames.put((name, frame)))
            for host in plan.hosts
        }
        self.ends = {host.name: before.ends.get(host.name) or HostEnd() for host in plan.hosts}
        self.running = {name for name, end in self.ends.items() if end.code is None and end.lost is None}
        self.not_started = set(self.ends) if self.attempt.taken_over is None else set()
        self.failures = Failures(before.first)
        self._in_order = InOrder(self.ends) if self.attempt.taken_over is not None else None
        self.stop_at: float | None = None  # when hosts that still run are told to stop
        self.drop_at: float | None = None  # when lines that are still open are dropped
        self.interrupted = False
        self.looked = 0.0
        self.told: set[str] = set()  # hosts that were told to stop
        self.clearing: set[str] = set()  # hosts whose guardian was told that nothing need be kept any more
        self.watch = watch
        self.stalled: str | None = None
        self._keeping = Keeping(self.attempt.keep, show)
        self._coming_up = ComingUp(plan, stage, limits.ranks_up, limits.meeting)

    def run(self) -> StageEnd:
        """Start the guardians, follow them to the end, and return how it ended."""
        over = threading.Event()
        threading.Thread(target=self._keep_alive, args=(over,), daemon=True).start()
        try:
            for name in self.running:
                order = self.attempt.order(self.plan, self.stage, name, self.offsets.get(name, 0), self.limits)
                self.guards[name].start(order, self.plan.setup)
            if self.watch is not None and self.attempt.taken_over is not None:
                self.watch.taken_over(time.monotonic())
            if self.first is not None:  # the head before us went while it was stopping the others
                self.stop_at = time.monotonic()
            while self.running:
                try:
                    self._turn()
                except KeyboardInterrupt:
                    self._interrupt()
            until = time.monotonic() + CLEARED_SECONDS
            while self.clearing and time.monotonic() < until:
                self._turn()
        finally:
            self._keep()
            over.set()
            for guard in self.guards.values():
                guard.hang_up()
            until = time.monotonic() + 2
            for guard in self.guards.values():
                guard.close(max(0.0, until - time.monotonic()))
        if self.logs.failed is not None:
            self.show(Noted(self.logs.failed, warning=True))
        if self.watch is not None:
            self.watch.close(time.monotonic())
        seconds = max(0.0, time.time() - self.began)
        return StageEnd(self.ends, self.first, self.interrupted, seconds, self.stalled)

    def _keep(self) -> None:
        """Write down how far a detached stage was taken over."""
        self._keeping(Taken(self.began, self.offsets, self.ends, self.first, self.logs.lengths()))

    def _keep_alive(self, over: threading.Event) -> None:
        """Ping every host from a thread of its own: a disk or a screen that is slow here must end nothing there."""
        while not over.wait(1):
            for name in tuple(self.running):
                self.guards[name].ping()

    def _turn(self) -> None:
        """Take what came, and do what time asks for."""
        try:
            name, frame = self.frames.get(timeout=0.1)
            self._take(name, frame)
            for _ in range(500):
                self._take(*self.frames.get_nowait())
        except queue.Empty:
            pass
        now = time.monotonic()
        for name, frame in self._in_order.take(now) if self._in_order is not None else ():
            self._taken(name, frame)
        if now - self.looked >= 1:
            self.looked = now
            self._find_lost(now)
            self._find_held_up(now)
            self._keep()
            if not self.interrupted and self.stop_asked():
                self._interrupt("told to stop")
        if self.watch is not None:
            self.watch.tick(now)
            self._stop_stalled()
        if self.stop_at is not None and now >= self.stop_at:
            self.stop_at = None
            self._stop_running(now)
        if self.drop_at is not None and now >= self.drop_at:
            for name in list(self.running):
                self._lose(name, f"it did not confirm the stop; {self.attempt.what_goes_on(self.plan.run)}")

    @property
    def first(self) -> str | None:
        """The host that failed first."""
        return self.failures.first

    def _take(self, name: str, frame: Frame) -> None:
        if self._in_order is None:
            self._taken(name, frame)
        else:
            self._in_order.put(name, frame)

    def _taken(self, name: str, frame: Frame) -> None:
        self._frame(name, frame)
        if isinstance(frame.get("next"), int):
            self.offsets[name] = frame["next"]

    def _frame(self, name: str, frame: Frame) -> None:
        kind = frame.get("e")
        end = self.ends[name]
        self._coming_up.take(name, frame, time.monotonic())
        if kind == "line":
            self._line(name, frame)
        elif kind == "cleared":
            end.cleared = True
            self.clearing.discard(name)
        elif name not in self.running:
            return  # it was given up before
        elif kind == "started":
            self._started(name, frame.get("pid"))
        elif kind == "bar" and self.watch is not None:
            rank = frame.get("r")
            rank = rank if isinstance(rank, int) else None
            self.watch.bar(name, rank, str(frame.get("x", "")), time.monotonic(), self._printed_at(frame))
        elif kind == "rank":
            self._rank_failed(name, int(frame["r"]), int(frame["code"]), frame)
        elif kind in ("look", "stall", "stall_over") and self.watch is not None:
            self.watch.guardian_said(name, frame)
            self._stop_stalled()
        elif kind == "note":
            self._agent_line(name, f"dsdoctor: {name}: {frame.get('text')}")
        elif kind == "stopping":
            self._ending(name, frame.get("why"))
            if end.stopped is not None:
                self._failed(name, frame)
        elif kind == "exit":
            end.code = int(frame["code"])
            reason = frame.get("stopped")
            self._ending(name, reason)
            for rank, said in killed_words(name, end, frame.get("oom_kills")):
                self.logs.tell(name, rank, said, self.show)
            self.running.discard(name)
            if not self.attempt.detach and self.logs.failed is None:
                self.clearing.add(name)
                self.guards[name].fetched()
            if end.stopped is not None or (end.code != 0 and reason is None):
                self._failed(name, frame)
        elif kind == "error":
            end.code, end.not_started = 127, str(frame.get("text"))
            self._agent_line(name, f"dsdoctor: {frame.get('text')}")
            self.running.discard(name)
            self._failed(name, frame)
        elif kind in ("lost", "gone", "closed"):
            self._lose(name, str(frame.get("text")))
            end.closed = kind == "closed"
            if kind == "gone":
                end.gone = True
                # Others' ranks failed of that, and their guardians were there to tell it at once.
                self.failures.accuse(name)

    def _stop_stalled(self) -> None:
        if self.watch is not None and self.watch.stop is not None and self.stalled is None and self.first is None:
            host, self.stalled = self.watch.stop
            self._failed(host)

    def _started(self, name: str, pid: object) -> None:
        if self.watch is not None and isinstance(pid, int):
            self.watch.started(name, pid, time.monotonic())
        if name in self.not_started:
            self.not_started.discard(name)
            if not self.not_started:
                self.show(HostsStarted(self.stage.name, tuple(self.ends)))

    def _ending(self, name: str, reason: object) -> None:
        """Remember, and say once, why a guardian ends the job without having been told to."""
        if reason is None or name in self.told or self.ends[name].stopped is not None:
            return
        self.ends[name].stopped = str(reason)
        self._agent_line(name, f"dsdoctor: the guardian of {name} ended the job: {reason}")

    def _line(self, name: str, frame: Frame) -> None:
        text, rank = str(frame.get("x", "")), frame.get("r")
        rank = rank if isinstance(rank, int) else None
        self.logs.write(name, rank, text)
        if rank is None and (found := failed_worker(text)):
            self._rank_failed(name, self.plan.host(name).first_rank + found[0], found[1], frame)
        if self.watch is not None:
            self.watch.line(name, rank, text, time.monotonic(), self._printed_at(frame))
        self.show(LineSeen(name, rank, text, frame.get("s") == "e"))

    def _printed_at(self, frame: Frame) -> float | None:
        """When a line was printed, where that may be long ago."""
        return frame.get("happened") if self._in_order is not None else None

    def _rank_failed(self, name: str, rank: int, code: int, frame: Frame) -> None:
        ranks = self.ends[name].failed_ranks
        if rank not in ranks and name in self.running and name not in self.told:
            self.show(RankFailed(name, rank, ended_how(code)))
        ranks.setdefault(rank, code)
        self._failed(name, frame)

    def _agent_line(self, name: str, text: str) -> None:
        self.logs.tell(name, None, text, self.show)

    def _lose(self, name: str, why: str) -> None:
        if name not in self.running:
            return
        self.running.discard(name)
        self.ends[name].lost = why
        self._agent_line(name, f"dsdoctor: lost {name}: {why}")
        if not self.plan.host(name).local:
            spool = spool_of(self.plan.host(name), self.stage, self.attempt.number)
            self.logs.write(name, None, f"dsdoctor: what it printed since then is in {spool}/frames on {name}")
        self._failed(name)

    def _failed(self, name: str, frame: Frame | None = None) -> None:
        """Remember when a host failed; the others get a moment to say why they end, then they are stopped.

        One that ended because of another (`peer`) accuses that one, whose own word is still to come.
        """
        if self.interrupted:
            return
        now = time.monotonic()
        if frame is not None and frame.get("peer"):
            self.stop_at = now + self.limits.settle if self.stop_at is None else self.stop_at
        elif self.failures.add(name, (frame or {}).get("happened", now)):
            self.stop_at = now + self.limits.settle

    def _stop_running(self, now: float) -> None:
        if not self.running:
            return
        self.show(Noted(f"stopping {', '.join(sorted(self.running))}", warning=True))
        self.told |= self.running
        if self.watch is not None:
            self.watch.ends()
        for name in self.running:
            self.guards[name].stop()
        self.drop_at = now + self.limits.grace + 5

    def _interrupt(self, why: str = "interrupted") -> None:
        """The first Ctrl-C stops every host and waits for them; the second drops the lines at once."""
        now = time.monotonic()
        if self.interrupted:
            self.drop_at = now
            return
        self.interrupted = True
        again = " (again to leave at once)" if why == "interrupted" else ""
        self.show(Noted(f"{why}: stopping every host{again}", warning=True))
        self._stop_running(now)

    def _find_held_up(self, now: float) -> None:
        """A host whose ranks do not come up, or do not meet the others, fails the stage; all are stopped."""
        found = None if self.first is not None or self.interrupted else self._coming_up.problem(now)
        if found is not None and found[0] in self.running:
            name, why = found
            self.ends[name].held_up = why
            self._agent_line(name, f"dsdoctor: {why}")
            self._failed(name)

    def _find_lost(self, now: float) -> None:
        for name in list(self.running):
            guard = self.guards[name]
            if guard.greeted and now - guard.heard > self.limits.lifeline:
                after = f"; {self.attempt.what_goes_on(self.plan.run)}" if self.attempt.detach else ""
                self._lose(name, f"no sign of life for {self.limits.lifeline:.0f} s{after}")
            elif not guard.greeted and not guard.ended and now - guard.heard > self.limits.greeting:
                self._lose(name, f"no guardian came up within {self.limits.greeting:.0f} s")
