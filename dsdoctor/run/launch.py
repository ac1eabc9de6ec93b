"""From a job and examined hosts to a run: choose or make the run's directory, plan, check, write down, carry out."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import Outcome as Checked
from dsdoctor.checks.engine import run_checks
from dsdoctor.cluster import Cluster
from dsdoctor.jobs.engines import program_of
from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.plan.build import Wishes, plan
from dsdoctor.plan.model import LaunchPlan, PlanError
from dsdoctor.plan.overlay import with_planned_environment
from dsdoctor.report.model import Report
from dsdoctor.run import work
from dsdoctor.run.directory import (
    RunDirectory,
    RunState,
    StageState,
    fingerprint,
    new_run,
    newest,
    run_name,
    unfinished,
)
from dsdoctor.run.kept import Way, save
from dsdoctor.run.mended import with_mended_config, write_mended_config
from dsdoctor.run.places import code_folder, paths_of
from dsdoctor.run.stage_end import Limits
from dsdoctor.yamlfile import FileError


@dataclass(frozen=True)
class Prepared:
    """A launch that could start: the plan, what the checks said about the hosts as planned, and the directory."""

    plan: LaunchPlan | None
    checked: Checked
    problem: str | None = None  # why there is no plan


@dataclass(frozen=True)
class Target:
    """The run a launch will carry out: a new one, or an earlier one that it goes on with.

    `changes` are what is different now from what that run began with; `unproven` are stages before the `chosen` ones
    that are not done. Whoever launches must agree to either.
    """

    name: str
    path: Path
    resumed: RunDirectory | None
    note: str = ""
    changes: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()


def choose_target(
    base: Path, job: ResolvedJob, fresh: bool, only: Sequence[str] = (), start_from: str | None = None
) -> Target:
    """Go on with the newest run of this job if it is unfinished, or if stages of it are asked for; else a new run.

    Raises:
        FileError: the job has no stage of that name.
    """
    name = run_name(base, job.name)
    chosen = _chosen(job, only, start_from)
    names = [stage.name for stage in job.stages]
    earlier = tuple(names[: names.index(chosen[0])]) if chosen else ()
    before = None if fresh else (newest(base, job.name) if chosen else unfinished(base, job.name))
    if before is None:
        return Target(name, base / name, None, chosen=chosen, unproven=earlier)
    state = before.state()
    if [stage.name for stage in state.stages] != names:
        note = f"run {before.name} has other stages than the job has now: this is a new run"
        return Target(name, base / name, None, note, chosen=chosen, unproven=earlier)
    done = [stage.name for stage in state.stages if stage.status == "done"]
    note = f"going on with run {before.name}: {', '.join(done) or 'no stage'} done (--fresh starts anew)"
    unproven = tuple(stage for stage in earlier if stage not in done)
    return Target(before.name, before.path, before, note, changes_since(before, job), chosen, unproven)


def _chosen(job: ResolvedJob, only: Sequence[str], start_from: str | None) -> tuple[str, ...]:
    names = [stage.name for stage in job.stages]
    for name in (*only, *([start_from] if start_from else [])):
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            near = f"did you mean {close[0]}?" if close else f"there are: {', '.join(names)}"
            raise FileError(job.source, f"the job has no stage {name}; {near}")
    if start_from:
        return tuple(names[names.index(start_from) :])
    return tuple(name for name in names if name in only)


def changes_since(run: RunDirectory, job: ResolvedJob) -> tuple[str, ...]:
    """What of settings, code, data and model differs from what the run was last carried out with, one line each."""
    try:
        lines = work.changes(run.read_json(work.SETTINGS), _plain(work.settings_of(job)))
        lines += work.code_changes(run.read_json(work.CODE), _code(job))
    except FileError:  # of an older dsdoctor, which kept less
        same = run.state().fingerprint == job_fingerprint(job)
        lines = [] if same else ["the settings of the job (the run does not tell which)"]
    with suppress(FileError):  # of an older dsdoctor
        lines += work.tree_changes(run.read_json(work.TREES), work.trees_of(job))
    return tuple(lines)


def _code(job: ResolvedJob) -> dict[str, str]:
    return work.code_of(Path(code_folder(job)), job.job.sync.exclude)


def _plain(value: Any) -> Any:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value, default=str))


def job_fingerprint(job: ResolvedJob) -> str:
    """A digest of what the job computes; hosts, addresses and folders do not count."""
    settings = {
        "stages": [[stage.name, stage.args, stage.env] for stage in job.stages],  # their order is part of the work
        "env": job.env,
        "gpu_env": job.job.gpu_env,
        "precision": job.job.precision,
        "deepspeed": job.deepspeed.value if job.deepspeed else None,
        "trees": work.paths_of_trees(job),
    }
    return fingerprint(job.name, job.profile, settings, program_of(job.job))


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

    A DeepSpeed config that would stop the run is replaced by its mended copy, where mending is certain (not without
    `check`).
    Where no plan can be made, the checks are run on the hosts as they are: they usually say why.
    """
    mended = None
    if check:
        job, mended = with_mended_config(job, cluster, target.path.absolute(), ignore)
    paths = paths_of(job, target.path)
    made, problem = None, None
    try:
        made = msgspec.structs.replace(plan(job, cluster, target.name, paths, wishes), mended_config=mended)
    except PlanError as error:
        problem = str(error)
    if not check and made is not None:
        return Prepared(made, Checked())
    seen = cluster if made is None else with_planned_environment(cluster, made)
    context = JobContext(job=job, cluster=seen, planned=made is not None)
    return Prepared(made, run_checks(seen, context, ignore=ignore), problem)


def write_down(
    directory: RunDirectory,
    job: ResolvedJob,
    cluster: Cluster,
    target: Target,
    prepared: Prepared,
    way: Way,
    limits: Limits,
    report: Report | None = None,
) -> None:
    """Put into the run's directory what the run is: state, plan, findings, facts, and how to come back to its hosts.

    Raises:
        FileError: the directory cannot be written.
    """
    made = prepared.plan
    assert made is not None
    state = directory.state() if target.resumed else _new_state(job, made, directory)
    hosts = tuple(host.name for host in made.hosts)
    directory.save_state(msgspec.structs.replace(state, hosts=hosts, fingerprint=job_fingerprint(job)))
    if made.mended_config is not None:
        write_mended_config(made.mended_config)
    directory.write_json("plan.json", made.to_dict())
    directory.write_json(work.SETTINGS, _plain(work.settings_of(job)))
    directory.write_json(work.CODE, _code(job))
    directory.write_json(work.TREES, work.trees_of(job))
    directory.write_json("findings.json", msgspec.to_builtins(prepared.checked.findings))
    if report is not None:
        directory.write_json("report.json", report.to_dict())
    for member in cluster.examined:
        assert member.facts is not None
        directory.write_json(f"facts/{_file_name(member.name)}.json", msgspec.to_builtins(member.facts.snapshot))
    save(directory, made, way, limits)


def directory_of(target: Target) -> RunDirectory:
    """The directory of the run, made now and not before: a refused launch leaves nothing. Raises FileError."""
    return target.resumed or new_run(target.path)


def _new_state(job: ResolvedJob, made: LaunchPlan, directory: RunDirectory) -> RunState:
    import time

    stages = tuple(StageState(stage.name, stage.folder) for stage in made.stages)
    created = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return RunState(directory.name, job.name, job_fingerprint(job), "planned", stages, created=created)


def _file_name(host: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in host)
