"""The launch plan as a value: what `--dry-run` prints is the object that `run.execute` carries out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

SCHEMA = "dsdoctor.plan/1"
MARK = "DSDOCTOR_RUN"  # the variable that every process of a run has; guardian/left_behind.py knows it, too

# Later layers win over earlier ones (DESIGN §5); the plan shows which one did. What a person has set on a host - in
# NCCL's own files, in the session that every command there begins in, in DeepSpeed's file - wins over what is derived,
# unless it is wrong for the host: then it is beaten, and the plan says why.
LAYERS = (
    *("derived", "nccl.conf", "inherited", "deepspeed_env"),
    *("gpu template", "job", "stage", "host", "command line"),
)
JOB_FILE_LAYERS = frozenset({"gpu template", "job", "stage"})
# What the ranks have by themselves: the session's variables are in their environment before the plan adds to it, and
# NCCL reads its files in the rank.
_THERE_ALREADY = frozenset({"nccl.conf", "inherited"})


class PlanError(Exception):
    """No plan can be made for these hosts and this job; the message holds what is wrong and the mend."""


class EnvVar(msgspec.Struct, frozen=True, omit_defaults=True):
    """A variable for one host: its value, why it is there, the layer that won and the values it won over.

    A secret's value is in `secret` and in nothing that is printed or written: it goes to the host over standard input.
    With `unset` the variable is taken out of what the session on the host has.
    """

    name: str
    value: str
    because: str
    layer: str = "derived"
    replaced: tuple[tuple[str, str], ...] = ()  # (layer, value) of the layers below
    secret: str | None = None  # of an inherited one "": its value is known on the host alone
    unset: bool = False

    @property
    def real_value(self) -> str:
        """What the ranks get."""
        return self.value if self.secret is None else self.secret

    @property
    def sent(self) -> bool:
        """Whether the plan hands the value over: not for what is taken away, nor for what the ranks have anyway."""
        return not self.unset and self.layer not in _THERE_ALREADY


def values_sent(*layers: Mapping[str, EnvVar]) -> dict[str, str]:
    """The variables that are set on a host before the command starts there, secrets and all; later layers win."""
    return {name: variable.real_value for name, variable in _merged(layers).items() if variable.sent}


def names_unset(*layers: Mapping[str, EnvVar]) -> tuple[str, ...]:
    """The variables that are taken out of the session's before the command starts."""
    return tuple(name for name, variable in _merged(layers).items() if variable.unset)


def _merged(layers: tuple[Mapping[str, EnvVar], ...]) -> dict[str, EnvVar]:
    return {name: variable for layer in layers for name, variable in layer.items()}


class HostPlan(msgspec.Struct, frozen=True):
    """One host of the run: how many ranks, from which on, with what environment."""

    name: str
    slots: int  # ranks on this host
    node_rank: int
    first_rank: int
    python: str
    code_dir: str  # where the code lies on the host
    run_dir: str  # where this run writes on the host
    local: bool
    env: dict[str, EnvVar]
    user: str | None = None
    port: int | None = None
    local_ranks: tuple[int, ...] = ()  # LOCAL_RANK of each of its ranks, in the order of the ranks
    devices: tuple[int, ...] = ()  # the slots of the hostfile that the ranks take, in their order
    address: str = ""  # by which the other hosts reach it, or its name


class RankPart(msgspec.Struct, frozen=True):
    """One process of a host that the guardian itself starts: its global rank, and the variables of it alone."""

    rank: int
    env: dict[str, str] = {}


class Command(msgspec.Struct, frozen=True):
    """What is started on one host for one stage. `env` holds what differs from the host's environment.

    With `ranks` the command is started once for each of them; else once. With `rank_logs` the command is a launcher
    that writes the lines of each rank into a file of that folder.
    """

    host: str
    argv: tuple[str, ...]
    cwd: str
    env: dict[str, EnvVar] = {}
    ranks: tuple[RankPart, ...] = ()
    rank_logs: str | None = None
    meets: bool = False  # with ranks on other hosts, at the plan's master address and port


class StagePlan(msgspec.Struct, frozen=True):
    """One stage: a command a host, started together, and what must be there afterwards."""

    name: str
    index: int  # 1-based
    folder: str  # "1-dbpedia", below each host's run_dir
    outputs: tuple[str, ...]
    commands: tuple[Command, ...]

    def command(self, host: str) -> Command:
        """The command of one host."""
        return next(command for command in self.commands if command.host == host)


class TreePlan(msgspec.Struct, frozen=True):
    """The job's data, model or mended config: a folder or file of this machine, and its place on each host without it.

    `same` says that it is the same absolute path everywhere; otherwise it lies in the work folder.
    """

    kind: Literal["data", "model", "deepspeed"]
    source: str
    file: bool
    same: bool
    places: dict[str, str]  # by host; on this machine it is used where it is


class SyncPlan(msgspec.Struct, frozen=True):
    """What is copied to every host that is not this machine: the code, and what of data and model the job names."""

    source: str
    exclude: tuple[str, ...]
    trees: tuple[TreePlan, ...] = ()


class MendedConfig(msgspec.Struct, frozen=True):
    """The copy of the job's DeepSpeed config that a run uses, because the original would stop it."""

    original: str
    path: str  # in the run's directory; written when the run is
    text: str
    changes: tuple[str, ...]  # what, and why


class LaunchPlan(msgspec.Struct, frozen=True):
    """Everything that `execute` does."""

    job: str
    run: str
    profile: str | None
    master_addr: str
    master_port: int
    world_size: int
    hosts: tuple[HostPlan, ...]
    stages: tuple[StagePlan, ...]
    sync: SyncPlan
    setup: tuple[str, ...] = ()
    summary: str | None = None
    settings: dict[str, Any] = {}  # the complete arguments by stage, before paths are put in: what a resume compares
    warnings: tuple[str, ...] = ()
    forecast: dict[str, Any] = {}
    mended_config: MendedConfig | None = None

    def host(self, name: str) -> HostPlan:
        """The plan of one host."""
        return next(host for host in self.hosts if host.name == name)

    def to_dict(self) -> dict[str, Any]:
        """The plan as the JSON contract has it (DESIGN §8)."""
        body: dict[str, Any] = {"schema": SCHEMA, "job": self.job, "run": self.run, "profile": self.profile}
        body["master"] = {"addr": self.master_addr, "port": self.master_port}
        body["world_size"] = self.world_size
        body["hosts"] = [_host_dict(host) for host in self.hosts]
        body["stages"] = [_stage_dict(stage) for stage in self.stages]
        body["sync"] = msgspec.to_builtins(self.sync)
        body["setup"] = list(self.setup)
        body["settings"] = self.settings
        body["summary"] = self.summary
        body["warnings"] = list(self.warnings)
        body["forecast"] = self.forecast
        if self.mended_config is not None:
            body["mended_config"] = msgspec.to_builtins(self.mended_config)
        return body


def _env_dict(env: dict[str, EnvVar]) -> dict[str, Any]:
    shown = {}
    for name, variable in env.items():
        body: dict[str, Any] = msgspec.to_builtins(variable)
        del body["name"]
        if "secret" in body:
            body["secret"] = True
        shown[name] = body
    return shown


def _host_dict(host: HostPlan) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(host, env={}))
    return {**body, "env": _env_dict(host.env)}


def _stage_dict(stage: StagePlan) -> dict[str, Any]:
    commands = [_command_dict(command) for command in stage.commands]
    return {
        "name": stage.name,
        "index": stage.index,
        "folder": stage.folder,
        "outputs": list(stage.outputs),
        "commands": commands,
    }


def _command_dict(command: Command) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(command, env={}))
    return {**body, "env": _env_dict(command.env)}
