"""DeepSpeed's launcher gives every host what is right on the first one only."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.ib_use import selected_ports
from dsdoctor.checks.ifname import leading_to_master, select
from dsdoctor.checks.rank_settings import Setting, deepspeed_files, of_a_shell, setting
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_IFNAMES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
_EXPORTED = ("NCCL", "PYTHON", "MV2", "UCX", "MLFLOW")  # runner.py: EXPORT_ENVS, and the CUDA accelerator's
# What a shell has and a job's file has no business with; two of them tell that somebody's whole environment is in it.
_OF_A_SHELL = ("HOME", "PWD", "USER", "LOGNAME", "SHELL", "HOSTNAME", "TERM", "SSH_CONNECTION", "SHLVL", "OLDPWD")


@check(severity=Severity.WARNING, since="0.1")
def ds_env_carried_over(cluster: Cluster, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """What DeepSpeed's launcher would carry from the first host to all others does not fit there.

    ## Why it matters
    Started on the first host, the launcher exports every variable there whose name begins with NCCL, PYTHON, UCX, MV2
    or MLFLOW, and all of .deepspeed_env, to all hosts: one value for all. An interface or adapter that other hosts do
    not have stops NCCL there. `accelerate launch` appends its whole environment to .deepspeed_env, HOME, PATH and
    tokens among it, at every launch.

    ## How to fix it
    Take what differs from host to host out of the file and of the first host's environment; /etc/nccl.conf on each
    host is the place for it. `dsdoctor launch` gives each host its own values: it takes .deepspeed_env for
    engine: deepspeed alone, and leaves out aloud, host by host, what is wrong there.

    ## Source
    launcher/runner.py of DeepSpeed 0.19.8; accelerate 1.15.0, commands/launch.py; nccl#286.
    """
    if len(cluster) < 2 or (context is not None and context.planned) or cluster.master.facts is None:
        return
    master = cluster.master.facts
    try:
        carried = _carried(master)
    except FactUnavailable as missing:
        yield ds_env_carried_over.skipped([cluster.master.name], str(missing))
        return
    yield from _whole_environment(master, len(cluster))
    for member in cluster.examined:
        if member.name == cluster.master.name or member.facts is None:
            continue
        try:
            yield from _misfits(member, member.facts, carried, cluster, context)
        except FactUnavailable as missing:
            yield ds_env_carried_over.skipped([member.name], str(missing))


def _carried(master: HostFacts) -> dict[str, Setting]:
    """What the launcher would export when it is started in a shell of the first host, .deepspeed_env last."""
    names = [name for file in master.environment.shell_files for name in file.variables]
    names += list(master.environment.variables)
    found: dict[str, Setting] = {}
    for name in names:
        if not name.startswith(_EXPORTED):
            continue
        own = master.environment.variables.get(name)
        got = Setting(own, "its environment") if own is not None else of_a_shell(name, master)
        if got is not None:
            found[name] = got
    for file in deepspeed_files(master):
        found.update((name, Setting(value, file.path)) for name, value in file.variables.items())
    return found


def _misfits(
    member: Member, host: HostFacts, carried: dict[str, Setting], cluster: Cluster, context: JobContext | None
) -> Iterator[Finding]:
    for variable in (*_IFNAMES, "NCCL_IB_HCA"):
        got = carried.get(variable)
        own = setting(variable, host, member.entry, context)
        if got is None or "$" in got.value or (own is not None and own.value == got.value):
            continue  # where the host has the same value anyway, other checks say what is wrong with it
        if variable in _IFNAMES:
            selected = select(variable, got.value, host.network)
            if selected is None or not selected.problems:
                continue
            reason, device = "; ".join(selected.problems), leading_to_master(host.network, cluster.master_name)
        else:
            if not host.infiniband.devices or selected_ports(host.infiniband, got.value):
                continue
            reason, device = "none of its active ports is called so", None
        yield _finding(cluster, member, variable, got, reason, device)


def _finding(cluster: Cluster, member: Member, variable: str, got: Setting, reason: str, device: str | None) -> Finding:
    env = {variable: f"={device}" if variable.startswith("NCCL") else device} if device else {}
    return ds_env_carried_over.finding(
        f"DeepSpeed's launcher would carry {variable}={got.value} from {cluster.master.name} to this host: {reason}",
        hosts=[member.name],
        evidence=[Evidence(text=f"{variable}={got.value}, from {got.source}", source=cluster.master.name)],
        fix=[
            Fix(f"Take {variable} out of {got.source} on {cluster.master.name}"),
            Fix(f"Set it for {member.name} alone ({_place(variable)})", env=env),
        ],
    )


def _place(variable: str) -> str:
    if variable.startswith("NCCL"):
        return "in its /etc/nccl.conf, or by dsdoctor launch"
    return "by dsdoctor launch, which gives each host its own"


def _whole_environment(master: HostFacts, hosts: int) -> Iterator[Finding]:
    for file in deepspeed_files(master):
        signs = [name for name in _OF_A_SHELL if name in file.variables]
        if len(signs) < 2:
            continue
        told = f"; {', '.join(file.secrets[:5])} lie in it for all to read" if file.secrets else ""
        yield ds_env_carried_over.finding(
            f"{file.path} holds a whole shell's environment ({', '.join(signs)} …), which DeepSpeed's launcher "
            f"forces on all {hosts} hosts{told}",
            hosts=[master.name],
            evidence=[Evidence(text=f"{len(file.variables)} variables in {file.path}", source=master.name)],
            fix=[Fix(f"Delete {file.path}, and write into it what the job needs and no more")],
        )
