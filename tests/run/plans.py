"""Plans whose hosts are all this machine and whose programs are a few lines of shell: a run without torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from dsdoctor.cluster import HostEntry
from dsdoctor.hosts.transport.local import LocalTransport
from dsdoctor.plan.model import Command, EnvVar, HostPlan, LaunchPlan, StagePlan, SyncPlan
from dsdoctor.run.directory import RunDirectory, RunState, StageState, new_run
from dsdoctor.run.events import Event

Scripts = Mapping[str, Mapping[str, str]]  # stage -> host -> shell


def plan_of(scripts: Scripts, directory: Path, outputs: tuple[str, ...] = (), **env: str) -> LaunchPlan:
    """A plan that runs these scripts with bash, each in the run's directory of its host."""
    names = list(next(iter(scripts.values())))
    hosts = tuple(
        HostPlan(
            name=name,
            slots=1,
            node_rank=number,
            first_rank=number,
            python=sys.executable,
            code_dir=str(directory),
            run_dir=str(directory / name),
            local=True,
            env={key: EnvVar(key, value, "for the test") for key, value in env.items()},
        )
        for number, name in enumerate(names)
    )
    stages = tuple(
        StagePlan(
            name=stage,
            index=index,
            folder=f"{index}-{stage}",
            outputs=outputs,
            commands=tuple(Command(name, ("bash", "-c", by_host[name]), str(directory)) for name in names),
        )
        for index, (stage, by_host) in enumerate(scripts.items(), 1)
    )
    return LaunchPlan(
        job="demo",
        run=directory.name,
        profile=None,
        master_addr="127.0.0.1",
        master_port=29500,
        world_size=len(hosts),
        hosts=hosts,
        stages=stages,
        sync=SyncPlan(str(directory), ()),
    )


def directory_for(scripts: Scripts, base: Path) -> RunDirectory:
    """A run's directory with its first state."""
    run = new_run(base / "demo-1")
    stages = tuple(StageState(stage, f"{index}-{stage}") for index, stage in enumerate(scripts, 1))
    run.save_state(RunState(run.name, "demo", "print", "planned", stages))
    return run


def transports_of(plan: LaunchPlan) -> dict[str, LocalTransport]:
    """This machine under each host's name."""
    return {host.name: LocalTransport(HostEntry(host.name, 1, local=True)) for host in plan.hosts}


class Seen:
    """A `show` that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Event]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]
