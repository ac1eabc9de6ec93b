"""From a job and examined hosts to a run: choose or make the run's directory, plan, check, write down, carry out."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import Outcome as Checked
from dsdoctor.checks.engine import run_checks
from dsdoctor.cluster import Cluster
from dsdoctor.hosts.transport import Transport
from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.plan.build import Paths, Wishes, plan
from dsdoctor.plan.model import LaunchPlan, PlanError
from dsdoctor.plan.overlay import with_planned_environment
from dsdoctor.run.directory import (
    RunDirectory,
    RunState,
    StageState,
    fingerprint,
    new_run,
    run_name,
    unfinished,
)
from dsdoctor.run.events import Show
from dsdoctor.run.execute import Outcome, execute
from dsdoctor.run.stage_end import Limits


@dataclass(frozen=True)
class Prepared:
    """A launch that could start: the plan, what the checks said about the hosts as planned, and the directory."""

    plan: LaunchPlan | None
    checked: Checked
    problem: str | None = None  # why there is no plan


@dataclass(frozen=True)
class Target:
    """The run a launch will carry out: a new one, or an unfinished one that it goes on with."""

    name: str
    path: Path
    resumed: RunDirectory | None
    note: str = ""


def choose_target(base: Path, job: ResolvedJob, fresh: bool) -> Target:
    """Go on with the newest run of this job if it is unfinished and the same work; else a new run."""
    name = run_name(base, job.name)
    before = None if fresh else unfinished(base, job.name)
    if before is None:
        return Target(name, base / name, None)
    state = before.state()
    if state.fingerprint != job_fingerprint(job):
        note = f"run {before.name} is unfinished, but the job's settings are others now: this is a new run"
        return Target(name, base / name, None, note)
    done = [stage.name for stage in state.stages if stage.status == "done"]
    note = f"going on with run {before.name}: {', '.join(done) or 'no stage'} done (--fresh starts anew)"
    return Target(before.name, before.path, before, note)


def job_fingerprint(job: ResolvedJob) -> str:
    """A digest of what the job computes; hosts, addresses and folders do not count."""
    settings = {
        "stages": [[stage.name, stage.args, stage.env] for stage in job.stages],  # their order is part of the work
        "env": job.env,
        "gpu_env": job.job.gpu_env,
        "precision": job.job.precision,
        "deepspeed": job.deepspeed.value if job.deepspeed else None,
    }
    program = f"{job.job.engine} {job.job.module or job.job.script}"
    return fingerprint(job.name, job.profile, settings, program)


def code_folder(job: ResolvedJob) -> str:
    """The folder that is copied to the hosts (and run in place on this machine)."""
    return str((Path(job.root) / job.job.sync.code).resolve())


def prepare(
    job: ResolvedJob,
    cluster: Cluster,
    target: Target,
    wishes: Wishes,
    *,
    ignore: tuple[str, ...] = (),
    check: bool = True,
) -> Prepared:
    """Plan the run, and judge the hosts with the environment that the plan gives them.

    Where no plan can be made, the checks are run on the hosts as they are: they usually say why.
    """
    run_dir, code = target.path.absolute(), Path(code_folder(job))
    inside = run_dir.parent.is_relative_to(code) and run_dir.parent != code
    paths = Paths(
        str(run_dir),
        str(code),
        sys.executable,
        exclude=(f"/{run_dir.parent.relative_to(code)}/",) if inside else (),
        deepspeed=str(Path(job.deepspeed.path).resolve()) if job.deepspeed else None,
    )
    made, problem = None, None
    try:
        made = plan(job, cluster, target.name, paths, wishes)
    except PlanError as error:
        problem = str(error)
    if not check and made is not None:
        return Prepared(made, Checked())
    seen = cluster if made is None else with_planned_environment(cluster, made)
    context = JobContext(job=job, cluster=seen, planned=made is not None)
    return Prepared(made, run_checks(seen, context, ignore=ignore), problem)


def launch(
    job: ResolvedJob,
    cluster: Cluster,
    target: Target,
    prepared: Prepared,
    transports: dict[str, Transport],
    show: Show,
    limits: Limits | None = None,
) -> tuple[RunDirectory, Outcome]:
    """Write the run down and carry it out. The directory is made here and not before: a refused launch leaves nothing.

    Raises:
        FileError: the directory cannot be made or written, or another process is carrying this run out.
    """
    made = prepared.plan
    if made is None:
        raise PlanError(prepared.problem or "there is no plan")
    directory = target.resumed or new_run(target.path)
    with ExitStack() as stack:
        stack.enter_context(directory.locked())
        state = directory.state() if target.resumed else _new_state(job, made, directory)
        directory.save_state(msgspec.structs.replace(state, hosts=tuple(host.name for host in made.hosts)))
        directory.write_json("plan.json", made.to_dict())
        directory.write_json("findings.json", msgspec.to_builtins(prepared.checked.findings))
        for member in cluster.examined:
            assert member.facts is not None
            directory.write_json(f"facts/{_file_name(member.name)}.json", msgspec.to_builtins(member.facts.snapshot))
        outcome = execute(made, transports, directory, show, limits=limits)
    return directory, outcome


def _new_state(job: ResolvedJob, made: LaunchPlan, directory: RunDirectory) -> RunState:
    import time

    stages = tuple(StageState(stage.name, stage.folder) for stage in made.stages)
    created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return RunState(directory.name, job.name, job_fingerprint(job), "planned", stages, created=created)


def _file_name(host: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in host)
