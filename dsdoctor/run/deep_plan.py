"""What the deep trial starts on which host: the environment, interpreter and addresses that `launch` would take.

They come out of `plan()` itself, for the job that was given or for one of no settings, so that what is tried is what
would run. Where no plan can be made for all hosts together, each host is still tried by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import msgspec

from dsdoctor.checks.attention import asked_for
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.quantisation import quantises
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable
from dsdoctor.jobs.job import Job, ResolvedJob, Stage, StageSettings
from dsdoctor.plan.build import plan
from dsdoctor.plan.copies import Paths
from dsdoctor.plan.environment import job_wide
from dsdoctor.plan.model import HostPlan, LaunchPlan, PlanError, names_unset, values_sent

# Packages with compiled parts, as pip names them, and the modules to import.
NATIVE = {"deepspeed": "deepspeed", "flash-attn": "flash_attn", "bitsandbytes": "bitsandbytes", "xformers": "xformers"}


@dataclass(frozen=True)
class HostTrial:
    """What is tried on one host. `gpus` are the numbers of the job's GPUs there, as nvidia-smi has them."""

    plan: HostPlan
    env: Mapping[str, str | None]  # None: taken out of the session's
    gpus: tuple[int, ...]
    packages: Mapping[str, str | None]  # with compiled parts -> what of the job wants it


@dataclass(frozen=True)
class DeepPlan:
    """The trial of all hosts. `hosts` holds those on which ranks would run; `refused` why others cannot be tried.

    `joint` is the plan for all ranks together; None with the reason in `alone`.
    """

    hosts: Mapping[str, HostTrial]
    refused: Mapping[str, str]
    joint: LaunchPlan | None
    alone: str = ""
    gpus_everywhere: bool = False


def deep_plan(cluster: Cluster, job: ResolvedJob | None, connected: Collection[str]) -> DeepPlan:
    """Plan the trial of the hosts that were examined and are `connected`."""
    ranked = tuple(member for member in cluster if member.entry.processes > 0)
    there = tuple(_at_home(member) for member in ranked if member.facts is not None and member.name in connected)
    made = _bare(job)
    joint, alone = _joint(made, cluster, ranked, there)
    hosts: dict[str, HostTrial] = {}
    refused: dict[str, str] = {}
    for member in there:
        try:
            own = joint or _plan(made, Cluster((member,)))
        except PlanError as error:
            refused[member.name] = str(error)
            continue
        host = own.host(member.name)
        own_env = own.stages[0].command(member.name).env
        gone: dict[str, str | None] = dict.fromkeys(names_unset(host.env, own_env))
        env = gone | values_sent(host.env, own_env)
        hosts[member.name] = HostTrial(host, env, _gpus(member), _packages(member, job))
    return DeepPlan(hosts, refused, joint, alone, bool(there) and job_wide(Cluster(there)).gpus)


def _joint(
    job: ResolvedJob, cluster: Cluster, ranked: tuple[Member, ...], there: tuple[Member, ...]
) -> tuple[LaunchPlan | None, str]:
    """The plan for the hosts together, or why there is none; no reason where the job has one host alone."""
    if len(ranked) < 2:
        return None, ""
    if len(there) < 2:
        return None, "only one of the hosts could be examined"
    master_addr = cluster.master_addr if there[0].name == cluster.master.name else None
    try:
        return _plan(job, Cluster(there, master_addr)), ""
    except PlanError as error:
        return None, str(error)


def _plan(job: ResolvedJob, cluster: Cluster) -> LaunchPlan:
    return plan(job, cluster, "deep", Paths(run_dir="/", code="/", python=sys.executable))


def _bare(job: ResolvedJob | None) -> ResolvedJob:
    """The job with one stage and without what its program would be told: only its environment matters."""
    env = job.stages[0].env if job is not None else {}
    stages = (StageSettings(name="deep", index=1, env=env),)
    if job is None:
        bare = Job(name="deep", stages=(Stage(name="deep"),), script="deep")
        return ResolvedJob(job=bare, source="--deep", root="/", profile=None, stages=stages, env={})
    plain = msgspec.structs.replace(
        job.job,
        **{"workdir": "/", "precision": None, "engine": "torchrun", "rendezvous": None},
        **{"command": (), "launcher_args": (), "module": None, "script": "deep"},
    )
    return replace(job, job=plain, stages=stages, deepspeed=None)


def _at_home(member: Member) -> Member:
    """The host with a work folder that needs not be looked up: nothing is put into it."""
    return replace(member, entry=replace(member.entry, workdir="/"))


def _gpus(member: Member) -> tuple[int, ...]:
    """The numbers of the GPUs that the host's ranks would take; none where there are none, or nothing is known."""
    try:
        count = len(member.facts.gpu.gpus) if member.facts is not None else 0
    except FactUnavailable:
        count = 0
    devices = member.entry.devices if member.entry.devices is not None else range(member.entry.slots)
    return tuple(device for device in devices if device < count)


def _packages(member: Member, job: ResolvedJob | None) -> dict[str, str | None]:
    """The installed packages with compiled parts that the job asks for; without a job, all that are installed."""
    try:
        packages = member.facts.packages if member.facts is not None else None
    except FactUnavailable:
        packages = None
    there = [name for name in NATIVE if packages is not None and packages.version(name) is not None]
    if job is None:
        return dict.fromkeys(there)
    context = JobContext(job)
    wanted = {
        "deepspeed": f"deepspeed: {job.deepspeed.path}" if job.deepspeed else None,
        "flash-attn": next((found.text for found in asked_for(context)), None),
        "bitsandbytes": next((found.text for found in quantises(context)), None),
    }
    return {name: wanted[name] for name in there if wanted.get(name)}
