"""The commands that start a host's ranks, one function an engine; pure.

Each engine's function says what is started on a host, what the ranks find in their environment beside the host's own
variables, and how their lines are told apart. Ranks are in the hostfile's order, whatever comes up first.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import posixpath
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import msgspec

from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable
from dsdoctor.jobs.job import Job
from dsdoctor.plan.model import Command, EnvVar, HostPlan, RankPart
from dsdoctor.plan.programs import refuse_misplacing, untagged
from dsdoctor.yamlfile import FileError

# torchrun's own default is 900 s of silence when another host never comes (cluster trials: 910 s); all hosts are
# started within a second of each other here.
RENDEZVOUS_SECONDS = 120
RANK_PREFIX = "@rank${rank}@ "  # torchrun fills it in; the guardian takes it off
DEVICES = "CUDA_VISIBLE_DEVICES"
WISHED = ("deepspeed_env", "gpu template", "job", "stage", "host", "command line")  # what a person gave for ranks
# What the engines set for the ranks themselves: a value given to the job never gets there.
_SET_BY_ENGINES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Meeting:
    """Which hosts run a job's ranks, and where these meet."""

    job: Job
    source: str
    run: str
    hosts: tuple[HostPlan, ...]
    address: str
    port: int
    with_gpus: frozenset[str] = frozenset()  # the hosts that have GPUs

    @property
    def world_size(self) -> int:
        """How many ranks there are on all hosts."""
        return sum(host.slots for host in self.hosts)


@dataclass(frozen=True)
class Part:
    """One host's part of a stage, as an engine is told it. Placeholders are put in."""

    meeting: Meeting
    host: HostPlan
    folder: str  # of the stage
    arguments: tuple[str, ...]  # of the program
    command: tuple[str, ...]  # of engine program
    env: Mapping[str, EnvVar]  # settled: what the host's ranks get in this stage

    @property
    def program(self) -> tuple[str, ...]:
        """The module or script with its arguments, for an interpreter."""
        job = self.meeting.job
        return (*(("-m", job.module) if job.module else (job.script or "",)), *self.arguments)


def command_of(part: Part) -> Command:
    """What is started on a host for a stage.

    Raises:
        FileError: the engine cannot start ranks as the hosts have slots.
    """
    engine = part.meeting.job.engine
    meets = len(part.meeting.hosts) > 1 and engine != "program"  # where a program's ranks meet, only it knows
    return msgspec.structs.replace(_ENGINES[engine](part), meets=meets)


def torchrun(part: Part) -> Command:
    """One torchrun a host. Static rendezvous takes the order of the ranks from the plan, c10d from the addresses."""
    host, meeting = part.host, part.meeting
    address, port, c10d = meeting.address, str(meeting.port), meeting.job.rendezvous == "c10d"
    argv = [host.python, "-m", "torch.distributed.run", "--nnodes", str(len(meeting.hosts))]
    argv += [] if c10d else ["--node_rank", str(host.node_rank)]
    argv += ["--nproc_per_node", str(host.slots)]
    if c10d:
        name = f"[{address}]" if ":" in address else address
        limits = f"join_timeout={RENDEZVOUS_SECONDS},read_timeout={RENDEZVOUS_SECONDS}"
        is_host = str(host.node_rank == 0).lower()
        argv += ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"{name}:{port}", "--rdzv_id", meeting.run]
        argv += ["--local_addr", host.address or host.name, "--rdzv_conf", f"{limits},is_host={is_host}"]
    else:
        argv += ["--master_addr", address, "--master_port", port, "--rdzv_conf", f"timeout={RENDEZVOUS_SECONDS}"]
    argv += ["--log_dir", posixpath.join(host.run_dir, "torchrun", part.folder), "--tee", "3"]
    return Command(host.name, (*argv, *map(str, meeting.job.launcher_args), *part.program), host.code_dir)


def deepspeed(part: Part) -> Command:
    """DeepSpeed's launcher of one host, with the words that `deepspeed` gives it (DeepSpeed 0.19.8, launcher/)."""
    host, meeting = part.host, part.meeting
    world: dict[str, list[int | str]] = {each.name: list(range(each.slots)) for each in meeting.hosts}
    # Of the other hosts only the number counts. A device may be a UUID: the launcher joins the words, no more.
    world[host.name] = [
        int(word) if word.lstrip("-").isdigit() else word for word in part.env[DEVICES].value.split(",")
    ]
    coded = base64.urlsafe_b64encode(json.dumps(world).encode("utf-8")).decode("ascii")
    logs = posixpath.join(host.run_dir, "ranks", part.folder)
    argv = [
        *(host.python, "-u", "-m", "deepspeed.launcher.launch", f"--world_info={coded}"),
        *(f"--node_rank={host.node_rank}", f"--master_addr={meeting.address}", f"--master_port={meeting.port}"),
        *(f"--enable_each_rank_log={logs}", *map(str, meeting.job.launcher_args)),
        *(("--module", meeting.job.module) if meeting.job.module else (meeting.job.script or "",)),
    ]
    return Command(host.name, (*argv, *part.arguments), host.code_dir, rank_logs=logs)


def python(part: Part) -> Command:
    """One interpreter a rank, started by the guardian. A rank that is alone is told of no other."""
    host, alone = part.host, part.meeting.world_size == 1
    ranks = tuple(
        RankPart(rank, {} if alone else {"RANK": str(rank), "LOCAL_RANK": str(local)})
        for rank, local in enumerate(host.local_ranks, host.first_rank)
    )
    return Command(host.name, (host.python, "-u", *part.program), host.code_dir, ranks=ranks)


def program(part: Part) -> Command:
    """Any command, once a host; it is told where it is by its environment and by placeholders."""
    refuse_misplacing(part.command, part.meeting.hosts, part.meeting.source)
    return Command(part.host.name, (*part.command, *part.arguments), part.host.code_dir)


_ENGINES: Mapping[str, Callable[[Part], Command]] = {
    "torchrun": torchrun,
    "deepspeed": deepspeed,
    "python": python,
    "program": program,
}


def _variables(meeting: Meeting, host: HostPlan) -> tuple[EnvVar, ...]:
    """What an engine needs in the environment of a host's processes."""
    engine, world = meeting.job.engine, meeting.world_size
    prefix = EnvVar("TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE", RANK_PREFIX, "every line carries its global rank")
    there = (
        EnvVar("MASTER_ADDR", meeting.address, "where the ranks meet: an address that every host reaches"),
        EnvVar("MASTER_PORT", str(meeting.port), "a port that nobody listens on there"),
        EnvVar("NODE_RANK", str(host.node_rank), "this host's place among the hosts"),
        EnvVar("WORLD_SIZE", str(world), "the ranks of all hosts"),
    )
    local_world = EnvVar("LOCAL_WORLD_SIZE", str(host.slots), "the ranks of this host")
    if engine == "torchrun":
        return (prefix,)
    if engine == "deepspeed":
        return (local_world,)  # its launcher sets LOCAL_SIZE only, and hands the rest of the environment on
    if engine == "python" and world > 1:
        return (
            *there,
            EnvVar("GROUP_RANK", str(host.node_rank), "this host's place among the hosts, as torchrun calls it"),
            local_world,
        )
    if engine == "program":
        limits = ",".join(f"{name}={RENDEZVOUS_SECONDS}" for name in ("timeout", "join_timeout", "read_timeout"))
        return (
            prefix,
            *there,
            EnvVar("NNODES", str(len(meeting.hosts)), "the hosts of this job"),
            EnvVar("NPROC_PER_NODE", str(host.slots), "the ranks of this host"),
            EnvVar("PET_TEE", "3", "a torchrun that the program starts tags its ranks' lines"),
            EnvVar("PET_RDZV_CONF", limits, "that torchrun waits so many seconds for the other hosts, not 900"),
            EnvVar("PET_LOG_DIR", posixpath.join(host.run_dir, "torchrun"), "where that torchrun keeps its copies"),
        )
    return ()


def _deepspeed_devices(meeting: Meeting, host: HostPlan, given: EnvVar | None) -> tuple[EnvVar, ...]:
    """CUDA_VISIBLE_DEVICES as DeepSpeed's launcher sets it, from the slots of --world_info and over any other value.

    It gives the ranks LOCAL_RANK = RANK modulo the slots, which turns the numbers where the hosts before have other
    numbers of slots. The list is turned with them: the host's first rank is on its first device, as with torchrun.
    """
    if meeting.job.engine != "deepspeed":
        return ()
    devices = _devices(meeting, host, given)
    turned = [""] * host.slots
    for device, local in zip(devices, host.local_ranks, strict=True):
        turned[local] = device
    because = "deepspeed.launcher.launch sets it to the slots of --world_info"
    if is_rotated(host):
        local_ranks, on = ", ".join(map(str, host.local_ranks)), ", ".join(devices)
        because += f"; turned, since it gives {ranks_of(host)} LOCAL_RANK {local_ranks}: they are on devices {on}"
    return (EnvVar(DEVICES, ",".join(turned), because),)


def settled(meeting: Meeting, host: HostPlan, env: Mapping[str, EnvVar]) -> dict[str, EnvVar]:
    """A host's environment as its ranks will really get it: with what the engine sets, whoever else set it.

    What a person gives a program stays as it is given, since only the program knows what it makes of it.

    Raises:
        FileError: CUDA_VISIBLE_DEVICES names fewer devices than the host has ranks.
    """
    result = dict(env)
    for own in (*_variables(meeting, host), *_deepspeed_devices(meeting, host, env.get(DEVICES))):
        given = env.get(own.name)
        if given is None or given.unset:
            result[own.name] = own
        elif given.value != own.value and not (meeting.job.engine == "program" and given.layer in WISHED):
            result[own.name] = msgspec.structs.replace(own, replaced=(*given.replaced, (given.layer, given.value)))
    return dict(sorted(result.items()))


def remarks(meeting: Meeting, given: Mapping[str, Mapping[str, EnvVar]]) -> Iterator[str]:
    """Warnings: values that a person gave, by host, for what the engine sets itself, and lines without a rank."""
    engine = meeting.job.engine
    if engine == "program":
        yield from untagged(tuple(map(str, meeting.job.command)), meeting.hosts)
        return
    for host in meeting.hosts:
        env = given[host.name]
        for name in _SET_BY_ENGINES:
            if name in env and env[name].layer in WISHED and env[name].secret is None:
                yield (
                    f"{host.name}: {name}={env[name].value} ({env[name].because}) reaches no rank: engine {engine} "
                    "gives each its own. Leave it out; --master-port chooses the port"
                )


def local_ranks(job: Job, slots: int, first_rank: int) -> tuple[int, ...]:
    """The LOCAL_RANK that an engine gives each rank of a host: DeepSpeed's launcher computes RANK modulo slots."""
    if job.engine == "deepspeed":
        return tuple((first_rank + index) % slots for index in range(slots))
    return tuple(range(slots))


def in_rank_order(job: Job, cluster: Cluster) -> Cluster:
    """The hosts in the order in which the engine gives them ranks: the hostfile's, or by address for c10d.

    torchrun's c10d rendezvous sorts the hosts by the text of their --local_addr (torch 2.13, dynamic_rendezvous.py,
    `sorted(state.participants)`), whatever --node_rank says.
    """
    if job.rendezvous != "c10d" or len(cluster) == 1:
        return cluster
    members = tuple(sorted(cluster.members, key=lambda member: address_of(member, cluster)))
    master_addr = cluster.master_addr if members[0] is cluster.master else None
    return replace(cluster, master_addr=master_addr, members=members)


def address_of(member: Member, cluster: Cluster) -> str:
    """The address by which other hosts reach this one, the first as text of several; its name where none is known."""
    found: set[str] = set()
    for other in cluster:
        try:
            route = other.facts.network.route(member.name) if other is not member and other.facts else None
        except FactUnavailable:
            continue
        if route is not None and route.address and not ipaddress.ip_address(route.address).is_loopback:
            found.add(route.address)
    return min(found, default=member.name)


def with_gpus(cluster: Cluster) -> frozenset[str]:
    """The names of the hosts on which GPUs were seen."""
    found = set()
    for member in cluster.examined:
        with suppress(FactUnavailable):
            found |= {member.name} if member.facts is not None and member.facts.gpu.gpus else set()
    return frozenset(found)


def _devices(meeting: Meeting, host: HostPlan, given: EnvVar | None) -> tuple[str, ...]:
    """The devices of a host's ranks, one each, in the order of the ranks."""
    if given is None or given.unset:
        return tuple(map(str, host.devices))
    words = [word.strip() for word in given.value.split(",")]
    if words[0] in ("", "-1", "NoDevFiles"):  # CUDA shows none, and DeepSpeed must be given as many as there are ranks
        return ("-1",) * host.slots
    if len(words) < host.slots and host.name not in meeting.with_gpus:
        return tuple(map(str, host.devices))  # the ranks compute on CPU
    if len(words) < host.slots:
        devices = "1 device" if len(words) == 1 else f"{len(words)} devices"
        raise FileError(
            meeting.source,
            f"{DEVICES}={given.value} ({given.because}) names {devices} for {host.slots} ranks on {host.name}; name "
            f"one for each, or give the host slots={len(words)}",
        )
    return tuple(words[: host.slots])


def is_rotated(host: HostPlan) -> bool:
    """Whether LOCAL_RANK does not follow the order of the ranks on a host."""
    return host.local_ranks != tuple(range(len(host.local_ranks)))


def ranks_of(host: HostPlan) -> str:
    """The ranks of a host in words."""
    last = host.first_rank + host.slots - 1
    return f"rank {last}" if host.slots == 1 else f"ranks {host.first_rank} to {last}"
