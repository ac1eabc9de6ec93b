"""Carrying out a launch plan, stage by stage, each checked before the next.

`execute()` takes the plan and nothing else about what is to run; paths, commands and variables are the plan's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec

from dsdoctor.hosts.transport import Transport, TransportError
from dsdoctor.plan.model import LaunchPlan, StagePlan
from dsdoctor.run import retry
from dsdoctor.run.after_stage import diagnosed, end_what_is_left, fetch_outputs, problem_of_outputs
from dsdoctor.run.attempt import Attempt, Left, signals_as_interrupt
from dsdoctor.run.directory import RunDirectory, RunState, StageState, Status
from dsdoctor.run.events import Noted, Show, StageDone, StageSkipped, StageStarted
from dsdoctor.run.fetched import Fetched
from dsdoctor.run.kept import secrets_gone, secrets_wanted
from dsdoctor.run.outcome import Manner, Outcome
from dsdoctor.run.page import write_page
from dsdoctor.run.stage import StageRun
from dsdoctor.run.stage_end import Limits, StageEnd, failure_of
from dsdoctor.run.stage_logs import StageLogs
from dsdoctor.run.sync.carry_out import sync
from dsdoctor.run.sync.errors import SyncError
from dsdoctor.run.taken import Taken, restore, save
from dsdoctor.run.watch import Watch


def execute(
    plan: LaunchPlan,
    transports: Mapping[str, Transport],
    directory: RunDirectory,
    show: Show,
    *,
    limits: Limits | None = None,
    manner: Manner | None = None,
) -> Outcome:
    """Copy the code, run the stages that are not done, stop everything at the first failure.

    A stage that goes on under detached guardians is taken over where the head before this one was.

    Args:
        plan: what to do; nothing beside it decides what is started.
        transports: the way to every host of the plan, by name.
        directory: where state, logs and outputs are kept; held by the caller's lock.
        show: is told what happens.
        limits: how long a silent host, a stop or a start may take.
        manner: detached or not, and which stages.
    """
    run = _Run(plan, transports, directory, show, limits or Limits(), manner or Manner())
    with signals_as_interrupt(run.manner.detach):
        try:
            return run.carry_out()
        except KeyboardInterrupt:
            run.mark("interrupted")
            return Outcome("interrupted")
        except Left:
            return Outcome("running")


class _Run:
    def __init__(
        self,
        plan: LaunchPlan,
        transports: Mapping[str, Transport],
        directory: RunDirectory,
        show: Show,
        limits: Limits,
        manner: Manner,
    ) -> None:
        self.plan, self.transports, self.directory = plan, transports, directory
        self.show, self.limits, self.manner = show, limits, manner
        self.state = directory.state()
        self.stage_seconds: dict[str, float] = {}
        self.unsure: tuple[str, ...] = ()
        self.attempt: str | None = None
        self.end: StageEnd | None = None  # of the stage that was last carried out
        self.fetched = Fetched()

    def mark(self, status: Status, failure: str | None = None) -> None:
        """Write the run's status down."""
        self._save(msgspec.structs.replace(self.state, status=status, failure=failure))

    def carry_out(self) -> Outcome:
        before = self.state.spools_on
        going_on = self.state.detached and any(stage.status == "running" for stage in self.state.stages)
        hosts = tuple(host.name for host in self.plan.hosts)
        self._save(msgspec.structs.replace(self.state, detached=self.manner.detach or going_on, spools_on=hosts))
        self.mark("running")
        self.directory.remove("stop")
        began = time.monotonic()
        if self.manner.copy and not going_on:
            try:
                self._copy()
            except SyncError as error:
                return self._not_copied(str(error), error.host)
            except (TransportError, OSError) as error:
                return self._not_copied(f"the code could not be copied: {error}")
        sync_seconds = time.monotonic() - began
        outcome = self._stages()
        unfinished = outcome.status == "done" and any(stage.status != "done" for stage in self.state.stages)
        self.mark("planned" if unfinished else outcome.status, outcome.failure)
        self._clear(before, everything=outcome.status == "done" and not unfinished)
        return replace(
            outcome,
            unsure=self.unsure,
            attempt=self.attempt,
            sync_seconds=sync_seconds,
            stage_seconds=self.stage_seconds,
        )

    def _copy(self) -> None:
        copies = sync(
            self.plan,
            self.transports,
            self.show,
            lifeline=self.limits.lifeline,
            directory=self.directory.path,
        )
        for got in copies:
            if got.how == "shares":
                self.show(Noted(got.sentence))
            for warning in got.warnings:
                self.show(Noted(warning, warning=True))

    def _clear(self, before: tuple[str, ...], *, everything: bool) -> None:
        """Take away what the hosts need not keep any more, once it is written down how the run stands."""
        left = self.fetched.take_away(self.plan, self.limits, self.transports, before, everything=everything)
        self._save(msgspec.structs.replace(self.state, spools_on=left))

    def _not_copied(self, failure: str, host: str | None = None) -> Outcome:
        self.mark("failed", failure)
        return Outcome("failed", host=host, failure=failure)

    def _stages(self) -> Outcome:
        redo = False
        for index in range(len(self.plan.stages)):
            stage = self.plan.stages[index]  # another attempt at the stage before may have changed the plan
            known = self.state.stage(stage.name)
            if known.status == "running" and self.state.detached:
                outcome = self._take_over(stage, known)
            elif self.manner.chosen and stage.name not in self.manner.chosen:
                if redo and known.status == "done":  # it went on from what a stage before it has just made anew
                    self._save_stage(msgspec.structs.replace(known, status="planned"))
                continue
            elif known.status == "done" and not redo and not self.manner.chosen:
                missing = problem_of_outputs(self.plan, stage, self.transports)
                if not missing:
                    self.show(StageSkipped(stage.name, stage.index, len(self.plan.stages)))
                    continue
                self.show(Noted(f"stage {stage.name} was done, but {missing}: it is run again", warning=True))
                outcome = self._stage(stage, known)
            else:
                outcome = self._stage(stage, known)
            outcome = self._again(stage, outcome)
            redo = True
            if outcome is not None:
                return outcome
        return Outcome("done")

    def _again(self, stage: StagePlan, outcome: Outcome | None) -> Outcome | None:
        """Try a stage that failed again, as often as is allowed, where its verdict says that this may help."""
        for number in range(1, self.limits.retries + 1):
            if outcome is None or outcome.status != "failed" or self.end is None:
                return outcome
            again = retry.worth_it(self.end, outcome.report)
            if again is None:
                self.show(Noted("not tried again: nothing says that another attempt would go better"))
                return outcome
            asked = (self.directory.path / "stop").exists
            plan = retry.prepare(again, number, self.plan, self.transports, self.show, asked)
            if plan is None:
                return Outcome("interrupted", stage.name)
            if isinstance(plan, str):
                self.show(Noted(f"not tried again: {plan}", warning=True))
                return outcome
            if plan is not self.plan:
                self.plan = plan
                retry.write_plan(self.directory, plan)
            outcome = self._stage(self.plan.stages[stage.index - 1], self.state.stage(stage.name))
        return outcome

    def _stage(self, stage: StagePlan, known: StageState) -> Outcome | None:
        """Run one stage; None when it ended well."""
        wanted = secrets_wanted(self.plan, stage)
        if wanted:
            return Outcome("failed", stage.name, failure=secrets_gone(stage.name, wanted, self.plan.run))
        self.show(StageStarted(stage.name, stage.index, len(self.plan.stages)))
        attempt = known.attempts + 1
        # Aside first: a head that is killed here must not leave old logs to be taken for the new attempt's.
        self.directory.set_aside(stage.folder, known.attempts)
        known = msgspec.structs.replace(known, status="running", attempts=attempt, failure=None)
        self._save_stage(known)
        return self._follow(stage, known, Attempt(attempt, self.manner.detach, keep=self._keeper(stage)))

    def _take_over(self, stage: StagePlan, known: StageState) -> Outcome | None:
        """Go on with a stage whose guardians have outlived their head."""
        self.show(StageStarted(stage.name, stage.index, len(self.plan.stages)))
        self.show(Noted("taking over: its guardians have gone on by themselves"))
        taken = restore(self.directory, stage.folder, time.time())
        return self._follow(stage, known, Attempt(known.attempts, True, taken, self._keeper(stage)))

    def _keeper(self, stage: StagePlan) -> Callable[[Taken], None] | None:
        """What writes down how far a detached stage was taken over."""
        if not self.state.detached:
            return None
        return lambda taken: save(self.directory, stage.folder, taken)

    def _follow(self, stage: StagePlan, known: StageState, attempt: Attempt) -> Outcome | None:
        folder = self.directory.logs(stage.folder)
        with StageLogs(folder) as logs:
            watch = Watch(
                self.plan,
                stage,
                self.transports,
                self.directory.path,
                attempt=attempt.number,
                show=self.show,
                log=logs.write,
                watching=self.limits.watching,
            )
            running = StageRun(
                self.plan,
                stage,
                self.transports,
                logs,
                show=self.show,
                limits=self.limits,
                attempt=attempt,
                stop_asked=(self.directory.path / "stop").exists,
                watch=watch,
            )
            end = self.end = running.run()
        self.fetched.add(f"{stage.folder}.{attempt.number}", end, logs.failed is None)
        end_what_is_left(self.plan, self.limits, self.transports, end, self.show)
        if attempt.detach:
            self.unsure = tuple(name for name, host in end.hosts.items() if host.lost and not host.gone)
            self.attempt = f"{stage.folder}.{attempt.number}"
        self.stage_seconds[stage.name] = end.seconds
        ended = msgspec.structs.replace(known, seconds=end.seconds, exit_codes=end.exit_codes())
        if end.interrupted:
            self._save_stage(msgspec.structs.replace(ended, status="interrupted"))
            unsure = [name for name, host in end.hosts.items() if host.lost is not None]
            doubt = f"not confirmed by {', '.join(unsure)}" if unsure else None
            return Outcome("interrupted", stage.name, failure=doubt)
        failure = None if end.well else failure_of(stage, end)
        if failure is None:
            missing = problem_of_outputs(self.plan, stage, self.transports)
            failure = f"stage {stage.name} ended with exit code 0, but {missing}" if missing else None
        if failure is not None:
            self._save_stage(msgspec.structs.replace(ended, status="failed", failure=failure))
            return self._failed(stage, end, failure)
        self._save_stage(msgspec.structs.replace(ended, status="done"))
        self.directory.remove("verdict.json")  # of an attempt before this one
        fetch_outputs(self.plan, stage, self.transports, self.directory, self.show)
        self.show(StageDone(stage.name, end.seconds))
        return None

    def _failed(self, stage: StagePlan, end: StageEnd, failure: str) -> Outcome:
        """Diagnose the stage's log; the verdict's host and rank are better than who was heard first."""
        host, rank = end.first, None
        if host is not None and end.hosts[host].failed_ranks:
            rank = next(iter(end.hosts[host].failed_ranks))
        report = diagnosed(self.directory, stage, self.show)
        verdict = report.verdict if report else None
        if verdict is not None and verdict.cause not in ("none", "unknown") and verdict.host is not None:
            host, rank = verdict.host, verdict.rank
        return Outcome("failed", stage.name, host, rank, failure, report)

    def _save(self, state: RunState) -> None:
        self.state = state
        self.directory.save_state(state)
        write_page(self.directory, self.plan, state)

    def _save_stage(self, stage: StageState) -> None:
        self._save(self.state.with_stage(stage))
