"""The fault matrix: whatever befalls a run is noticed, told, ended on every host, and mended by the next launch."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.commands import WORK, Head
from tests.cluster.faults import FAULTS, LIFELINE, REACHABLE, Fault, Scene
from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.processes import HostProcess

pytestmark = [pytest.mark.slow, pytest.mark.train, pytest.mark.timeout(900)]
LAUNCH = ("launch", "job/steps.yaml", "--hostfile", "hostfile")
GONE = 15.0  # seconds from the notice until no process of the run is left on a host that can be reached
USUAL = 25.0  # seconds that the undisturbed run takes on two cores that nobody else uses, with room
PATIENCE = 300.0
STRANGER = ("-c", "import time; time.sleep(900)", "torch.distributed.run", "steps", "--stage", "of another user")


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing befell: its result, and how many times slower than usual the machine was."""

    result: str
    slowness: float


@pytest.fixture(scope="module")
def undisturbed(two_hosts: LittleCluster) -> Iterator[Undisturbed]:
    """The result of a run that nothing befell."""
    try:
        head, began = Head(two_hosts), time.monotonic()
        done = head.dsdoctor(*LAUNCH, timeout=PATIENCE)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Undisturbed(result(head), max(1.0, (time.monotonic() - began) / USUAL))
    finally:
        two_hosts.reset()


@pytest.fixture
def head(restored: LittleCluster) -> Head:
    return Head(restored)


def result(head: Head) -> str:
    """The weights after the last stage."""
    return head.host.read(f"{head.state()['path']}/outputs/3-third/weights.json")


class Trial:
    """A launch on the way, what it prints in a file, and which processes the hosts had before it."""

    def __init__(self, head: Head, *options: str) -> None:
        self.head = head
        self.strangers = [host.popen([sys.executable, *STRANGER]) for host in head.cluster.hosts]
        for host in head.cluster.hosts:
            host.wait_for_start("of another user")
        self.before = {host.name: {process.pid for process in host.ps()} for host in head.cluster.hosts}
        self.said = tempfile.NamedTemporaryFile(mode="w+", suffix=".out")  # noqa: SIM115 - closed by the test's end
        argv = [sys.executable, "-m", "dsdoctor", *LAUNCH, *options]
        self.running: HostProcess = head.host.popen(argv, cwd=WORK, stdout=self.said.fileno())
        self.scene = Scene(
            head.cluster, self.running, "--stage second", ("exec(compile(",)
        )  # what hosts/sent.py starts

    def text(self) -> str:
        """What the launcher has printed so far."""
        return Path(self.said.name).read_text(encoding="utf-8", errors="replace")

    def wait_for_step(self, stage: str, step: int, timeout: float = PATIENCE) -> None:
        """Wait until a stage has come to a step."""
        wanted = f"'step': {step}}} stage {stage}"
        deadline = time.monotonic() + timeout
        while wanted not in self.text():
            assert self.running.poll() is None and time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def left(self, host: ClusterHost) -> list[str]:
        """The processes of a host that were not there before and are neither its ssh daemon's nor dying."""
        if not host.is_up:
            return []
        known = self.before[host.name]
        return [
            f"{host.name}: {process}"
            for process in host.ps()
            if process.pid not in known and process.argv and "sshd" not in process.argv[0]
        ]

    def noticed(self, fault: Fault, since: int) -> bool:
        """Whether the launcher has ended, or said anything of the fault beyond the ranks' own lines."""
        said = self.text()[since:]
        return self.running.poll() is not None or any(word in said for word in fault.words)

    def strangers_live(self) -> bool:
        """Whether another user's processes of the same look still run wherever there is power."""
        return all(host.ps("of another user") for host in self.head.cluster.hosts if host.is_up)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_noticed_ended_everywhere_and_mended_by_the_next_launch(
    fault: Fault, undisturbed: Undisturbed, head: Head
) -> None:
    notice, gone_within = fault.notice * undisturbed.slowness, GONE * undisturbed.slowness
    trial = Trial(head, *fault.options)
    trial.wait_for_step("second", 3)
    since, struck = len(trial.text()), time.monotonic()
    fault.strike(trial.scene)
    while not trial.noticed(fault, since):
        assert time.monotonic() - struck < notice + 10, trial.text()
        time.sleep(0.05)
    noticed = time.monotonic() - struck
    if fault.code == 0:
        assert trial.running.wait(timeout=PATIENCE) == 0, trial.text()
        assert result(head) == undisturbed.result
        return
    near = [head.cluster[name] for name in REACHABLE if name not in fault.lost]
    while left := [process for host in near for process in trial.left(host)]:
        assert time.monotonic() - struck < noticed + gone_within, (left, trial.text())
        time.sleep(0.1)
    code = trial.running.wait(timeout=PATIENCE)
    said = trial.text()
    assert fault.code in (None, code), said
    assert noticed <= notice, said
    for word in fault.words:
        assert word in said
    assert trial.strangers_live(), "another user's processes are none of ours"
    if fault.causes:
        verdict = json.loads(head.host.read(f"{head.state()['path']}/verdict.json"))["verdict"]
        assert verdict["cause"] in fault.causes, verdict
    fault.mend(trial.scene)
    if fault.lost:  # a host that comes back finds that its own guardian has stopped the job
        deadline = time.monotonic() + LIFELINE + gone_within
        while left := trial.left(trial.scene.node1):
            assert time.monotonic() < deadline, left
            time.sleep(0.1)
    again = head.dsdoctor(*LAUNCH, timeout=PATIENCE)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "first: done before" in again.stderr
    assert result(head) == undisturbed.result


def test_a_second_launch_of_the_run_is_refused_and_costs_it_nothing(undisturbed: Undisturbed, head: Head) -> None:
    trial = Trial(head)
    trial.wait_for_step("second", 3)
    second = head.dsdoctor(*LAUNCH)
    assert second.returncode == 2, second.stdout + second.stderr
    assert "is being carried out" in second.stderr
    assert trial.running.wait(timeout=PATIENCE) == 0, trial.text()
    assert result(head) == undisturbed.result
    assert trial.strangers_live()
