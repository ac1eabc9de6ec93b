"""1,000 distinct snapshots judged as one cluster, in one process; the wanted limit is 5 s.

Each is one of the composed hosts of `tests/snapshots` with a name, addresses, cards and a clock of its own and 200
more packages with their requirements; every eleventh host is ill in one of six ways. CPU seconds are those of this
process, which other work on the machine does not lengthen. `DSDOCTOR_BENCH_SNAPSHOTS` takes another number.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from dsdoctor.checks import run_checks
from dsdoctor.checks.engine import Outcome, discover
from dsdoctor.cluster import Cluster, HostEntry, Member, Reach
from dsdoctor.facts import HostFacts, Snapshot

COMPOSED = Path(__file__).parent.parent / "tests" / "snapshots" / "composed"
RUNS = 3
PACKAGES = 200
WANTED_SECONDS = 5.0

# Section -> what is laid over it.
ILLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("limits", {"nofile": {"soft": 1024, "hard": 4096}}),
    ("shm", {"total_bytes": 64 << 20, "free_bytes": 64 << 20}),
    ("python", {"version": "3.12.1"}),
    ("torch", {"version": "2.4.1+cu124"}),
    ("gpu", {"status": "driver-not-loaded", "gpus": [], "driver_version": None}),
    ("environment", {"variables": {"NCCL_SOCKET_IFNAME": "eno7", "NCCL_IB_DISABL": "1"}}),
)


def composed(count: int, everyone: bool) -> Iterator[bytes]:
    """So many snapshots as they lie on disk. With `everyone` each host was asked for the name of every other."""
    models = [msgspec.json.decode(path.read_bytes()) for path in sorted(COMPOSED.rglob("*.json"))]
    names = [f"host{number:04d}" for number in range(count)]
    known = {name: [f"10.{number >> 8}.{number & 255}.1"] for number, name in enumerate(names)}
    for number, name in enumerate(names):
        model = models[number % len(models)]
        text = msgspec.json.encode(model).decode().replace(f'"{model["host"]}"', f'"{name}"')
        snapshot = msgspec.json.decode(text)
        asked = known if everyone else {each: known[each] for each in (names[0], name)}
        _make_its_own(snapshot["sections"], number, known[name][0], asked)
        if number % 11 == 10:
            section, change = ILLS[number // 11 % len(ILLS)]
            snapshot["sections"][section]["value"].update(change)
        yield msgspec.json.encode(snapshot)


def _make_its_own(sections: dict[str, Any], number: int, address: str, asked: dict[str, list[str]]) -> None:
    """Addresses, cards, clock and packages of one host."""
    network = sections["network"]["value"]
    device = next(each for each in network["interfaces"] if each["up"] and not each["loopback"] and each["addresses"])
    device["addresses"] = [{"address": address, "prefix": 8, "family": "inet", "scope": "global"}]
    device["mac"] = f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"
    network["resolves"] = asked
    network["routes"] = [
        {"target": name, "address": found, "device": "lo" if found == address else device["name"], "source": address}
        for name, (found,) in asked.items()
    ]
    for gpu in sections["gpu"]["value"]["gpus"]:
        gpu["uuid"] = f"GPU-{number:08x}-{gpu['index']:04x}"
    sections["os"]["value"]["uptime_seconds"] = 86400.0 + number
    sections["memory"]["value"]["available_bytes"] -= number << 20
    distributions = sections["packages"]["value"]["distributions"]
    needs = sections["requirements"]["value"]["packages"]
    for each in range(PACKAGES):
        distributions.append({"name": f"package-{each}", "version": f"1.{each}.0", "location": "/opt/packages"})
        needs[f"package-{each}"] = {"python": ">=3.8", "requires": ["numpy>=1.17", f"package-{each // 2}<2,>=1.0"]}


def cluster_of(texts: list[bytes]) -> Cluster:
    """The cluster of these snapshots, nothing of it read yet beyond the JSON."""
    members = []
    for text in texts:
        snapshot = msgspec.json.decode(text, type=Snapshot)
        slots = len(snapshot.sections["gpu"].value["gpus"]) or 2
        members.append(Member(HostEntry(name=snapshot.host, slots=slots), Reach(ok=True), HostFacts(snapshot)))
    return Cluster(tuple(members))


@dataclass(frozen=True)
class Judged:
    """What one run cost, in seconds, and what the checks said."""

    decoding: float  # of the JSON
    wall: float  # all checks
    cpu: float  # all checks
    outcome: Outcome


def judged(texts: list[bytes]) -> Judged:
    """Decode the snapshots and run all checks over them."""
    began = time.perf_counter()
    cluster = cluster_of(texts)
    decoded, decoded_cpu = time.perf_counter(), time.process_time()
    outcome = run_checks(cluster)
    return Judged(decoded - began, time.perf_counter() - decoded, time.process_time() - decoded_cpu, outcome)


def main() -> str:
    """Judge them a few times: the hosts asked for the master's name alone, and for every host's."""
    count = int(os.environ.get("DSDOCTOR_BENCH_SNAPSHOTS", "1000"))
    lines = [
        f"| {count} snapshots, {len(discover())} checks | MB | decoding s | judging s | fastest | slowest "
        "| CPU s | findings |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, everyone in (("asked for the master's name", False), ("asked for every host's name", True)):
        texts = list(composed(count, everyone))
        if len(set(texts)) != count:
            raise RuntimeError("two of the snapshots are equal")
        runs = [judged(texts) for _ in range(RUNS)]
        for crash in runs[0].outcome.crashed:
            raise RuntimeError(f"{crash.name} crashed:\n{crash.traceback}")
        walls = [run.wall for run in runs]
        lines.append(
            f"| {title} | {sum(map(len, texts)) / 1e6:.0f} | {statistics.median(run.decoding for run in runs):.2f} "
            f"| {statistics.median(walls):.2f} | {min(walls):.2f} | {max(walls):.2f} "
            f"| {statistics.median(run.cpu for run in runs):.2f} | {len(runs[0].outcome.findings)} |"
        )
    return "\n".join([*lines, "", f"Wanted: under {WANTED_SECONDS:.0f} s."])
