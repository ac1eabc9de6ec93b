"""2,000 files (50 MB) to 8 hosts: dsdoctor's sync beside eight bare `rsync -a` at once, first copy and no change.

The hosts are the little cluster's, so all of them share this machine's cores; needs root. What is timed runs on the
cluster's head, in turn (A B C A B C …). CPU seconds are those of all hosts and the head together, ssh's included, by
the kernel's account of their control groups. `DSDOCTOR_BENCH_HOSTS` and `DSDOCTOR_BENCH_PAIRS` take other numbers.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.little_cluster import LittleCluster
from tests.cluster.machine import HostSpec
from tests.cluster.prerequisites import missing_for_cluster
from tests.cluster.processes import HostProcess

REPOSITORY = Path(__file__).resolve().parents[1]
FILES, FOLDERS, SIZE = 2000, 50, 25_000
BARE, KEPT, COLD, COMMAND = (
    "eight bare rsyncs at once",
    "sync(), connections kept from the check",
    "sync(), connecting itself",
    "dsdoctor sync, the whole command",
)
MAKE = """
import os
for number in range({files}):
    folder = f"/root/lab/code/p{{number % {folders}}}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{{folder}}/f{{number}}.py", "wb") as file:
        file.write(os.urandom({size}))
"""


@dataclass(frozen=True)
class Cost:
    """What one copy to all hosts took, in seconds."""

    wall: float
    cpu: float


def main() -> str:
    """The table."""
    missing = missing_for_cluster()
    if missing:
        return f"left out: {missing}"
    count, pairs = int(os.environ.get("DSDOCTOR_BENCH_HOSTS", "8")), int(os.environ.get("DSDOCTOR_BENCH_PAIRS", "5"))
    specs = [HostSpec(f"node{number}", nic="eth0") for number in range(count)]
    costs: dict[tuple[str, str], list[Cost]] = {}
    load = os.getloadavg()[0]
    with LittleCluster(specs) as cluster:
        cluster.head.python(MAKE.format(files=FILES, folders=FOLDERS, size=SIZE))
        cluster.head.write("/root/lab/job.yaml", "name: bench\nmodule: x\nstages: [{name: s}]\nsync: {code: code}\n")
        names = [host.name for host in cluster.hosts]
        lines = [f"{name} slots=1 python={sys.executable}" for name in names]
        cluster.head.write("/root/lab/hostfile", "\n".join(lines) + "\n")
        for _ in range(pairs + 1):
            for host in cluster.hosts:
                host.run(["rm", "-rf", "/root/bare", "/root/kept", "/root/cold", "/root/.dsdoctor"])
            for state in ("first", "no change"):
                for way in (BARE, KEPT, COLD, COMMAND):
                    costs.setdefault((way, state), []).append(_once(cluster, way, names))
    return _table({key: taken[1:] for key, taken in costs.items()}, count, load)


def _once(cluster: LittleCluster, way: str, names: list[str]) -> Cost:
    """Start what is timed, let it get ready, and time it from the word it is given to its end."""
    code = "import sys; from benchmarks.sync import timed; timed(sys.argv[1])"
    argv = [sys.executable, "-c", code, json.dumps({"way": way, "names": names})]
    if way == COMMAND:
        argv = [
            "sh",
            "-c",
            'echo ready; read -r _; "$@" >&2; echo done',
            "sh",
            sys.executable,
            "-m",
            "dsdoctor",
            "sync",
        ]
        argv += ["job.yaml", "--hostfile", "hostfile"]
    process = cluster.head.popen(
        argv,
        cwd="/root/lab",
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    _expect(process, "ready")
    cpu, began = _cpu(cluster), time.perf_counter()
    process.stdin.write("go\n")
    process.stdin.flush()
    _expect(process, "done")
    cost = Cost(time.perf_counter() - began, _cpu(cluster) - cpu)
    process.end()
    return cost


def _expect(process: HostProcess, word: str) -> None:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if line != word:
        raise RuntimeError(f"{line!r} instead of {word!r} from {process.argv_inside}")


def _cpu(cluster: LittleCluster) -> float:
    """The CPU seconds that the whole cluster has used."""
    text = (cluster.head.machine.group.parent / "cpu.stat").read_text(encoding="ascii")
    return int(text.split("usage_usec ")[1].split()[0]) / 1e6


def timed(text: str) -> None:
    """On the head: get ready, say so, wait for a word, do it once."""
    order = json.loads(text)
    if order["way"] == BARE:
        _at_the_word(lambda: _bare(order["names"]))
    else:
        _sync(order["names"], order["way"] == KEPT)


def _at_the_word(act: Callable[[], object]) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    act()
    print("done", flush=True)


def _bare(names: list[str]) -> None:
    running = [subprocess.Popen(["rsync", "-a", "/root/lab/code/", f"{name}:/root/bare/"]) for name in names]
    codes = [process.wait() for process in running]
    if any(codes):
        raise RuntimeError("a bare rsync failed")


def _sync(names: list[str], kept: bool) -> None:
    from dsdoctor.cluster import HostEntry
    from dsdoctor.hosts.gather import MANY
    from dsdoctor.hosts.transport import connect
    from dsdoctor.plan.copies import NEVER_COPIED
    from dsdoctor.plan.model import HostPlan, LaunchPlan, SyncPlan
    from dsdoctor.run.sync.carry_out import sync

    work = "/root/kept" if kept else "/root/cold"
    hosts = tuple(
        HostPlan(name, 1, number, number, sys.executable, f"{work}/code", f"{work}/runs/1", False, {})
        for number, name in enumerate(names)
    )
    several: tuple[Any, ...] = ("bench", "1", None, "", 0, len(hosts), hosts, ())
    plan = LaunchPlan(*several, sync=SyncPlan("/root/lab/code", NEVER_COPIED))
    ways = {name: connect(HostEntry(name, 1), one_of_many=len(names) >= MANY) for name in names}  # as a launch has them
    try:
        for way in ways.values() if kept else ():
            way.run(["true"])
        _at_the_word(lambda: sync(plan, ways, directory=Path("/root/lab/run")))
    finally:
        for way in ways.values():
            way.close()


def _table(costs: dict[tuple[str, str], list[Cost]], count: int, load: float) -> str:
    lines = [
        f"{count} hosts, load before it {load:.1f}, after it {os.getloadavg()[0]:.1f}",
        "",
        "| | first copy s | × bare | CPU s | × bare | no change s | × bare | CPU s | × bare |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for way in (BARE, KEPT, COLD, COMMAND):
        cells = []
        for state in ("first", "no change"):
            taken, bare = costs[way, state], costs[BARE, state]
            for of in (lambda cost: cost.wall, lambda cost: cost.cpu):
                ratio = statistics.median(of(one) / of(other) for one, other in zip(taken, bare, strict=True))
                cells += [f"{statistics.median(map(of, taken)):.2f}", f"{ratio:.2f}"]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)
