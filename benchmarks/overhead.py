"""What `dsdoctor launch` costs beside the same torchrun, started by hand over ssh on both hosts.

Seconds from the command to the first step, and from the last step to the prompt, by the training's own clock (the hosts
are the little cluster's and share it); in turn, A B A B …; a difference is one of neighbours in time. The check's own
seconds, as the run's report has them, are told apart. CPU seconds are the head's, and those of everything together.
Needs root. `DSDOCTOR_BENCH_PAIRS` takes another number of rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rivals.launchers import CODE, DSDOCTOR, LAB, TORCHRUN, Launcher, prepare, start
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.prerequisites import missing_for_cluster

STEPS, PAUSE = 10, 0.05
LIMIT = 180.0
TIMES = "/root/times.json"
SCRIPT = """
import argparse, json, os, time
import torch, torch.distributed as dist
parser = argparse.ArgumentParser()
for name in ("output_dir", "stage", "steps", "pause"):
    parser.add_argument("--" + name)
options, _ = parser.parse_known_args()
dist.init_process_group("gloo")
times = []
for step in range(int(options.steps)):
    dist.all_reduce(torch.ones(16))
    times.append(time.time())
    time.sleep(float(options.pause))
if os.environ["LOCAL_RANK"] == "0":
    os.makedirs(options.output_dir, exist_ok=True)
    with open(os.path.join(options.output_dir, "weights.json"), "w") as file:
        file.write("{}" + " " * 5000000)
dist.barrier()
if dist.get_rank() == 0:
    with open("@TIMES@", "w") as file:
        json.dump({"first": times[0], "last": time.time()}, file)
dist.destroy_process_group()
os._exit(0)  # torch 2.13 now and then aborts while it is taken down (pytorch#190489)
"""


@dataclass(frozen=True)
class Run:
    """One launch. Seconds."""

    before: float  # from the command to the first step
    after: float  # from the last step to the prompt
    check: float
    head_cpu: float
    cpu: float


def main() -> str:
    """The table."""
    missing = missing_for_cluster()
    if missing:
        return f"left out: {missing}"
    rounds, load = int(os.environ.get("DSDOCTOR_BENCH_PAIRS", "7")), os.getloadavg()[0]
    runs: list[tuple[Run, Run]] = []
    with LittleCluster() as cluster:
        prepare(cluster, STEPS, PAUSE)
        for host in (cluster.head, *cluster.hosts):
            host.write(f"{CODE}/steps.py", SCRIPT.replace("@TIMES@", TIMES))
        for _ in range(rounds + 1):
            runs.append((_once(cluster, TORCHRUN), _once(cluster, DSDOCTOR)))
    return _table(runs[1:], load)


def _once(cluster: LittleCluster, launcher: Launcher) -> Run:
    cluster.head.remove(f"{LAB}/runs")
    node0 = cluster["node0"]
    node0.remove(TIMES)
    head, whole, began = _cpu(cluster.head.machine.group), _cpu(cluster.head.machine.group.parent), time.time()
    process = start(launcher, cluster, STEPS, PAUSE, stdout=subprocess.DEVNULL)
    code = process.wait(timeout=LIMIT)
    ended = time.time()
    if code != 0:
        raise RuntimeError(f"{launcher.name} ended with exit code {code}")
    times = json.loads(node0.read(TIMES))
    check = 0.0
    if launcher is DSDOCTOR:
        report = cluster.head.run(["sh", "-c", f"cat {LAB}/runs/*/report.json"]).stdout
        check = float(json.loads(report)["seconds"])
    return Run(
        times["first"] - began,
        ended - times["last"],
        check,
        _cpu(cluster.head.machine.group) - head,
        _cpu(cluster.head.machine.group.parent) - whole,
    )


def _cpu(group: Path) -> float:
    """The CPU seconds that a control group has used."""
    text = (group / "cpu.stat").read_text(encoding="ascii")
    return int(text.split("usage_usec ")[1].split()[0]) / 1e6


def _table(runs: list[tuple[Run, Run]], load: float) -> str:
    rows: dict[str, tuple[Callable[[Run], float], Callable[[Run, Run], float]]] = {
        "command to first step, s": (lambda run: run.before, lambda by_hand, ours: ours.before - by_hand.before),
        "of that the check, s": (lambda run: run.check, lambda _, ours: ours.check),
        "to the first step beyond the check, s": (
            lambda run: run.before - run.check,
            lambda by_hand, ours: ours.before - ours.check - by_hand.before,
        ),
        "last step to prompt, s": (lambda run: run.after, lambda by_hand, ours: ours.after - by_hand.after),
        "both beyond the check, s": (
            lambda run: run.before - run.check + run.after,
            lambda by_hand, ours: ours.before - ours.check + ours.after - by_hand.before - by_hand.after,
        ),
        "CPU of the head, s": (lambda run: run.head_cpu, lambda by_hand, ours: ours.head_cpu - by_hand.head_cpu),
        "CPU of all, s": (lambda run: run.cpu, lambda by_hand, ours: ours.cpu - by_hand.cpu),
    }
    lines = [
        f"{len(runs)} rounds, load before it {load:.1f}, after it {os.getloadavg()[0]:.1f}; medians (least to most)",
        "",
        f"| | {TORCHRUN.name} | {DSDOCTOR.name} | more |",
        "|---|---|---|---|",
    ]
    for name, (of, more) in rows.items():
        cells = [_spread([of(by_hand) for by_hand, _ in runs]), _spread([of(ours) for _, ours in runs])]
        lines.append(f"| {name} | {' | '.join([*cells, _spread([more(*pair) for pair in runs])])} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
