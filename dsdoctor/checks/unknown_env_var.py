"""A variable for NCCL, torch or gloo that nothing reads: misspelt, renamed, or of another version."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import suppress

from packaging.version import InvalidVersion, Version

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.nccl_pin import loaded
from dsdoctor.checks.nearest import nearest
from dsdoctor.checks.remedy import on_host
from dsdoctor.checks.tables import variables
from dsdoctor.cluster import Cluster, HostEntry, Member
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

Judgement = tuple[str, str | None, Severity]  # what is wrong with the name, the right one, how bad it is


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


def judge(name: str, host: HostFacts | None) -> Judgement | None:
    """What is wrong with a variable's name on a host (None: on any), or None when nothing is."""
    table = variables()
    torch, nccl = _torch(host), _nccl(host)
    if name in table.renamed:
        new, since = table.renamed[name]
        if host is None or torch is None or torch < Version(since):
            return None
        return f"{name} is an old name, which torch still takes with a warning; it is {new} now", new, Severity.INFO
    old = next((old for old, (new, _) in table.renamed.items() if new == name and old.startswith("NCCL_")), None)
    if old and torch and torch < Version("2.2"):
        return f"{name} is not read by torch {torch}, which knows it as {old}", old, Severity.WARNING
    if name in table.nccl:
        return _by_version(name, nccl)
    if name in table.torch or name in table.not_read or name.startswith(table.plugins):
        return None
    if not name.startswith(("NCCL_", "GLOO_", "TORCH_")):
        return None
    meant = nearest(name, {*table.nccl, *table.torch, *table.renamed})
    if meant:
        return f"{name} is read by nothing; did you mean {meant}?", meant, Severity.WARNING
    if not name.startswith("NCCL_") or _is_rocm(host):  # torch and gloo have names besides those in the table
        return None
    return f"{name} is not known to NCCL up to {table.newest}, nor to torch", None, Severity.WARNING


def _by_version(name: str, nccl: Version | None) -> Judgement | None:
    since, last = variables().nccl[name]
    if nccl is None:
        return None
    if last and nccl > Version(last):
        return f"{name} has no effect: NCCL {nccl} no longer reads it ({last} was the last)", None, Severity.WARNING
    if nccl < Version(since):
        return f"{name} has no effect: NCCL {nccl} does not read it yet ({since} was the first)", None, Severity.INFO
    return None


def _finding(name: str, judgement: Judgement, evidence: Evidence, fix: Fix, host: str | None = None) -> Finding:
    message, _, severity = judgement
    hosts = [host] if host else []
    return unknown_env_var.finding(message, severity=severity, hosts=hosts, evidence=[evidence], fix=[fix])


def _fix(entry: HostEntry, name: str, meant: str | None, place: str) -> Fix:
    title = f"Set {meant} instead of {name}" if meant else f"Take {name} out"
    if place != "the environment":
        return Fix(f"{title} in {place}")
    files = "~/.bashrc ~/.bash_profile ~/.profile ~/.zshenv /etc/environment /etc/profile.d/*"
    return Fix(f"{title}, where it is set", (on_host(entry, f"grep -ns {shlex.quote(name)} {files}"),))


def _torch(host: HostFacts | None) -> Version | None:
    with suppress(FactUnavailable, InvalidVersion):
        return Version((host.torch.version or "").split("+")[0]) if host else None
    return None


def _nccl(host: HostFacts | None) -> Version | None:
    with suppress(FactUnavailable, InvalidVersion):
        copy = loaded(host) if host else None
        return Version(copy.version or "") if copy else None
    return None


def _is_rocm(host: HostFacts | None) -> bool:
    """Whether the host's torch is for AMD: its library reads NCCL_ names of its own."""
    with suppress(FactUnavailable):
        return bool(host and host.torch.hip)
    return False
