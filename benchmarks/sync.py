"""2,000 files (50 MB) to 8 hosts: `dsdoctor sync` beside eight bare `rsync -a` at once, first copy and no change.

The rival is what somebody would write: `for host in ...; do rsync -a code/ $host:code/ & done; wait`, each with a login
of its own, nothing looked at before and nothing verified after. The hosts are the little cluster's, so all of them
share this machine's cores; needs root. What is timed runs on the cluster's head, in turn (A B A B ...), after a round
that does not count; a ratio is the median of the rounds', with the least and the greatest behind it. CPU seconds are
those of all hosts and the head together, ssh's included, by the kernel's account of their control groups.
`DSDOCTOR_BENCH_HOSTS`, `DSDOCTOR_BENCH_ROUNDS` take other numbers; with `DSDOCTOR_BENCH_ALL=1` the copy of a launch,
which has its connections from the check, is measured, too.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.little_cluster import LittleCluster
from tests.cluster.machine import HostSpec
from tests.cluster.prerequisites import missing_for_cluster
from tests.cluster.processes import HostProcess

REPOSITORY = Path(__file__).resolve().parents[1]
FILES, FOLDERS, SIZE = 2000, 50, 25_000
BARE, COMMAND, KEPT = (
    "eight bare rsyncs at once",
    "`dsdoctor sync`",
    "a launch's sync, connections kept from its check",
)
FIRST, AGAIN = "first copy", "no change"
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
    count, rounds = int(os.environ.get("DSDOCTOR_BENCH_HOSTS", "8")), int(os.environ.get("DSDOCTOR_BENCH_ROUNDS", "5"))
    ways = (BARE, COMMAND, KEPT) if os.environ.get("DSDOCTOR_BENCH_ALL") else (BARE, COMMAND)
    specs = [HostSpec(f"node{number}", nic="eth0") for number in range(count)]
    costs: dict[tuple[str, str], list[Cost]] = {}
    load = os.getloadavg()[0]
    with LittleCluster(specs) as cluster:
        cluster.head.python(MAKE.format(files=FILES, folders=FOLDERS, size=SIZE))
        cluster.head.write("/root/lab/job.yaml", "name: bench\nmodule: x\nstages: [{name: s}]\nsync: {code: code}\n")
        names = [host.name for host in cluster.hosts]
        lines = [f"{name} slots=1 python={sys.executable}" for name in names]
        cluster.head.write("/root/lab/hostfile", "\n".join(lines) + "\n")
        for number in range(rounds + 1):
            for host in cluster.hosts:
                host.run(["rm", "-rf", "/root/bare", "/root/kept", "/root/.dsdoctor"])
            for state in (FIRST, AGAIN, AGAIN):  # the short one twice: it spreads more
                for way in ways if number % 2 else ways[::-1]:
                    taken = _once(cluster, way, names, state)
                    if number:
                        costs.setdefault((way, state), []).append(taken)
    return _table(costs, ways, count, load)


def _once(cluster: LittleCluster, way: str, names: list[str], state: str) -> Cost:
    """Start what is timed, let it get ready, and time it from the word it is given to its end."""
    code = "import sys; from benchmarks.sync import timed; timed(sys.argv[1])"
    argv = [sys.executable, "-c", code, json.dumps({"way": way, "names": names})]
    if way == COMMAND:
        words = [sys.executable, "-m", "dsdoctor", "sync", "job.yaml", "--hostfile", "hostfile"]
        argv = ["sh", "-c", 'echo ready; read -r _; "$@" 2>/dev/null; echo done', "sh", *words]
    process = cluster.head.popen(
        argv,
        cwd="/root/lab",
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={"PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdin is not None
    _expect(process, "ready")
    cpu, began = _cpu(cluster), time.perf_counter()
    process.stdin.write("go\n")
    process.stdin.flush()
    for name in names if way == COMMAND else ():
        _expect(process, f"code is on {name}: " + ("unchanged" if state == AGAIN else f"{FILES} files copied, 50.0 MB"))
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
        _sync(order["names"])


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


def _sync(names: list[str]) -> None:
    from dsdoctor.cluster import HostEntry
    from dsdoctor.hosts.gather import MANY
    from dsdoctor.hosts.transport import connect
    from dsdoctor.plan.copies import NEVER_COPIED
    from dsdoctor.plan.model import HostPlan, LaunchPlan, SyncPlan
    from dsdoctor.run.sync.carry_out import sync

    work = "/root/kept"
    hosts = tuple(
        HostPlan(name, 1, number, number, sys.executable, f"{work}/code", f"{work}/runs/1", False, {})
        for number, name in enumerate(names)
    )
    several: tuple[Any, ...] = ("bench", "1", None, "", 0, len(hosts), hosts, ())
    plan = LaunchPlan(*several, sync=SyncPlan("/root/lab/code", NEVER_COPIED))
    ways = {name: connect(HostEntry(name, 1), one_of_many=len(names) >= MANY) for name in names}  # as a launch has them
    try:
        for way in ways.values():
            way.run(["true"])
        _at_the_word(lambda: sync(plan, ways, directory=Path("/root/lab/run")))
    finally:
        for way in ways.values():
            way.close()


def _table(costs: dict[tuple[str, str], list[Cost]], ways: Sequence[str], count: int, load: float) -> str:
    lines = [
        f"{count} hosts, {os.cpu_count()} cores, load before it {load:.1f}, after it {os.getloadavg()[0]:.1f}; "
        f"{len(costs[BARE, FIRST])} first copies, {len(costs[BARE, AGAIN])} without a change",
        "",
        f"| | {FIRST} s | × bare | CPU s | × bare | {AGAIN} s | × bare | CPU s | × bare |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for way in ways:
        cells = []
        for state in (FIRST, AGAIN):
            taken, bare = costs[way, state], costs[BARE, state]
            cells += _cells([one.wall for one in taken], [one.wall for one in bare])
            cells += _cells([one.cpu for one in taken], [one.cpu for one in bare])
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(taken: list[float], bare: list[float]) -> list[str]:
    """The median, and how it stands to the bare rsyncs of the same rounds."""
    ratios = sorted(one / other for one, other in zip(taken, bare, strict=True))
    spread = f" ({ratios[0]:.2f} to {ratios[-1]:.2f})" if ratios[0] != ratios[-1] else ""
    return [f"{statistics.median(taken):.2f}", f"{statistics.median(ratios):.2f}{spread}"]
