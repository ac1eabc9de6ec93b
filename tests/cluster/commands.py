"""dsdoctor as a user on the head runs it: a hostfile, a job of their own, the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.processes import HostProcess

TRIAL = Path(__file__).parent / "trial"
WORK = "/root/lab"
RANK_MARKS = ("trial", "continual.train", "torch.distributed.run", "guardian")


class Head:
    """The user's folder on the head: a hostfile over the cluster's hosts, and the trial job."""

    def __init__(self, cluster: LittleCluster, slots: dict[str, int] | None = None) -> None:
        self.cluster = cluster
        self.host = cluster.head
        slots = slots or {"node0": 2, "node1": 1}
        lines = [f"{name} slots={count} python={sys.executable}" for name, count in slots.items()]
        self.host.write(f"{WORK}/hostfile", "\n".join(lines) + "\n")
        for path in TRIAL.iterdir():
            if path.is_file():
                self.host.write(f"{WORK}/job/{path.name}", path.read_text(encoding="utf-8"))

    def dsdoctor(self, *words: str, timeout: float = 90, **env: str) -> subprocess.CompletedProcess[str]:
        """Run dsdoctor to its end; the exit code is the caller's to judge."""
        argv = [sys.executable, "-m", "dsdoctor", *words]
        return self.host.run(argv, cwd=WORK, check=False, timeout=timeout, env=env)

    def start(self, *words: str) -> HostProcess:
        """Start dsdoctor and leave it running."""
        return self.host.popen([sys.executable, "-m", "dsdoctor", *words], cwd=WORK)

    def report(self, *words: str) -> dict[str, Any]:
        """The JSON report of a command; its exit code is kept under `exit_code`."""
        done = self.dsdoctor(*words, "--format", "json")
        assert done.stdout.startswith("{"), done.stdout + done.stderr
        return {**json.loads(done.stdout), "exit_code": done.returncode}

    def state(self) -> dict[str, Any]:
        """The state of the newest run."""
        newest = self.host.run(["sh", "-c", f"ls -td {WORK}/runs/*/ | head -1"]).stdout.strip()
        return {**json.loads(self.host.read(f"{newest}state.json")), "path": newest.rstrip("/")}

    def ranks(self) -> list[tuple[str, str]]:
        """Every process of a run that is alive on any host: (host, process)."""
        return [
            (host.name, str(process)) for host in self.hosts_up() for process in host.ps() if _of_a_run(process.argv)
        ]

    def hosts_up(self) -> list[ClusterHost]:
        """The hosts that have power."""
        return [host for host in self.cluster.hosts if host.is_up]


def _of_a_run(argv: tuple[str, ...] | list[str]) -> bool:
    text = " ".join(argv)
    return any(mark in text for mark in RANK_MARKS)
