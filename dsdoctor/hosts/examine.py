"""From the options that name hosts to a cluster with facts: what `check`, `facts` and `launch` begin with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsdoctor.cluster import Cluster, HostEntry, Member, Reach
from dsdoctor.escape import escape
from dsdoctor.hosts.filters import filter_hosts
from dsdoctor.hosts.hostfile import load_hostfile, local_entry
from dsdoctor.hosts.transport import Transport, TransportKind
from dsdoctor.terminal import StatusLine, say, status_line

if TYPE_CHECKING:  # choosing hosts comes before connecting to them, and is to be quick
    from dsdoctor.facts import HostFacts
    from dsdoctor.jobs.job import ResolvedJob

DEFAULT_HOSTFILE = "/job/hostfile"  # DeepSpeed 0.19.8, deepspeed/constants.py: DLTS_HOSTFILE
CONNECT_SECONDS = 10.0

_HERE = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class HostChoice:
    """Which hosts, and how they are reached: the values of the options that commands share."""

    hostfile: str | None = None  # None: DeepSpeed's default where it exists, else this machine
    include: str | None = None
    exclude: str | None = None
    transport: TransportKind = "auto"
    python: str | None = None  # outranks what hostfile and job say
    timeout: float = 30.0  # seconds for one host
    network: bool = False  # whether the hosts try the ways between them


@dataclass(frozen=True)
class Chosen:
    """The hosts that were asked for, before anything is known of them. `source` is the hostfile, None without one."""

    entries: tuple[HostEntry, ...]
    source: str | None = None
    warnings: tuple[str, ...] = ()


def choose(choice: HostChoice) -> Chosen:
    """The hosts that the options name.

    Raises:
        FileError: the hostfile cannot be used, or a filter names what it does not have.
    """
    source = choice.hostfile
    if source is None and Path(DEFAULT_HOSTFILE).is_file():
        source = DEFAULT_HOSTFILE
    if source is None:
        chosen = Chosen((local_entry(1),))
    else:
        hostfile = load_hostfile(source)
        chosen = Chosen(tuple(map(_here, hostfile.entries)), source, hostfile.warnings)
    entries = filter_hosts(chosen.entries, choice.include, choice.exclude)
    if choice.python is not None:
        entries = tuple(replace(entry, python=choice.python) for entry in entries)
    return replace(chosen, entries=entries)


def examine(
    choice: HostChoice,
    *,
    job: ResolvedJob | None = None,
    master_addr: str | None = None,
    transports: dict[str, Transport] | None = None,
) -> Cluster:
    """Choose the hosts and learn their facts; warnings and, on a terminal, the progress are said on standard error.

    `transports` is filled with the connections of the reached hosts, for the caller to use and close.

    Raises:
        FileError: see :func:`choose`.
    """
    own: dict[str, Transport] = {}
    if choice.network and transports is None:  # the trial goes through the connections that the probe made
        transports = own
    try:
        return _examined(choice, job, master_addr, transports)
    finally:
        for transport in own.values():
            transport.close()


def _examined(
    choice: HostChoice, job: ResolvedJob | None, master_addr: str | None, transports: dict[str, Transport] | None
) -> Cluster:
    from dsdoctor.hosts.gather import gather

    chosen = choose(choice)
    for warning in chosen.warnings:
        say(escape(warning))
    with status_line() as line:
        members = gather(
            chosen.entries,
            config=_questions(chosen.entries, job, master_addr),
            own={entry.name: _about_job(entry, job) for entry in chosen.entries} if job else None,
            python=job.job.python if job else None,
            setup=job.job.setup if job else (),
            timeout=choice.timeout,
            connect_timeout=min(CONNECT_SECONDS, choice.timeout),
            kind=choice.transport,
            transports=transports,
            on_progress=_Progress([entry.name for entry in chosen.entries], line),
        )
        if chosen.source is None:
            members = tuple(_with_own_slots(member, job.job.cpu_slots if job else 1) for member in members)
        cluster = Cluster(members, master_addr)
        cluster = _with_config_keys(cluster, choice, job, transports)
        if choice.network and transports is not None:
            from dsdoctor.hosts.network import try_network

            python, setup = (job.job.python, job.job.setup) if job else (None, ())
            cluster = try_network(cluster, transports, python=python, setup=setup, progress=line.show)
    return cluster


def _with_config_keys(
    cluster: Cluster, choice: HostChoice, job: ResolvedJob | None, transports: dict[str, Transport] | None
) -> Cluster:
    """The cluster with what its DeepSpeeds take in the job's config, where our own table is of another release."""
    if job is None or not any(part.deepspeed is not None for part in (job, *job.parts)):
        return cluster
    from dsdoctor.hosts.config_keys import with_config_keys
    from dsdoctor.jobs.dsconfig import KNOWN_RELEASE

    return with_config_keys(
        cluster,
        known=[KNOWN_RELEASE],
        python=job.job.python,
        setup=job.job.setup,
        timeout=min(10.0, choice.timeout),
        connect_timeout=min(CONNECT_SECONDS, choice.timeout),
        kind=choice.transport,
        transports=transports,
    )


def _questions(entries: Sequence[HostEntry], job: ResolvedJob | None, master_addr: str | None) -> dict[str, Any]:
    """What the probe is asked beyond its sections: every name a host must reach, and the folders of the job."""
    targets = [*([master_addr] if master_addr else []), *(entry.name for entry in entries if not entry.local)]
    paths = [entry.workdir for entry in entries if entry.workdir]
    if job is not None and job.job.workdir:
        paths.append(job.job.workdir)
    return {"targets": targets, "paths": list(dict.fromkeys(paths))}


# What the probe looks at for the places that a job writes to; a job's own values outrank the host's.
_CACHES = (
    "TORCH_EXTENSIONS_DIR",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_DATASETS_CACHE",
    "TRITON_CACHE_DIR",
    "XDG_CACHE_HOME",
    "TMPDIR",
)


def _about_job(entry: HostEntry, job: ResolvedJob) -> dict[str, Any]:
    """What the probe is asked on one host: the job's paths as they are there, and the folders that it writes to."""
    from dsdoctor.jobs.paths import code_files, named_paths, work_folder

    work = work_folder(job, entry.workdir)
    code = str((Path(job.root) / job.job.sync.code).resolve()) if entry.local else f"{work}/code"
    named = named_paths(job)
    places = [("output", one.at(code)) for one in named if one.role == "output"]
    places += [] if entry.local else [("work", work)]  # on this machine the code is run where it lies
    variables = {name: value for name, value in job.env.items() if name in _CACHES and value and "$" not in value}
    inputs = [{"path": one.path, "role": one.role, "at": one.at(code)} for one in named]
    inputs += [{"path": name, "role": "code", "at": str(Path(at).absolute())} for name, at in code_files(job).items()]
    return {"inputs": inputs, "places": list(dict.fromkeys(places)), "variables": variables}


class _Progress:
    """Shows how many hosts have answered, and which have not."""

    def __init__(self, names: Sequence[str], line: StatusLine) -> None:
        self._waiting = dict.fromkeys(names)
        self._total = len(names)
        self._line = line
        self._show()

    def __call__(self, member: Member) -> None:
        """Note a host that is done."""
        self._waiting.pop(member.name, None)
        self._show()

    def _show(self) -> None:
        from dsdoctor.report.layout import count, fold

        done = self._total - len(self._waiting)
        of = f"{done} of {count(self._total, 'host')} examined, " if self._total > 1 else ""
        self._line.show(f"{of}waiting for {escape(fold(self._waiting))}" if self._waiting else of)


def _here(entry: HostEntry) -> HostEntry:
    """`localhost` without port or user is this machine: no ssh is needed to get there, and DeepSpeed uses none."""
    if entry.name in _HERE and entry.port in (None, 22) and entry.user in (None, os.environ.get("USER")):
        return replace(entry, local=True)
    return entry


def _with_own_slots(member: Member, without_gpus: int) -> Member:
    """This machine without a hostfile has as many slots as GPUs; without GPUs as many as the job says."""
    return replace(member, entry=replace(member.entry, slots=gpus_of(member.facts) or without_gpus))


def gpus_of(facts: HostFacts | None) -> int:
    """The number of GPUs, 0 where it is not known."""
    from dsdoctor.facts import FactUnavailable

    try:
        return len(facts.gpu.gpus) if facts is not None else 0
    except FactUnavailable:
        return 0


def from_snapshots(choice: HostChoice, snapshots: dict[str, HostFacts], folder: str) -> Cluster:
    """The cluster out of saved snapshots: its hosts are those of the hostfile, without one those of the snapshots.

    A host of the hostfile without a snapshot counts as not examined.

    Raises:
        FileError: see :func:`choose`.
    """
    if choice.hostfile is not None:
        entries = choose(choice).entries
    else:
        whole = tuple(HostEntry(name, gpus_of(facts) or 1) for name, facts in snapshots.items())
        entries = filter_hosts(whole, choice.include, choice.exclude)
    return Cluster(tuple(_recorded(entry, snapshots.get(entry.name), folder) for entry in entries))


def _recorded(entry: HostEntry, facts: HostFacts | None, folder: str) -> Member:
    if facts is None:
        return Member(entry, Reach(False, "not-recorded", f"{folder} holds no snapshot of {entry.name}"))
    return Member(entry, Reach(True), facts)
