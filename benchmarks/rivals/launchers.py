"""Three ways to start one training on the little cluster: `dsdoctor launch`, `deepspeed`, and torchrun over ssh.

The same script, hosts and slots for all, each launcher with its own defaults, the code on every host beforehand for
those that do not copy it.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.commands import TRIAL
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.processes import HostProcess

REPOSITORY = Path(__file__).resolve().parents[2]
LAB = "/root/lab"
CODE = f"{LAB}/job"
SLOTS = {"node0": 2, "node1": 1}
BIN = Path(sys.executable).parent
TORCHRUN_PORT = 29500

JOB = """
name: steps
module: steps
args: {{output_dir: "${{output_dir}}", stage: second, steps: {steps}, pause: {pause}}}
stages: [{{name: second, outputs: [weights.json]}}]
"""


@dataclass(frozen=True)
class Launcher:
    """One way to start it. `guards` are marks of what it starts on a host, the outermost first."""

    name: str
    guards: tuple[str, ...]
    defaults: str  # what it waits for by default when the other side is silent


DSDOCTOR = Launcher(
    "dsdoctor launch",
    ("exec(compile(",),  # what hosts/sent.py starts
    "lifeline 20 s; a free port; what one host's ranks are is told by its own guardian",
)
DEEPSPEED = Launcher(
    "deepspeed",
    ("deepspeed.launcher.launch",),
    "launcher pdsh, `pdsh -S -f 1024`, master_addr by `hostname -I`, master_port 29500",
)
TORCHRUN = Launcher(
    "torchrun over ssh",
    ("bin/torchrun",),
    f"static rendezvous, --master_addr node0 --master_port {TORCHRUN_PORT}, one ssh a host from a bash script that "
    "waits for both and keeps the last exit code that is not 0",
)
LAUNCHERS = (DSDOCTOR, DEEPSPEED, TORCHRUN)


def prepare(cluster: LittleCluster, steps: int, pause: float) -> None:
    """Write the hostfiles, the job and the script; the script on every host, as if copied by hand."""
    head, script = cluster.head, (TRIAL / "steps.py").read_text(encoding="utf-8")
    head.write(f"{LAB}/hostfile", "".join(f"{name} slots={count}\n" for name, count in SLOTS.items()))
    lines = [f"{name} slots={count} python={sys.executable}" for name, count in SLOTS.items()]
    head.write(f"{LAB}/hosts", "\n".join(lines) + "\n")
    head.write(f"{CODE}/steps.yaml", JOB.format(steps=steps, pause=pause))
    for host in (head, *cluster.hosts):
        host.write(f"{CODE}/steps.py", script)
    head.write(f"{LAB}/by_hand.sh", _by_hand(_script(steps, pause)))


def start(launcher: Launcher, cluster: LittleCluster, steps: int, pause: float, *, options: Sequence[str] = (),
          stdout: int = -1, env: Mapping[str, str] | None = None) -> HostProcess:  # fmt: skip
    """Start it on the head. `options` are dsdoctor's own."""
    if launcher is DSDOCTOR:
        argv = [sys.executable, "-m", "dsdoctor", "launch", "job/steps.yaml", "--hostfile", "hosts", *options]
        return cluster.head.popen(argv, cwd=LAB, stdout=stdout, env={"PYTHONPATH": str(REPOSITORY), **(env or {})})
    if launcher is DEEPSPEED:
        argv = [str(BIN / "deepspeed"), "--hostfile", f"{LAB}/hostfile", "--no_local_rank", *_script(steps, pause)]
        return cluster.head.popen(argv, cwd=CODE, stdout=stdout, env=env)
    return cluster.head.popen(["bash", f"{LAB}/by_hand.sh"], cwd=LAB, stdout=stdout, env=env)


def _script(steps: int, pause: float) -> list[str]:
    """The training's own words."""
    words = ["--output_dir", f"{LAB}/out", "--stage", "second", "--steps", str(steps), "--pause", str(pause)]
    return ["steps.py", *words]


def _by_hand(script: Sequence[str]) -> str:
    """The shell script that somebody writes who starts torchrun on two hosts."""
    lines = ["#!/bin/bash", "waiting="]
    for rank, (name, count) in enumerate(SLOTS.items()):
        words = [str(BIN / "torchrun"), f"--nnodes={len(SLOTS)}", f"--nproc_per_node={count}", f"--node_rank={rank}"]
        words += ["--master_addr=node0", f"--master_port={TORCHRUN_PORT}", *script]
        lines += [f"ssh {name} {shlex.quote(f'cd {CODE} && {shlex.join(words)}')} &", 'waiting="$waiting $!"']
    return "\n".join([*lines, "code=0", "for each in $waiting; do wait $each || code=$?; done", "exit $code", ""])
