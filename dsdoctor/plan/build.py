"""`plan()`: a job and a cluster with facts in, a LaunchPlan out. Pure: nothing is looked up, nothing started."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import msgspec

from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable
from dsdoctor.jobs.job import ResolvedJob, StageSettings
from dsdoctor.plan import engines, environment
from dsdoctor.plan.address import Link, free_port, link_of, master_address
from dsdoctor.plan.copies import Paths, folders, interpreter, sync_plan
from dsdoctor.plan.deepspeed_env import EnvFile
from dsdoctor.plan.exposed import exposed_secrets
from dsdoctor.plan.forecast import forecasts
from dsdoctor.plan.layers import Layers, Setting
from dsdoctor.plan.model import JOB_FILE_LAYERS, EnvVar, HostPlan, LaunchPlan, PlanError, StagePlan
from dsdoctor.plan.own import with_own_variables
from dsdoctor.plan.settle import environments
from dsdoctor.plan.trees import mended_config_at, tree_warnings, tree_words
from dsdoctor.plan.words import arguments, filled


@dataclass(frozen=True)
class Wishes:
    """What is asked beyond the job: a port and variables on the command line, and those of DeepSpeed's own file."""

    master_port: int | None = None
    settings: tuple[Setting, ...] = ()
    deepspeed_env: tuple[EnvFile, ...] = ()  # the files of that name on this machine


def plan(job: ResolvedJob, cluster: Cluster, run: str, paths: Paths, wishes: Wishes | None = None) -> LaunchPlan:
    """Plan a run of `job` on `cluster`.

    Raises:
        PlanError: a host could not be examined, the hosts do not reach the master by one address, the port is taken,
            or no rank would be started.
        FileError: a setting names a host that there is not, or the job a placeholder.
    """
    wishes = wishes or Wishes()
    cluster = engines.in_rank_order(job.job, _with_ranks(cluster))
    address = master_address(cluster)
    port = free_port(cluster, wishes.master_port)
    links: dict[str, Link | None] = {}
    warnings: list[str] = []
    for member in cluster:
        links[member.name], strays = (None, ()) if len(cluster) == 1 else link_of(member, cluster, address)
        warnings += strays
    layers, contradicted = environments(job, cluster, links, wishes.settings, wishes.deepspeed_env)
    warnings += [*contradicted, *exposed_secrets(job), *tree_warnings(job, paths.code)]
    bare = _host_plans(job, cluster, run=run, paths=paths)
    meeting = engines.Meeting(job.job, job.source, run, bare, address, port, engines.with_gpus(cluster))
    hosts = tuple(
        msgspec.structs.replace(
            host, env=with_own_variables(host, engines.settled(meeting, host, layers[host.name].laid(host.name)))
        )
        for host in bare
    )
    warnings += engines.remarks(meeting, {host.name: layers[host.name].laid(host.name) for host in bare})
    precision, reason = _precision(job, cluster)
    draft = Draft(job, hosts, layers, meeting, precision, paths)
    forecast: dict[str, Any] = {"precision": precision, "precision_because": reason} if precision else {}
    forecast |= forecasts(job, cluster)
    return LaunchPlan(
        job=job.name,
        run=run,
        profile=job.profile,
        master_addr=address,
        master_port=port,
        world_size=sum(host.slots for host in hosts),
        hosts=hosts,
        stages=tuple(_stage_plan(draft, stage) for stage in job.stages),
        sync=sync_plan(job, hosts, paths),
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
    meeting: engines.Meeting
    precision: str | None
    paths: Paths

    def words(self, stage: StageSettings, host: HostPlan) -> dict[str, str]:
        """What the placeholders of a stage's arguments stand for on a host."""
        outputs = posixpath.join(host.run_dir, "outputs")
        previous = next((each for each in self.job.stages if each.index == stage.index - 1), None)
        words = tree_words(self.job, host)
        if self.job.deepspeed:
            words["deepspeed"] = mended_config_at(self.job, host) or _inside(self.paths)
        return words | {
            "output_dir": posixpath.join(outputs, _folder(stage)),
            "previous_output_dir": posixpath.join(outputs, _folder(previous)) if previous else "",
            "run_dir": host.run_dir,
            "stage": stage.name,
            "stage_index": str(stage.index),
            "precision": self.precision or "",
            "world_size": str(self.meeting.world_size),
            "nnodes": str(len(self.hosts)),
            "node_rank": str(host.node_rank),
            "nproc_per_node": str(host.slots),
            "first_rank": str(host.first_rank),
            "master_addr": self.meeting.address,
            "master_port": str(self.meeting.port),
            "python": host.python,
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


def _host_plans(job: ResolvedJob, cluster: Cluster, *, run: str, paths: Paths) -> tuple[HostPlan, ...]:
    """Where everything lies on each host and which ranks it has, without its environment yet."""
    plans: list[HostPlan] = []
    first_rank = 0
    for node_rank, member in enumerate(cluster):
        entry, (code_dir, run_dir) = member.entry, folders(job, member.entry, _home(member), run, paths)
        plans.append(
            HostPlan(
                name=member.name,
                slots=entry.processes,
                node_rank=node_rank,
                first_rank=first_rank,
                python=_python(job, member, paths),
                code_dir=code_dir,
                run_dir=run_dir,
                local=entry.local,
                env={},
                user=entry.user,
                port=entry.port,
                local_ranks=engines.local_ranks(job.job, entry.processes, first_rank),
                devices=tuple(range(entry.slots)) if entry.devices is None else entry.devices,
                address=engines.address_of(member, cluster),
            )
        )
        first_rank += entry.processes
    return tuple(plans)


def _home(member: Member) -> str | None:
    facts = member.facts
    try:
        return facts.environment.variables.get("HOME") if facts else None
    except FactUnavailable:
        return None


def _python(job: ResolvedJob, member: Member, paths: Paths) -> str:
    """The interpreter the facts were learnt with: what was checked is what runs."""
    if member.facts is not None:
        try:
            return member.facts.python.executable
        except FactUnavailable:
            pass
    return interpreter(job, member.entry, paths)


def _precision(job: ResolvedJob, cluster: Cluster) -> tuple[str | None, str]:
    if job.job.precision == "auto":
        return environment.precision_for(cluster)
    return job.job.precision, f"precision of {job.source}"


def _stage_plan(draft: Draft, stage: StageSettings) -> StagePlan:
    own = [Setting(name, value, "stage", f"env of stage {stage.name}") for name, value in stage.env.items()]
    commands = []
    for host in draft.hosts:
        full = host.env
        if own:
            full = engines.settled(draft.meeting, host, draft.layers[host.name].laid(host.name, own))
        full = _with_words(full, draft.words(stage, host))
        command = engines.command_of(_part(draft, stage, host, full))
        differing = {name: variable for name, variable in full.items() if variable != host.env.get(name)}
        commands.append(msgspec.structs.replace(command, env=differing))
    return StagePlan(stage.name, stage.index, _folder(stage), stage.outputs, tuple(commands))


def _with_words(env: Mapping[str, EnvVar], words: Mapping[str, str]) -> dict[str, EnvVar]:
    """The job file's variables with the placeholders put in; whatever else has a $ stays as it is."""
    result = dict(env)
    for name, variable in env.items():
        if variable.layer in JOB_FILE_LAYERS and "${" in variable.value:
            value = re.sub(r"\$\{(\w+)\}", lambda match: words.get(match[1], match[0]), variable.value)
            result[name] = msgspec.structs.replace(variable, value=value)
    return result


def _part(draft: Draft, stage: StageSettings, host: HostPlan, env: Mapping[str, EnvVar]) -> engines.Part:
    """What the engine is told of a stage on a host. A program is given its DeepSpeed config where it says so itself."""
    job, words = draft.job, draft.words(stage, host)
    where = f"{job.source}, stage {stage.name}"
    deepspeed = ["--deepspeed", words["deepspeed"]] if job.deepspeed and job.job.engine != "program" else []
    return engines.Part(
        meeting=draft.meeting,
        host=host,
        folder=_folder(stage),
        arguments=(*arguments(stage.args, words, where), *deepspeed),
        command=tuple(filled(job.job.command, words, f"{where}, command")),
        env=env,
    )


def _inside(paths: Paths) -> str:
    """The DeepSpeed config's path relative to the code folder: the one path that is right on every host."""
    path = PurePosixPath(paths.deepspeed or "")
    if not path.is_relative_to(paths.code):
        raise PlanError(f"{path} lies outside {paths.code}, which is what the hosts get. Move it below that folder.")
    return str(path.relative_to(paths.code))
