"""Carrying out a launch plan, stage by stage, each checked before the next.

`execute()` takes the plan and nothing else about what is to run; paths, commands and variables are the plan's.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType

import msgspec

from dsdoctor.hosts.transport import Transport, TransportError
from dsdoctor.plan.model import LaunchPlan, StagePlan
from dsdoctor.report.model import Report
from dsdoctor.run.directory import RunDirectory, RunState, StageState, Status
from dsdoctor.run.events import Copying, Diagnosed, Noted, Show, StageDone, StageSkipped, StageStarted
from dsdoctor.run.on_host import HostAnswerError, ask, missing_outputs
from dsdoctor.run.stage import Limits, StageEnd, StageLogs, StageRun
from dsdoctor.run.sync import SyncError, fetch, sync


@dataclass(frozen=True)
class Outcome:
    """How a launch ended. `failure` says it in one sentence."""

    status: Status
    stage: str | None = None
    host: str | None = None
    rank: int | None = None
    failure: str | None = None
    report: Report | None = None
    sync_seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 done, 1 a stage failed, 130 interrupted."""
        return {"done": 0, "failed": 1, "interrupted": 130}.get(self.status, 1)


def execute(
    plan: LaunchPlan,
    transports: Mapping[str, Transport],
    directory: RunDirectory,
    show: Show,
    *,
    limits: Limits | None = None,
) -> Outcome:
    """Copy the code, run the stages that are not done, stop everything at the first failure.

    Args:
        plan: what to do; nothing beside it decides what is started.
        transports: the way to every host of the plan, by name.
        directory: where state, logs and outputs are kept; held by the caller's lock.
        show: is told what happens.
        limits: how long a silent host, a stop or a start may take.
    """
    run = _Run(plan, transports, directory, show, limits or Limits())
    with _signals_as_interrupt():
        try:
            return run.carry_out()
        except KeyboardInterrupt:
            run.mark("interrupted")
            return Outcome("interrupted")


class _Run:
    def __init__(
        self,
        plan: LaunchPlan,
        transports: Mapping[str, Transport],
        directory: RunDirectory,
        show: Show,
        limits: Limits,
    ) -> None:
        self.plan, self.transports, self.directory = plan, transports, directory
        self.show, self.limits = show, limits
        self.state = directory.state()
        self.stage_seconds: dict[str, float] = {}

    def mark(self, status: Status) -> None:
        """Write the run's status down."""
        self._save(msgspec.structs.replace(self.state, status=status))

    def carry_out(self) -> Outcome:
        self.mark("running")
        began = time.monotonic()
        try:
            copies = sync(self.plan, self.transports, lambda host, done: self.show(Copying(host, done)))
            for name, how in copies.items():
                if how != "copied":
                    self.show(Noted(f"{name} {how}"))
        except SyncError as error:
            self.mark("failed")
            return Outcome("failed", host=error.host, failure=str(error))
        except (TransportError, OSError) as error:
            self.mark("failed")
            return Outcome("failed", failure=f"the code could not be copied: {error}")
        sync_seconds = time.monotonic() - began
        outcome = self._stages()
        self.mark(outcome.status)
        return replace(outcome, sync_seconds=sync_seconds, stage_seconds=self.stage_seconds)

    def _stages(self) -> Outcome:
        redo = False
        for stage in self.plan.stages:
            known = next(state for state in self.state.stages if state.name == stage.name)
            if known.status == "done" and not redo:
                missing = self._missing(stage)
                if not missing:
                    self.show(StageSkipped(stage.name, stage.index, len(self.plan.stages)))
                    continue
                self.show(Noted(f"stage {stage.name} was done, but {missing}: it is run again", warning=True))
            redo = True
            outcome = self._stage(stage, known)
            if outcome is not None:
                return outcome
        return Outcome("done")

    def _stage(self, stage: StagePlan, known: StageState) -> Outcome | None:
        """Run one stage; None when it ended well."""
        self.show(StageStarted(stage.name, stage.index, len(self.plan.stages)))
        attempt = known.attempts + 1
        self._save_stage(msgspec.structs.replace(known, status="running", attempts=attempt, failure=None))
        folder = self.directory.logs(stage.folder)
        if attempt > 1:
            _set_aside(self.directory, stage.folder, attempt - 1)
        with StageLogs(folder) as logs:
            running = StageRun(self.plan, stage, self.transports, logs, show=self.show, limits=self.limits)
            end = running.run()
        self.stage_seconds[stage.name] = end.seconds
        ended = msgspec.structs.replace(known, attempts=attempt, seconds=end.seconds, exit_codes=end.exit_codes())
        if end.interrupted:
            self._save_stage(msgspec.structs.replace(ended, status="interrupted"))
            unsure = [name for name, host in end.hosts.items() if host.lost is not None]
            doubt = f"not confirmed by {', '.join(unsure)}" if unsure else None
            return Outcome("interrupted", stage.name, failure=doubt)
        failure = None if end.well else _failure(stage, end)
        if failure is None:
            missing = self._missing(stage)
            failure = f"stage {stage.name} ended with exit code 0, but {missing}" if missing else None
        if failure is not None:
            self._save_stage(msgspec.structs.replace(ended, status="failed", failure=failure))
            return self._failed(stage, end, failure)
        self._save_stage(msgspec.structs.replace(ended, status="done"))
        self.directory.remove("verdict.json")  # of an attempt before this one
        self._fetch(stage)
        self.show(StageDone(stage.name, end.seconds))
        return None

    def _failed(self, stage: StagePlan, end: StageEnd, failure: str) -> Outcome:
        """Diagnose the stage's log; the verdict's host and rank are better than who was heard first."""
        host, rank = end.first, None
        if host is not None and end.hosts[host].failed_ranks:
            rank = next(iter(end.hosts[host].failed_ranks))
        report = self._diagnose(stage)
        verdict = report.verdict if report else None
        if verdict is not None and verdict.cause not in ("none", "unknown") and verdict.host is not None:
            host, rank = verdict.host, verdict.rank
        return Outcome("failed", stage.name, host, rank, failure, report)

    def _diagnose(self, stage: StagePlan) -> Report | None:
        from dsdoctor.logs.diagnose import diagnose
        from dsdoctor.run.log_files import open_sources

        try:
            report = diagnose(open_sources([self.directory.logs(stage.folder) / "merged.log"]))
        except Exception as error:  # the failure itself must be told, whatever becomes of its explanation
            self.show(Noted(f"the log could not be diagnosed ({error}); try dsdoctor diagnose on it", warning=True))
            return None
        self.directory.write_json("verdict.json", report.to_dict())
        self.show(Diagnosed(report))
        return report

    def _missing(self, stage: StagePlan) -> str | None:
        """What of a stage's outputs is missing where rank 0 ran, in words; None when all is there."""
        host = self.plan.hosts[0]
        order = {"folder": f"{host.run_dir}/outputs/{stage.folder}", "outputs": list(stage.outputs)}
        try:
            missing = ask(self.transports[host.name], host.python, missing_outputs, order, self.plan.setup)
        except (TransportError, HostAnswerError, subprocess.TimeoutExpired) as error:
            return f"its outputs on {host.name} could not be looked at ({error})"
        return f"on {host.name} {', '.join(missing)} in {order['folder']}" if missing else None

    def _fetch(self, stage: StagePlan) -> None:
        """Bring the stage's files to the head, from the host of rank 0."""
        host = self.plan.hosts[0]
        if host.local:
            return
        local = self.directory.path / "outputs" / stage.folder
        problem = fetch(host, self.transports[host.name], f"{host.run_dir}/outputs/{stage.folder}", local)
        if problem:
            self.show(Noted(f"the outputs of {stage.name} stay on {host.name}: {problem}", warning=True))

    def _save(self, state: RunState) -> None:
        self.state = state
        self.directory.save_state(state)

    def _save_stage(self, stage: StageState) -> None:
        self._save(self.state.with_stage(stage))


def _failure(stage: StagePlan, end: StageEnd) -> str:
    """One sentence: which stage, which host first, what it ended with."""
    if end.first is None:
        codes = ", ".join(f"{name}: {code}" for name, code in end.exit_codes().items() if code)
        return f"stage {stage.name} failed ({codes})"
    first = end.hosts[end.first]
    if first.stopped is not None:
        return f"stage {stage.name} failed: the guardian of {end.first} ended the job ({first.stopped})"
    if first.lost is not None:
        return f"stage {stage.name} failed: {end.first} was lost ({first.lost})"
    if first.failed_ranks:
        rank, code = next(iter(first.failed_ranks.items()))
        how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        return f"stage {stage.name} failed: rank {rank} on {end.first} {how}"
    if first.code is not None and first.code < 0:
        return f"stage {stage.name} failed: {end.first} was ended by {signal_name(-first.code)}"
    return f"stage {stage.name} failed: {end.first} ended with exit code {first.code}"


def signal_name(number: int) -> str:
    """SIGKILL for 9; `signal 99` for what has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _set_aside(directory: RunDirectory, folder: str, attempt: int) -> None:
    """Keep the logs of an earlier attempt apart, so that a verdict is about the last one."""
    logs = directory.logs(folder)
    if logs.exists():
        logs.rename(logs.with_name(f"{folder}.attempt{attempt}"))


@contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """SIGTERM and a closed terminal end a run as Ctrl-C does: every host is stopped first."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    # One that is ignored stays so: `nohup dsdoctor launch … &` is meant to survive its terminal.
    numbers = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
