"""The variables that ranks on a host get, each with where it comes from; NCCL's own files are among the places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dsdoctor.checks.context import JobContext
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import ConfigFile, HostFacts

ENVIRONMENT, JOB, HOSTFILE = "the environment", "the job file", "ifname= in the hostfile"

# Each rank chooses algorithm, protocol, threads and the size of a step by itself, out of these and of what all ranks
# told each other; two that choose differently wait for each other. Source: src/graph/tuning.cc, src/init.cc.
EQUAL_FOR_NCCL = (
    *("NCCL_ALGO", "NCCL_PROTO", "NCCL_NTHREADS", "NCCL_LL128_NTHREADS", "NCCL_THREAD_THRESHOLDS"),
    *("NCCL_BUFFSIZE", "NCCL_LL_BUFFSIZE", "NCCL_LL128_BUFFSIZE", "NCCL_P2P_NET_CHUNKSIZE", "NCCL_CHUNK_SIZE"),
    *("NCCL_NET_OVERHEAD", "NCCL_TUNER_PLUGIN", "NCCL_COLLNET_ENABLE", "NCCL_NVLS_ENABLE", "NCCL_PAT_ENABLE"),
    *("NCCL_COMM_ID", "NCCL_SOCKET_FAMILY", "NCCL_SOCKET_MAGIC", "TORCH_NCCL_BCAST_UNIQUEID"),
)
EQUAL_FOR_TORCH = ("TORCH_DIST_INIT_BARRIER",)
TORCH_DEBUG = "TORCH_DISTRIBUTED_DEBUG"  # ranks with DETAIL start collectives that the others never join

_IFNAMES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


@dataclass(frozen=True)
class Setting:
    """A variable's value, and where it comes from: one of the words above, or the path of a file."""

    value: str
    source: str


def setting(variable: str, host: HostFacts, entry: HostEntry, context: JobContext | None) -> Setting | None:
    """What ranks on the host get for one variable; None when nobody sets it.

    Raises:
        FactUnavailable: it depends on the host's environment, which is not known.
    """
    if context is None or not context.planned:
        if entry.ifname and variable in _IFNAMES:
            return Setting(f"={entry.ifname}" if variable.startswith("NCCL") else entry.ifname, HOSTFILE)
        from_job = context.variables(entry, host).get(variable) if context else None
        if from_job is not None:
            return Setting(from_job, JOB)
        if context is not None and variable in context.unset(entry, host):
            return from_nccl_conf(variable, host)
    if variable in host.environment.variables:
        return Setting(host.environment.variables[variable], ENVIRONMENT)
    return from_nccl_conf(variable, host)


def settings(host: HostFacts, entry: HostEntry, context: JobContext | None) -> dict[str, Setting]:
    """All variables that ranks on the host get. Raises FactUnavailable when the host's environment is not known."""
    names = [name for file in nccl_files(host) for name in file.variables]
    names += list(host.environment.variables)
    if context is not None and not context.planned:
        names += list(context.variables(entry, host))
    if entry.ifname and not (context is not None and context.planned):
        names += _IFNAMES
    found = {name: setting(name, host, entry, context) for name in names}
    return {name: one for name, one in found.items() if one is not None}


def from_nccl_conf(variable: str, host: HostFacts) -> Setting | None:
    """The value that NCCL reads from its files where the environment has none; other programs do not read them."""
    if not variable.startswith("NCCL_"):
        return None
    holding = (file for file in nccl_files(host) if variable in file.variables)
    return next((Setting(file.variables[variable], file.path) for file in holding), None)


def nccl_files(host: HostFacts) -> tuple[ConfigFile, ...]:
    """The files that NCCL reads, in its order: $NCCL_CONF_FILE or ~/.nccl.conf, then /etc/nccl.conf; the first wins.

    Source: src/misc/param.cc.
    """
    files = [file for file in host.environment.files if _read_by(file, "nccl", "nccl.conf")]
    return tuple(sorted(files, key=lambda file: file.path == "/etc/nccl.conf"))


def deepspeed_files(host: HostFacts) -> tuple[ConfigFile, ...]:
    """The .deepspeed_env files, as DeepSpeed's launcher finds them when it is started on the host; the last one wins.

    Source: launcher/runner.py of DeepSpeed 0.19.8.
    """
    return tuple(file for file in host.environment.files if _read_by(file, "deepspeed", ".deepspeed_env"))


def of_a_shell(variable: str, host: HostFacts) -> Setting | None:
    """The value that an interactive shell's files would set."""
    holding = (file for file in reversed(host.environment.shell_files) if variable in file.variables)
    return next((Setting(file.variables[variable], file.path) for file in holding), None)


def everywhere(host: HostFacts) -> Iterator[tuple[str, str, Setting]]:
    """Name, reader and setting of every variable that the host's environment and files hold, used or not."""
    for name, value in host.environment.variables.items():
        yield name, "", Setting(value, ENVIRONMENT)
    for reader, files in (
        ("nccl", nccl_files(host)),
        ("deepspeed", deepspeed_files(host)),
        ("shell", host.environment.shell_files),
    ):
        for file in files:
            for name, value in file.variables.items():
                yield name, reader, Setting(value, file.path)


def _read_by(file: ConfigFile, reader: str, name: str) -> bool:
    return file.reader == reader if file.reader else file.path.endswith(name)
