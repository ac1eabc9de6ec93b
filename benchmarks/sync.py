"""2,000 files (50 MB) to 8 hosts: dsdoctor's sync beside eight bare `rsync -a` at once, first copy and no change.

The hosts are the little cluster's, so all of them share this machine's cores; needs root. What is timed runs on the
cluster's head, in turn (A B C A B C …). `DSDOCTOR_BENCH_HOSTS` and `DSDOCTOR_BENCH_PAIRS` take other numbers.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.machine import HostSpec
from tests.cluster.prerequisites import missing_for_cluster

REPOSITORY = Path(__file__).resolve().parents[1]
FILES, FOLDERS, SIZE = 2000, 50, 25_000
BARE, KEPT, COLD, COMMAND = (
    "eight bare rsyncs at once",
    "sync(), connections kept from the check",
    "sync(), connecting itself",
    "dsdoctor sync, the whole command with its look at the hosts",
)
MAKE = """
import os
for number in range({files}):
    folder = f"/root/lab/code/p{{number % {folders}}}"
    os.makedirs(folder, exist_ok=True)
    with open(f"{{folder}}/f{{number}}.py", "wb") as file:
        file.write(os.urandom({size}))
"""


def main() -> str:
    """The table."""
    missing = missing_for_cluster()
    if missing:
        return f"left out: {missing}"
    count, pairs = int(os.environ.get("DSDOCTOR_BENCH_HOSTS", "8")), int(os.environ.get("DSDOCTOR_BENCH_PAIRS", "5"))
    specs = [HostSpec(f"node{number}", nic="eth0") for number in range(count)]
    seconds: dict[tuple[str, str], list[float]] = {}
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
                    seconds.setdefault((way, state), []).append(_once(cluster.head, way, names))
    return _table({key: taken[1:] for key, taken in seconds.items()}, count, load)


def _once(head: ClusterHost, way: str, names: list[str]) -> float:
    if way == COMMAND:
        argv = [sys.executable, "-m", "dsdoctor", "sync", "job.yaml", "--hostfile", "hostfile"]
        began = time.perf_counter()
        head.run(argv, cwd="/root/lab", timeout=120)
        return time.perf_counter() - began
    order = json.dumps({"way": way, "names": names})
    code = "import sys; from benchmarks.sync import timed; timed(sys.argv[1])"
    done = head.run([sys.executable, "-c", code, order], cwd=str(REPOSITORY), timeout=120)
    return float(done.stdout.strip().splitlines()[-1])


def timed(text: str) -> None:
    """On the head: do it once, print the seconds."""
    order = json.loads(text)
    print(_bare(order["names"]) if order["way"] == BARE else _sync(order["names"], order["way"] == KEPT))


def _bare(names: list[str]) -> float:
    import subprocess

    began = time.perf_counter()
    running = [subprocess.Popen(["rsync", "-a", "/root/lab/code/", f"{name}:/root/bare/"]) for name in names]
    codes = [process.wait() for process in running]
    if any(codes):
        raise RuntimeError("a bare rsync failed")
    return time.perf_counter() - began


def _sync(names: list[str], kept: bool) -> float:
    from dsdoctor.cluster import HostEntry
    from dsdoctor.hosts.gather import MANY
    from dsdoctor.hosts.transport import connect
    from dsdoctor.plan.build import NEVER_COPIED
    from dsdoctor.plan.model import HostPlan, LaunchPlan, SyncPlan
    from dsdoctor.run.sync import sync

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
        began = time.perf_counter()
        sync(plan, ways, directory=Path("/root/lab/run"))
        return time.perf_counter() - began
    finally:
        for way in ways.values():
            way.close()


def _table(seconds: dict[tuple[str, str], list[float]], count: int, load: float) -> str:
    lines = [
        f"{count} hosts, load before it {load:.1f}, after it {os.getloadavg()[0]:.1f}",
        "",
        "| | first copy s | fastest | × bare | no change s | fastest | × bare |",
        "|---|---|---|---|---|---|---|",
    ]
    for way in (BARE, KEPT, COLD, COMMAND):
        cells = []
        for state in ("first", "no change"):
            taken = seconds[way, state]
            ratio = statistics.median(one / bare for one, bare in zip(taken, seconds[BARE, state], strict=True))
            cells += [f"{statistics.median(taken):.2f}", f"{min(taken):.2f}", f"{ratio:.2f}"]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)
