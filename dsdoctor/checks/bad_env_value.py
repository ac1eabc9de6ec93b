"""A variable for NCCL, torch or gloo has a value that they do not understand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.env_values import Problem, judge_value
from dsdoctor.checks.nccl_use import nccl_version, uses_nccl
from dsdoctor.checks.rank_settings import ENVIRONMENT, everywhere
from dsdoctor.checks.remedy import where_set
from dsdoctor.cluster import Cluster, HostEntry, Member
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def bad_env_value(cluster: Cluster | None, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """A variable for NCCL, torch or gloo has a value that means nothing to them, or something else than it looks like.

    ## Why it matters
    NCCL reads most of its variables as numbers: `NCCL_P2P_DISABLE=true` counts as 0, nothing is disabled, and nobody
    says so. Words must be spelt as NCCL has them (`NCCL_P2P_LEVEL=sys` is ignored, `NCCL_DEBUG=debug` prints nothing at
    all). torch takes `true` as well, but stops with an exception at what it does not know.

    ## How to fix it
    Write the value as the finding has it, where it is set: 1 and 0 for switches, names in capitals for levels.

    ## Source
    NVIDIA/nccl, tags v2.3.5-5 to v2.30.7-1: src/misc/param.cc (strtoll), src/graph/paths.cc, src/graph/tuning.cc,
    src/misc/utils.cc, src/debug.cc; NCCL's user guide for ranges; Utils.hpp of torch 2.13. Interfaces and NCCL_DEBUG
    were tried with 2.18.1, 2.27.7 and 2.28.9.
    """
    job_names = set()
    if context is not None:
        layers = [context.job.env, *(stage.env for stage in context.stages), *context.job.job.gpu_env.values()]
        for name, value in dict.fromkeys((name, value) for layer in layers for name, value in layer.items()):
            job_names.add(name)
            problem = None if value is None else judge_value(name, value, None)
            if problem:
                fix = _fix(name, problem, f"in {context.job.source}")
                yield _finding(problem, context.cite(f"env: {name}={value}"), fix)
    for member in cluster.examined if cluster else ():
        try:
            yield from _on_host(member, job_names if context and context.planned else set())
        except FactUnavailable as missing:
            yield bad_env_value.skipped([member.name], str(missing))


def _on_host(member: Member, told: set[str]) -> Iterator[Finding]:
    host = member.facts
    if host is None:
        return
    nccl = nccl_version(host)
    without_gpus = _without_gpus(host)
    for name, reader, setting in everywhere(host):
        if (without_gpus and "NCCL" in name) or (name in told and setting.source == ENVIRONMENT):
            continue
        value = setting.value.strip("\"'") if reader == "deepspeed" else setting.value  # a shell takes the quotes off
        problem = judge_value(name, value, nccl)
        if problem:
            evidence = Evidence(text=f"{name}={setting.value}, from {setting.source}", source=member.name)
            yield _finding(problem, evidence, _fix_on_host(member.entry, name, problem, setting.source), member.name)


def _without_gpus(host: HostFacts) -> bool:
    """Whether it is known that NCCL is not used on the host."""
    with suppress(FactUnavailable):
        return not uses_nccl(host)
    return False


def _finding(problem: Problem, evidence: Evidence, fix: Fix, host: str | None = None) -> Finding:
    return bad_env_value.finding(
        problem.message, severity=problem.severity, hosts=[host] if host else [], evidence=[evidence], fix=[fix]
    )


def _fix_on_host(entry: HostEntry, name: str, problem: Problem, source: str) -> Fix:
    if source != ENVIRONMENT:
        return _fix(name, problem, f"in {source}")
    return _fix(name, problem, "where it is set", where_set(entry, name))


def _fix(name: str, problem: Problem, place: str, *commands: str) -> Fix:
    if problem.wanted is None:
        return Fix(f"Correct or unset {name}, {place}", commands)
    return Fix(f"Set {name}={problem.wanted}, {place}", commands, env={name: problem.wanted})
