"""Trying a failed stage again: only where its verdict says that time, another port or a host's return may mend it.

Off unless `launch --retries N` asks for it. A cause that no rule knows is not tried again: it would fail the same way,
and hold the hosts for as long.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from dsdoctor.hosts.transport import Transport, TransportError
from dsdoctor.logs.rules import load_rules
from dsdoctor.plan.model import EnvVar, LaunchPlan
from dsdoctor.report.model import Report
from dsdoctor.run.directory import RunDirectory
from dsdoctor.run.events import Noted, Show
from dsdoctor.run.kept import load, save
from dsdoctor.run.on_host import HostAnswerError, ask
from dsdoctor.run.stage_end import StageEnd
from dsdoctor.yamlfile import FileError

PAUSES = (5.0, 15.0, 45.0, 120.0, 300.0)  # seconds before the first, second … attempt; the last for all further ones
RETURN_LIMIT = 900.0  # seconds for a lost host to come back
LOOK_EVERY = 5.0
SAID_NOTHING = ("none", "unknown")  # verdicts of a log that does not tell why
# What the loss of a host looks like from the others; it is the host's return that mends it.
EFFECTS_OF_A_LOSS = ("nccl-collective-timeout", "rank-exited-silently", "process-killed-externally")


@dataclass(frozen=True)
class Again:
    """Why a stage is tried again. `lost` are hosts that must be reached before."""

    because: str
    new_port: bool = False
    lost: tuple[str, ...] = ()


def worth_it(end: StageEnd, report: Report | None) -> Again | None:
    """Why another attempt may go well, from how the stage ended and what its log says; None when nothing says so."""
    if end.interrupted or end.stalled is not None:
        return None
    lost = tuple(name for name, host in end.hosts.items() if host.lost is not None)
    cause = report.verdict.cause if report is not None and report.verdict is not None else "unknown"
    if cause in SAID_NOTHING or cause in EFFECTS_OF_A_LOSS:
        return Again(_lost(lost), lost=lost) if lost else None
    rule = load_rules().rules.get(cause)
    retry = rule.retry if rule is not None else None
    if retry is None:
        return None
    if retry.when == "host-lost":
        return Again(f"{_lost(lost)}; {retry.because}", lost=lost) if lost else None
    return Again(f"{cause}: {retry.because}", retry.new_port, lost)


def _lost(hosts: tuple[str, ...]) -> str:
    return f"{', '.join(hosts)} {'was' if len(hosts) == 1 else 'were'} lost"


def prepare(
    again: Again,
    number: int,
    plan: LaunchPlan,
    transports: Mapping[str, Transport],
    show: Show,
    stop_asked: Callable[[], bool],
) -> LaunchPlan | str | None:
    """Wait as long as is due, and return the plan to go on with, or why there is no further attempt.

    `number` counts attempts from 1. None when it was asked meanwhile to stop; a KeyboardInterrupt goes through.
    """
    pause = PAUSES[min(number, len(PAUSES)) - 1]
    show(Noted(f"trying again in {pause:.0f} s ({number}): {again.because}"))
    if _asleep(pause, stop_asked):
        return None
    problem = _wait_for_hosts(plan, transports, show, stop_asked)
    if stop_asked():
        return None
    if problem is not None or not again.new_port:
        return problem if problem is not None else plan
    try:
        port = _free_port(plan, transports)
    except (TransportError, HostAnswerError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        return f"no other port could be had on {plan.hosts[0].name} ({error})"
    show(Noted(f"the ranks meet at port {port} instead of {plan.master_port}"))
    return with_port(plan, port)


def _asleep(seconds: float, stop_asked: Callable[[], bool]) -> bool:
    """Wait; True when it was asked meanwhile to stop."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if stop_asked():
            return True
        time.sleep(min(0.5, max(0.0, until - time.monotonic())))
    return stop_asked()


def _wait_for_hosts(
    plan: LaunchPlan, transports: Mapping[str, Transport], show: Show, stop_asked: Callable[[], bool]
) -> str | None:
    """Wait until every host answers again; why not, when they do not within RETURN_LIMIT."""
    until, told = time.monotonic() + RETURN_LIMIT, ""
    while True:
        away = [host.name for host in plan.hosts if not _answers(transports[host.name])]
        if not away:
            return None
        if time.monotonic() >= until:
            return f"{', '.join(away)} did not come back within {RETURN_LIMIT:.0f} s"
        if told != ",".join(away):
            told = ",".join(away)
            show(Noted(f"waiting for {', '.join(away)} to be reached again, {RETURN_LIMIT:.0f} s at most"))
        if _asleep(LOOK_EVERY, stop_asked):
            return "told to stop"


def _answers(transport: Transport) -> bool:
    try:
        return transport.run(["true"], timeout=15).returncode == 0
    except (TransportError, OSError, subprocess.TimeoutExpired):
        return False


def free_port(order: dict[str, Any]) -> int:
    """A port of this host that nobody holds. Runs on the host (see on_host)."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def _free_port(plan: LaunchPlan, transports: Mapping[str, Transport]) -> int:
    host = plan.hosts[0]
    return int(ask(transports[host.name], host.python, free_port, {}, plan.setup))


def with_port(plan: LaunchPlan, port: int) -> LaunchPlan:
    """The plan with its ranks meeting at another port, in every command line and variable that names the one it had."""
    old = str(plan.master_port)
    number = re.compile(rf"(?<!\d){old}(?!\d)")
    named = re.compile(rf"(?i)(?:port|endpoint)\S*[=:](?:\S*:)?{old}$|^\S+:{old}$")

    def words(argv: tuple[str, ...]) -> tuple[str, ...]:
        """A number is the port behind a flag that says port or endpoint, or behind an address."""
        changed = []
        for before, word in zip(("", *argv), argv, strict=False):
            flag = re.search(r"(?i)^-.*(?:port|endpoint)$", before) is not None
            is_port = (flag and (word == old or word.endswith(f":{old}"))) or named.search(word) is not None
            changed.append(number.sub(str(port), word) if is_port else word)
        return tuple(changed)

    def variables(env: dict[str, EnvVar]) -> dict[str, EnvVar]:
        found = env.get("MASTER_PORT")
        if found is None or found.value != old:
            return env
        because = f"{old} was taken when the stage was tried before"
        return {**env, "MASTER_PORT": msgspec.structs.replace(found, value=str(port), because=because)}

    def texts(env: dict[str, str]) -> dict[str, str]:
        return {**env, "MASTER_PORT": str(port)} if env.get("MASTER_PORT") == old else env

    stages = tuple(
        msgspec.structs.replace(
            stage,
            commands=tuple(
                msgspec.structs.replace(
                    command,
                    argv=words(command.argv),
                    env=variables(command.env),
                    ranks=tuple(msgspec.structs.replace(part, env=texts(part.env)) for part in command.ranks),
                )
                for command in stage.commands
            ),
        )
        for stage in plan.stages
    )
    hosts = tuple(msgspec.structs.replace(host, env=variables(host.env)) for host in plan.hosts)
    return msgspec.structs.replace(plan, master_port=port, hosts=hosts, stages=stages)


def write_plan(directory: RunDirectory, plan: LaunchPlan) -> None:
    """Put the plan that is carried out from now on in the place of the one before. Raises FileError."""
    directory.write_json("plan.json", plan.to_dict())
    try:
        kept = load(directory)
    except FileError:
        return  # nothing was kept to come back with
    save(directory, plan, kept.way, kept.limits)
