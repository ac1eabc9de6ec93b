"""A variable for NCCL, torch or gloo that nothing reads: misspelt, renamed, or of another version."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import where_set
from dsdoctor.checks.variable_names import Judgement, judge
from dsdoctor.cluster import Cluster, HostEntry, Member
from dsdoctor.facts import FactUnavailable
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def unknown_env_var(cluster: Cluster | None, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """A variable is set whose name NCCL, torch and gloo do not know, or know by another name.

    ## Why it matters
    Nobody reports a misspelt variable: `NCCL_IB_DISABL=1` is read by nothing, InfiniBand stays on, and the evening
    goes into looking for another cause. Names also come and go with the version.

    ## How to fix it
    Set the right name where the wrong one is set. Variables of plugins and of build scripts are left alone.

    ## Source
    All names in NCCL's sources from 2.3.5 to 2.30.7; torch 2.13's for TORCH_NCCL_*, TORCH_FR_* and GLOO_*; the
    renaming in torch 2.2: pytorch#114077.
    """
    if context is not None:
        layers = [context.job.env, *(stage.env for stage in context.stages), *context.job.job.gpu_env.values()]
        for name in dict.fromkeys(name for layer in layers for name in layer):
            judgement = judge(name, None)
            if judgement:
                yield _finding(name, judgement, context.cite(f"env: {name}"), Fix(f"Rename it in {context.job.source}"))
    for member in cluster.examined if cluster else ():
        try:
            yield from _on_host(member)
        except FactUnavailable as missing:
            yield unknown_env_var.skipped([member.name], str(missing))


def _on_host(member: Member) -> Iterator[Finding]:
    if member.facts is None:
        return
    environment = member.facts.environment
    files = (*environment.files, *environment.shell_files)
    places = [("the environment", environment.variables), *((file.path, file.variables) for file in files)]
    for place, settings in places:
        for name, value in settings.items():
            judgement = judge(name, member.facts)
            if judgement:
                yield _finding(
                    name,
                    judgement,
                    Evidence(text=f"{name}={value}, from {place}", source=member.name),
                    _fix(member.entry, name, judgement[1], place),
                    member.name,
                )


def _finding(name: str, judgement: Judgement, evidence: Evidence, fix: Fix, host: str | None = None) -> Finding:
    message, _, severity = judgement
    hosts = [host] if host else []
    return unknown_env_var.finding(message, severity=severity, hosts=hosts, evidence=[evidence], fix=[fix])


def _fix(entry: HostEntry, name: str, meant: str | None, place: str) -> Fix:
    title = f"Set {meant} instead of {name}" if meant else f"Take {name} out"
    if place != "the environment":
        return Fix(f"{title} in {place}")
    return Fix(f"{title}, where it is set", (where_set(entry, name),))
