"""What can befall a run in its second stage: each fault with what is done, and what a launcher should make of it.

`tests/cluster/test_fault_matrix.py` holds dsdoctor to it; `benchmarks/faults.py` puts DeepSpeed's launcher and torchrun
before the same faults.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.processes import HostProcess, ProcessInside

LIFELINE = 5.0  # seconds; what the trials set
REACHABLE = ("node0", "node1")


@dataclass(frozen=True)
class Scene:
    """A run that is under way: the cluster, and the launcher's process on the head."""

    cluster: LittleCluster
    launcher: HostProcess
    mark: str  # in the command line of every rank
    guards: tuple[str, ...]  # marks of what the launcher itself started on a host, the outermost first

    @property
    def node1(self) -> ClusterHost:
        """The host that faults befall: rank 2 runs there."""
        return self.cluster["node1"]

    def rank(self, host: ClusterHost) -> ProcessInside:
        """The last rank's own process on a host: the one that no other process with the mark has for a parent."""
        found = host.ps(self.mark)
        parents = {process.parent for process in found}
        return next(process for process in reversed(found) if process.pid not in parents)

    def guard(self, host: ClusterHost, depth: int = 0) -> ProcessInside:
        """What the launcher started on a host: the process nearest to sshd, or so many below it."""
        found = {process.pid: process for process in host.ps()}
        at = self.rank(host)
        line = [at]
        while (parent := found.get(at.parent)) is not None and "sshd" not in " ".join(parent.argv):
            line.append(at := parent)
        return [process for process in reversed(line) if any(mark in str(process) for mark in self.guards)][depth]


Deed = Callable[[Scene], None]


def nothing(scene: Scene) -> None:
    """Leave it."""


@dataclass(frozen=True)
class Fault:
    """One fault, and how a launch that meets it should end.

    `code` is the launcher's exit code (None: it cannot be told); `words` are in what it prints; `causes` are the root
    causes of which the verdict names one (empty: none is asked for); `lost` are hosts that cannot be reached by then.
    """

    name: str
    strike: Deed
    mend: Deed = nothing
    code: int | None = 1
    words: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    notice: float = 8.0  # seconds until the launcher says something of it, at most, on a machine that is busy too
    lost: tuple[str, ...] = ()


def _kill_rank(number: int) -> Deed:
    return lambda scene: scene.node1.kill(scene.rank(scene.node1).pid, number)


def _kill_guard(depth: int) -> Deed:
    return lambda scene: scene.node1.kill(scene.guard(scene.node1, depth).pid, signal.SIGKILL)


def _to_head(number: int) -> Deed:
    return lambda scene: scene.launcher.send_signal(number)


def _to_all_in_it(number: int) -> Deed:
    """To the launcher and whatever it started in its process group: what a terminal does."""
    return lambda scene: scene.launcher.signal_group(number)


def _touch(path: str) -> Deed:
    return lambda scene: _make(scene, path)


def _make(scene: Scene, path: str) -> None:
    """Make an empty file in one step: the rank may take it away at once."""
    scene.node1.run(["touch", path])


def _remove(path: str) -> Deed:
    return lambda scene: scene.node1.remove(path)


def _fork_and_kill(scene: Scene) -> None:
    """Let the rank start a process that leaves its session, then kill the rank."""
    victim = scene.rank(scene.node1)
    _make(scene, "/run/fork")
    scene.node1.wait_for_start("left-behind")
    scene.node1.kill(victim.pid, signal.SIGKILL)


def _fork_and_kill_guard(scene: Scene) -> None:
    victim = scene.guard(scene.node1, -1)
    _make(scene, "/run/fork")
    scene.node1.wait_for_start("left-behind")
    scene.node1.kill(victim.pid, signal.SIGKILL)


def _drop_session(scene: Scene) -> None:
    """Kill the daemon's process behind the connection that the run goes over."""
    for process in scene.node1.ps("sshd: "):
        if "listener" not in str(process):
            scene.node1.kill(process.pid, signal.SIGKILL)


def _cut(scene: Scene) -> None:
    scene.node1.cut()
    scene.cluster.head.forget_neighbours()


def _boot(scene: Scene) -> None:
    scene.node1.boot()
    scene.cluster.head.forget_neighbours()


SILENT = {"notice": LIFELINE + 8, "options": ("--lifeline", f"{LIFELINE:g}")}
KILLED, LOST = ("process-killed-externally",), ("host-lost",)

FAULTS = (
    Fault(
        "rank raises", _touch("/run/raise"), _remove("/run/raise"),
        words=("rank 2 on node1", "the label of row 17"), causes=("training-script-exception",),
    ),
    Fault(
        "rank killed", _kill_rank(signal.SIGKILL),
        words=("rank 2 on node1 was killed by SIGKILL",), causes=KILLED,
    ),
    Fault(
        "rank stopped", _kill_rank(signal.SIGSTOP), notice=20,
        options=("--stall-after", "8", "--stop-on-stall"), words=("no step", "node1"), causes=("run-stalled",),
    ),
    Fault("rank killed, its child lives on", _fork_and_kill, words=("rank 2 on node1",), causes=KILLED),
    Fault("guardian killed", _kill_guard(-1), words=("node1", "guardian"), causes=KILLED),
    Fault("guardian killed, a rank's child lives on", _fork_and_kill_guard, words=("node1", "guardian"), causes=KILLED),
    Fault("keeper killed", _kill_guard(0), words=("node1",), causes=KILLED),
    Fault("ssh daemon stopped", lambda scene: scene.node1.sshd_stop(), lambda scene: scene.node1.sshd_start(), code=0),
    Fault("ssh session dropped", _drop_session, words=("node1",), causes=LOST),
    Fault("head interrupted", _to_head(signal.SIGINT), code=130, words=("stopped on every host",)),
    Fault("head told to end", _to_head(signal.SIGTERM), code=130, words=("stopped on every host",)),
    Fault("head's terminal closed", _to_head(signal.SIGHUP), code=130, words=("stopped on every host",)),
    Fault("Ctrl-C in the terminal", _to_all_in_it(signal.SIGINT), code=130, words=("stopped on every host",)),
    Fault("terminal closed, all in it told", _to_all_in_it(signal.SIGHUP), code=130, words=("stopped on every host",)),
    Fault("head killed", _to_head(signal.SIGKILL), code=-9),
    Fault("cable cut", _cut, lambda scene: scene.node1.heal(), words=("node1", "sign of life"), causes=LOST, **SILENT),
    Fault(
        "host muted", lambda scene: scene.node1.mute(), lambda scene: scene.node1.heal(),
        words=("node1", "sign of life"), causes=LOST, **SILENT,
    ),
    Fault(
        "host frozen", lambda scene: scene.node1.freeze(), lambda scene: scene.node1.thaw(),
        words=("node1", "sign of life"), causes=LOST, lost=("node1",), **SILENT,
    ),
    Fault(
        "host powered off", lambda scene: scene.node1.poweroff(), _boot,
        words=("node1",), causes=LOST, lost=("node1",), **SILENT,
    ),
    Fault(
        "disk of a host full", lambda scene: scene.cluster["node0"].fill_disk(),
        lambda scene: scene.cluster["node0"].free_disk(), notice=10, words=("No space left",), causes=("disk-full",),
    ),
    Fault(
        "run directory's disk full", lambda scene: scene.cluster.head.fill_disk(),
        lambda scene: scene.cluster.head.free_disk(), code=None, notice=10, words=("No space left",),
    ),
)  # fmt: skip
