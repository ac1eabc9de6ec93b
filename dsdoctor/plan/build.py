"""`plan()`: a job and a cluster with facts in, a LaunchPlan out. Pure: nothing is looked up, nothing started."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from string import Template
from typing import Any

from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable
from dsdoctor.jobs.job import ResolvedJob, StageSettings
from dsdoctor.jobs.paths import work_folder
from dsdoctor.plan import environment
from dsdoctor.plan.address import Link, free_port, link_of, master_address
from dsdoctor.plan.layers import Layers, Setting
from dsdoctor.plan.model import Command, EnvVar, HostPlan, LaunchPlan, PlanError, StagePlan, SyncPlan
from dsdoctor.yamlfile import FileError

# torchrun's own default is 900 s of silence when another host never comes (cluster trials: 910 s); all hosts are
# started within a second of each other here.
RENDEZVOUS_SECONDS = 120
NEVER_COPIED = (
    "/.dsdoctor-sync",
    "/.dsdoctor-tokens/",
    ".git/",
    "__pycache__/",
    "*.pyc",
    ".venv/",
    ".mypy_cache/",
    ".ruff_cache/",
    ".pytest_cache/",
)
RANK_PREFIX = "@rank${rank}@ "  # torchrun fills it in; the guardian takes it off


@dataclass(frozen=True)
class Paths:
    """Where things lie on this machine: the run's directory and the job's code."""

    run_dir: str
    code: str
    python: str  # this machine's own interpreter, for local hosts that name none
    exclude: tuple[str, ...] = ()  # what of the code is not copied, beyond what the job says
    deepspeed: str | None = None  # where the job's DeepSpeed config really is, links followed


@dataclass(frozen=True)
class Wishes:
    """What the command line asks beyond the job: a port, and variables."""

    master_port: int | None = None
    settings: tuple[Setting, ...] = ()


def plan(job: ResolvedJob, cluster: Cluster, run: str, paths: Paths, wishes: Wishes | None = None) -> LaunchPlan:
    """Plan a run of `job` on `cluster`.

    Raises:
        PlanError: a host could not be examined, the hosts do not reach the master by one address, the port is taken,
            or no rank would be started.
        FileError: a setting names a host that there is not, or the job a placeholder.
    """
    wishes = wishes or Wishes()
    cluster = _with_ranks(cluster)
    address = master_address(cluster)
    port = free_port(cluster, wishes.master_port)
    links: dict[str, Link | None] = {}
    warnings: list[str] = []
    for member in cluster:
        links[member.name], strays = (None, ()) if len(cluster) == 1 else link_of(member, cluster, address)
        warnings += strays
    layers = _layers(job, cluster, links, wishes.settings)
    hosts = _host_plans(job, cluster, layers, run=run, paths=paths)
    precision, reason = _precision(job, cluster)
    draft = Draft(job, hosts, layers, address, port, precision, paths)
    forecast: dict[str, Any] = {"precision": precision, "precision_because": reason} if precision else {}
    return LaunchPlan(
        job=job.name,
        run=run,
        profile=job.profile,
        master_addr=address,
        master_port=port,
        world_size=sum(host.slots for host in hosts),
        hosts=hosts,
        stages=tuple(_stage_plan(draft, stage) for stage in job.stages),
        sync=SyncPlan(paths.code, (*NEVER_COPIED, *paths.exclude, *job.job.sync.exclude)),
        setup=job.job.setup,
        summary=job.job.summary,
        settings={stage.name: stage.args for stage in job.stages},
        warnings=tuple(warnings),
        forecast=forecast,
    )


@dataclass(frozen=True)
class Draft:
    """What is settled before the stages are written out: hosts, where the ranks meet, and in which precision."""

    job: ResolvedJob
    hosts: tuple[HostPlan, ...]
    layers: Mapping[str, Layers]
    address: str
    port: int
    precision: str | None
    paths: Paths

    def words(self, stage: StageSettings, host: HostPlan) -> dict[str, str]:
        """What the placeholders of a stage's arguments stand for on a host."""
        outputs = posixpath.join(host.run_dir, "outputs")
        previous = next((each for each in self.job.stages if each.index == stage.index - 1), None)
        return {
            "output_dir": posixpath.join(outputs, _folder(stage)),
            "previous_output_dir": posixpath.join(outputs, _folder(previous)) if previous else "",
            "run_dir": host.run_dir,
            "stage": stage.name,
            "stage_index": str(stage.index),
            "precision": self.precision or "",
            "world_size": str(sum(each.slots for each in self.hosts)),
        }


def _folder(stage: StageSettings) -> str:
    return f"{stage.index}-{stage.name}"


def _with_ranks(cluster: Cluster) -> Cluster:
    """The cluster without hosts that run no rank (`slots=0`)."""
    members = tuple(member for member in cluster if member.entry.processes > 0)
    if not members:
        raise PlanError("no host has a slot, so no rank would be started. Give slots=1 or more in the hostfile.")
    if len(members) > 1 and any(member.entry.local for member in members):
        local = next(member.name for member in members if member.entry.local)
        raise PlanError(
            f"{local} means this machine, but other hosts cannot reach it by that name. Write the name or address "
            "by which they do into the hostfile."
        )
    return Cluster(members, cluster.master_addr)


def _layers(
    job: ResolvedJob,
    cluster: Cluster,
    links: Mapping[str, Link | None],
    settings: Sequence[Setting],
) -> dict[str, Layers]:
    """What every host's environment is made of."""
    wide = environment.job_wide(cluster)
    known = {member.name for member in cluster}
    for setting in settings:
        if setting.host is not None and setting.host not in known:
            there = ", ".join(sorted(known))
            raise FileError(setting.because, f"no host of this run is called {setting.host}; there are: {there}")
    prefix = EnvVar("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE", RANK_PREFIX, "every line carries its global rank")
    return {
        member.name: Layers(
            (*environment.derive(member, cluster, job, links[member.name], wide), prefix),
            (*environment.job_settings(job, member), *environment.host_settings(member), *settings),
        )
        for member in cluster
    }


def _host_plans(
    job: ResolvedJob, cluster: Cluster, layers: Mapping[str, Layers], *, run: str, paths: Paths
) -> tuple[HostPlan, ...]:
    plans: list[HostPlan] = []
    first_rank = 0
    for node_rank, member in enumerate(cluster):
        code_dir, run_dir = _folders(job, member, run, paths)
        plans.append(
            HostPlan(
                name=member.name,
                slots=member.entry.processes,
                node_rank=node_rank,
                first_rank=first_rank,
                python=_python(job, member, paths),
                code_dir=code_dir,
                run_dir=run_dir,
                local=member.entry.local,
                env=layers[member.name].laid(member.name),
                user=member.entry.user,
                port=member.entry.port,
            )
        )
        first_rank += member.entry.processes
    return tuple(plans)


def _folders(job: ResolvedJob, member: Member, run: str, paths: Paths) -> tuple[str, str]:
    """Where the code lies and where the run writes on a host. This machine runs the code where it is."""
    if member.entry.local:
        return paths.code, paths.run_dir
    work = work_folder(job, member.entry.workdir)
    if work == "~" or work.startswith("~/"):
        work = _home(member) + work[1:]
    if not work.startswith("/"):
        raise PlanError(f"the work folder {work} of {member.name} must be absolute or begin with ~/")
    return posixpath.join(work, "code"), posixpath.join(work, "runs", run)


def _home(member: Member) -> str:
    facts = member.facts
    try:
        home = facts.environment.variables.get("HOME") if facts else None
    except FactUnavailable:
        home = None
    if not home:
        raise PlanError(f"the home folder on {member.name} is not known. Give workdir=/a/folder in the hostfile.")
    return home


def _python(job: ResolvedJob, member: Member, paths: Paths) -> str:
    """The interpreter the facts were learnt with: what was checked is what runs."""
    if member.facts is not None:
        try:
            return member.facts.python.executable
        except FactUnavailable:
            pass
    return member.entry.python or job.job.python or (paths.python if member.entry.local else "python3")


def _precision(job: ResolvedJob, cluster: Cluster) -> tuple[str | None, str]:
    if job.job.precision == "auto":
        return environment.precision_for(cluster)
    return job.job.precision, f"precision of {job.source}"


def _stage_plan(draft: Draft, stage: StageSettings) -> StagePlan:
    own = [Setting(name, value, "stage", f"env of stage {stage.name}") for name, value in stage.env.items()]
    commands = []
    for host in draft.hosts:
        full = draft.layers[host.name].laid(host.name, own) if own else host.env
        differing = {name: variable for name, variable in full.items() if variable != host.env.get(name)}
        commands.append(Command(host.name, _torchrun(draft, stage, host), host.code_dir, differing))
    return StagePlan(stage.name, stage.index, _folder(stage), stage.outputs, tuple(commands))


def _torchrun(draft: Draft, stage: StageSettings, host: HostPlan) -> tuple[str, ...]:
    """The command line of one host. Static rendezvous: ranks follow the hostfile's order, whatever comes up first."""
    job = draft.job
    launcher = [
        *(host.python, "-m", "torch.distributed.run"),
        *("--nnodes", str(len(draft.hosts)), "--node_rank", str(host.node_rank), "--nproc_per_node", str(host.slots)),
        *("--master_addr", draft.address, "--master_port", str(draft.port)),
        *("--rdzv_conf", f"timeout={RENDEZVOUS_SECONDS}"),
        *("--log_dir", posixpath.join(host.run_dir, "torchrun", _folder(stage)), "--tee", "3"),
    ]
    program = ["-m", job.job.module] if job.job.module else [job.job.script or ""]
    words = draft.words(stage, host)
    deepspeed = ["--deepspeed", _inside(draft.paths)] if job.deepspeed else []
    return (*launcher, *program, *arguments(stage.args, words, f"{job.source}, stage {stage.name}"), *deepspeed)


def _inside(paths: Paths) -> str:
    """The DeepSpeed config's path relative to the code folder: the one path that is right on every host."""
    path = PurePosixPath(paths.deepspeed or "")
    if not path.is_relative_to(paths.code):
        raise PlanError(f"{path} lies outside {paths.code}, which is what the hosts get. Move it below that folder.")
    return str(path.relative_to(paths.code))


def arguments(args: Mapping[str, Any], words: Mapping[str, str], where: str) -> list[str]:
    """Settings as command-line words: `--key value`, null left out, true and false as words, a list as several values.

    Raises:
        FileError: a `${placeholder}` that there is not.
    """
    result: list[str] = []
    for key, value in args.items():
        if value is None:
            continue
        result.append(f"--{key}")
        for item in value if isinstance(value, list) else [value]:
            result.append(_word(item, words, f"{where}, {key}"))
    return result


def _word(value: Any, words: Mapping[str, str], where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return str(value)
    try:
        return Template(value).substitute(words)
    except KeyError as error:
        known = ", ".join(f"${{{word}}}" for word in words)
        raise FileError(where, f"there is no ${{{error.args[0]}}}; there are: {known}") from None
    except ValueError:
        raise FileError(where, f"{value!r} holds a $ that names nothing; write $$ for a plain one") from None
