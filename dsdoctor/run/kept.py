"""What a run keeps so that any later shell can come back to its hosts: the whole plan, and the way. No secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from dsdoctor.cluster import HostEntry
from dsdoctor.hosts.transport import Transport, TransportKind, connect
from dsdoctor.plan.model import EnvVar, LaunchPlan, StagePlan
from dsdoctor.run.directory import RunDirectory
from dsdoctor.run.stage_end import Limits
from dsdoctor.yamlfile import FileError

NAME = "run.json"

Env = dict[str, EnvVar]
Secrets = Mapping[str, Mapping[str, str]]  # by host, then by variable


class Way(msgspec.Struct, frozen=True):
    """How the hosts are reached; `config_file` is an absolute path, as for `ssh -F`."""

    transport: TransportKind = "auto"
    config_file: str | None = None
    connect_timeout: float = 10.0


class Kept(msgspec.Struct, frozen=True):
    """A run's plan, the way to its hosts, and its limits. Values of secret variables are left out of the plan."""

    plan: LaunchPlan
    way: Way = Way()
    limits: Limits = Limits()
    schema: str = "dsdoctor.launch/1"


def save(run: RunDirectory, plan: LaunchPlan, way: Way, limits: Limits) -> None:
    """Keep what is needed to come back. Raises FileError."""
    bare = with_secrets(plan, {})
    run.write_json(NAME, msgspec.to_builtins(Kept(bare, way, limits)))


def load(run: RunDirectory) -> Kept:
    """What a run has kept. Raises FileError."""
    path = run.path / NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Kept)
    except FileNotFoundError:
        raise FileError(path, "is not there: its launch ended before anything began; launch again") from None
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None
    except msgspec.DecodeError as error:
        raise FileError(path, f"written by another dsdoctor: {error}") from None


def way_of(transport: TransportKind) -> Way:
    """The way that this process reaches hosts by."""
    config = os.environ.get("DSDOCTOR_SSH_CONFIG")
    return Way(transport, str(Path(config).expanduser().absolute()) if config else None)


def lines_to(kept: Kept) -> dict[str, Transport]:
    """A transport to every host; nothing is opened before the first command."""
    way, found = kept.way, {}
    for host in kept.plan.hosts:
        entry = HostEntry(host.name, host.slots, user=host.user, port=host.port, python=host.python, local=host.local)
        found[host.name] = connect(entry, way.transport, timeout=way.connect_timeout, config_file=way.config_file)
    return found


def secrets_of(plan: LaunchPlan) -> dict[str, dict[str, str]]:
    """The secret values that a plan hands over, by host and variable."""
    found: dict[str, dict[str, str]] = {}
    for host, env in _environments(plan):
        for name, variable in env.items():
            if variable.secret and variable.sent:
                found.setdefault(host, {})[name] = variable.secret
    return found


def with_secrets(plan: LaunchPlan, secrets: Secrets) -> LaunchPlan:
    """The plan with these values of its secret variables, and with none that are not among them."""

    def filled(host: str, env: Env) -> Env:
        values = secrets.get(host, {})
        return {
            name: variable
            if variable.secret is None
            else msgspec.structs.replace(variable, secret=values.get(name, ""))
            for name, variable in env.items()
        }

    hosts = tuple(msgspec.structs.replace(host, env=filled(host.name, host.env)) for host in plan.hosts)
    stages = tuple(
        msgspec.structs.replace(
            stage,
            commands=tuple(
                msgspec.structs.replace(command, env=filled(command.host, command.env)) for command in stage.commands
            ),
        )
        for stage in plan.stages
    )
    return msgspec.structs.replace(plan, hosts=hosts, stages=stages)


def secrets_wanted(plan: LaunchPlan, stage: StagePlan | None = None) -> dict[str, str]:
    """The secret variables without a value here that a stage (or any) hands over, and where they came from."""
    return {
        name: variable.because
        for _, env in _environments(plan, stage)
        for name, variable in env.items()
        if variable.secret == "" and variable.sent
    }


def secrets_gone(stage: str, wanted: Mapping[str, str], run: str) -> str:
    """What to do about secrets that a later head needs: they are kept nowhere, and must be given again."""
    names = "; ".join(f"{name} (came from {because})" for name, because in wanted.items())
    return (
        f"stage {stage} was not started: it needs secret variables whose values are kept nowhere and went with "
        f"the head of the run: {names}. Set them in this shell and give dsdoctor attach {run} again"
    )


def _environments(plan: LaunchPlan, stage: StagePlan | None = None) -> Iterator[tuple[str, Env]]:
    yield from ((host.name, host.env) for host in plan.hosts)
    for each in plan.stages if stage is None else (stage,):
        yield from ((command.host, command.env) for command in each.commands)
