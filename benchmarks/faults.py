"""The fault matrix under three launchers: `dsdoctor launch`, `deepspeed` (pdsh) and torchrun over ssh, in one run.

Each trial has a little cluster to itself: a head, node0 with two ranks, node1 with one, which the faults befall. What a
launcher leaves behind ends with the cluster. `--together` clusters are used at the same time; they mostly wait.
Needs root, pdsh and deepspeed. `python -m benchmarks.faults --help` has the options.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.rivals.launchers import BIN, DSDOCTOR, LAUNCHERS, Launcher, prepare, start
from tests.cluster.faults import FAULTS, Fault, Scene
from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.prerequisites import missing_for_cluster
from tests.cluster.processes import HostProcess

RECORDED = Path(__file__).with_name("recorded") / "faults.json"
WATCH = 120.0  # seconds that what a fault does is looked at
BACK = 30.0  # seconds that a host is looked at which was switched on, or goes on, after that
COMING_UP = 120.0
POLL = 0.2
ENDLESS, SHORT = (1_000_000, 0.2), (60, 0.05)  # steps, and seconds between them
MARK = "--stage second"
NOTHING = re.compile(
    r"(node\d+: *)?\s*$|.*\{'loss': "
)  # blank, or a training's own line; with pdsh's prefix or without

# Faults that are over when the training is: it runs to its end.
TO_THE_END = {"ssh daemon stopped", "disk of a host full", "run directory's disk full"}
ITS_OWN = {"keeper killed"}  # befalls what only dsdoctor has

# Another user of the account runs the same programs: what these command lines start sleeps, and no more.
NEIGHBOURS = {
    "torchrun": ("torch/distributed/run.py", ["-m", "torch.distributed.run", "--nnodes=1", "theirs.py"]),
    "deepspeed": ("deepspeed/launcher/launch.py", ["-u", "-m", "deepspeed.launcher.launch", "theirs.py"]),
}


@dataclass(frozen=True)
class Seen:
    """What came of one fault under one launcher. Seconds count from the fault; None: not while it was watched."""

    fault: str
    launcher: str
    noticed: float | None = None  # it said anything, or ended
    said: str = ""  # its first words
    ended: float | None = None  # the launcher's own end
    code: int | None = None
    gone: float | None = None  # no process of the run is left on a host that can be reached
    head_gone: float | None = None  # nor on the head
    left: list[str] = field(default_factory=list)
    left_on_return: list[str] | None = None  # on a host that was away, after it was back for a while
    neighbours_killed: list[str] = field(default_factory=list)
    error: str = ""  # why there is no trial


class Trial:
    """One launch, one fault, and what is seen from then on."""

    def __init__(self, cluster: LittleCluster, launcher: Launcher, fault: Fault) -> None:
        self.cluster, self.launcher, self.fault = cluster, launcher, fault
        self.hosts = (cluster.head, *cluster.hosts)
        self.length = SHORT if fault.name in TO_THE_END else ENDLESS
        prepare(cluster, *self.length)
        self.neighbours = [each for host in cluster.hosts for each in self._neighbours(host)]
        self.before = {host.name: {process.pid for process in host.ps()} for host in self.hosts}
        self.output = tempfile.NamedTemporaryFile(suffix=".out")  # noqa: SIM115 - closed with the trial

    def carry_out(self, watch: float) -> Seen:
        """Launch, strike, watch."""
        options = self.fault.options if self.launcher is DSDOCTOR and "--lifeline" not in self.fault.options else ()
        running = start(self.launcher, self.cluster, *self.length, options=options, stdout=self.output.fileno())
        self._come_up(running)
        scene = Scene(self.cluster, running, MARK, self.launcher.guards)
        since, struck = len(self._text()), time.monotonic()
        self.fault.strike(scene)
        seen = self._watch(running, since, struck, watch)
        if self.fault.lost:
            self.fault.mend(scene)
            seen["left_on_return"] = self._until_gone(self.fault.lost, BACK)
        return Seen(self.fault.name, self.launcher.name, **seen)

    def _come_up(self, running: HostProcess) -> None:
        deadline = time.monotonic() + COMING_UP
        while "'step': 3} stage second" not in self._text():
            if running.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it did not come up: {self._text()[-1500:]}")
            time.sleep(POLL)

    def _watch(self, running: HostProcess, since: int, struck: float, watch: float) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        places = {"gone": [host.name for host in self.cluster.hosts if host.name not in self.fault.lost]}
        places["head_gone"] = [self.cluster.head.name]
        while True:
            at = round(time.monotonic() - struck, 2)
            if "ended" not in seen and running.poll() is not None:
                seen |= {"ended": at, "code": running.returncode}
            said = next((line for line in self._lines(since) if not NOTHING.match(line)), None)
            if "noticed" not in seen and (said is not None or "ended" in seen):
                seen |= {"noticed": at, "said": (said or "").strip()[:200]}
            left = {what: self._left(names) for what, names in places.items()}
            for what, processes in left.items():
                if not processes:
                    seen.setdefault(what, at)
                else:
                    seen.pop(what, None)  # it only looked so, between two processes
            if at > watch or ("ended" in seen and not any(left.values())):
                break
            time.sleep(POLL)
        killed = [name for name, host, each in self.neighbours if host.is_up and each.poll() is not None]
        return {**seen, "left": [each for those in left.values() for each in those], "neighbours_killed": killed}

    def _until_gone(self, names: Sequence[str], seconds: float) -> list[str]:
        deadline = time.monotonic() + seconds
        while (left := self._left(names)) and time.monotonic() < deadline:
            time.sleep(POLL)
        return left

    def _left(self, names: Sequence[str]) -> list[str]:
        """The processes of those hosts that were not there before and are neither sshd's nor dying."""
        return [
            f"{host.name}: {' '.join(process.argv)[:160]}"
            for host in self.hosts
            if host.name in names and host.is_up
            for process in host.ps()
            if process.pid not in self.before[host.name] and process.argv and "sshd" not in process.argv[0]
        ]

    def _neighbours(self, host: ClusterHost) -> list[tuple[str, ClusterHost, HostProcess]]:
        found = []
        for name, (path, words) in NEIGHBOURS.items():
            folder = Path("/root/neighbour", name)
            for parent in Path(path).parents[:-1]:
                host.write(str(folder / parent / "__init__.py"), "")
            host.write(str(folder / path), "import time\ntime.sleep(3600)\n")
            argv = [_python_of("deepspeed"), *words]
            found.append((f"{name} on {host.name}", host, host.popen(argv, env={"PYTHONPATH": str(folder)})))
            host.wait_for_start(" ".join(words))
        return found

    def _text(self) -> str:
        return Path(self.output.name).read_text(encoding="utf-8", errors="replace")

    def _lines(self, since: int) -> list[str]:
        """The whole lines since then."""
        return self._text()[since:].split("\n")[:-1]


def table(record: dict[str, Any]) -> str:
    """Markdown: a row for each fault, a cell for each launcher."""
    watch = record["watched"]
    seen = {(one["fault"], one["launcher"]): one for one in record["seen"]}
    faults = list(dict.fromkeys(one["fault"] for one in record["seen"]))
    names = [name for name in record["defaults"] if any((fault, name) in seen for fault in faults)]
    lines = [f"| fault | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for fault in faults:
        lines.append(f"| {fault} | {' | '.join(_cell(seen.get((fault, name)), watch) for name in names)} |")
    return "\n".join(lines)


def _cell(seen: dict[str, Any] | None, watch: float) -> str:
    if seen is None:
        return "–"
    if seen["error"]:
        return "no trial"
    noticed, gone, code = seen["noticed"], seen["gone"], seen["code"]
    if code == 0 and not seen["left"]:
        return "the run goes on to its end; exit 0"
    words = [f"noticed {noticed:.1f} s" if noticed is not None else f"nothing said in {watch:g} s"]
    words.append(f"gone {gone:.1f} s" if gone is not None else "")
    where = sorted({each.partition(":")[0] for each in seen["left"]})
    count = f"{len(seen['left'])} process{'' if len(seen['left']) == 1 else 'es'}"
    if where == ["head"]:
        words.append(f"{count} left on the head")
    elif where:
        words.append(f"**{count} left** on {', '.join(where)}")
    elif seen["head_gone"] > seen["gone"] + 5:
        words.append(f"on the head {seen['head_gone']:.1f} s")
    if seen["left_on_return"]:
        words.append(f"**{len(seen['left_on_return'])} on the host that came back**")
    words.append(f"exit {code}" if code is not None else "still waiting")
    if seen["neighbours_killed"]:
        words.append(f"**killed a neighbour's {', '.join(seen['neighbours_killed'])}**")
    return "; ".join(filter(None, words))


def measure(faults: Sequence[Fault], launchers: Sequence[Launcher], watch: float, together: int) -> dict[str, Any]:
    """Every fault under every launcher; returns what is recorded."""
    waiting: queue.SimpleQueue[tuple[int, Launcher, Fault]] = queue.SimpleQueue()
    orders = [(launcher, fault) for fault in faults for launcher in launchers]
    orders = [(by, fault) for by, fault in orders if by is DSDOCTOR or fault.name not in ITS_OWN]
    for number, (launcher, fault) in enumerate(orders):
        waiting.put((number, launcher, fault))
    seen: dict[int, Seen] = {}
    load = os.getloadavg()[0]

    def work() -> None:
        with LittleCluster() as cluster:
            while True:
                try:
                    number, launcher, fault = waiting.get_nowait()
                except queue.Empty:
                    return
                seen[number] = _one(cluster, launcher, fault, watch)
                print(f"{len(seen)}/{len(orders)} {seen[number]}", file=sys.stderr, flush=True)
                cluster.reset()

    threads = [threading.Thread(target=work) for _ in range(min(together, len(orders)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "recorded": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "versions": {name: version(name) for name in ("dsdoctor", "torch", "deepspeed")},
        "watched": watch,
        "together": together,
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "defaults": {launcher.name: launcher.defaults for launcher in LAUNCHERS},
        "seen": [asdict(seen[number]) for number in sorted(seen)],
    }


def _one(cluster: LittleCluster, launcher: Launcher, fault: Fault, watch: float) -> Seen:
    try:
        return Trial(cluster, launcher, fault).carry_out(watch)
    except Exception as error:  # the others go on, and the table says so
        return Seen(fault.name, launcher.name, error=f"{type(error).__name__}: {error}")


def main(words: Sequence[str] = ()) -> str:
    """The table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--watch", type=float, default=WATCH, help="seconds that a fault is watched")
    parser.add_argument("--together", type=int, default=3, help="clusters at the same time")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="faults with this in their name")
    parser.add_argument("--launcher", action="append", default=[], metavar="WORD", help="launchers, the same way")
    parser.add_argument("--record", type=Path, help="write what was seen here; what this file has of others is kept")
    parser.add_argument("--show", type=Path, help="measure nothing: the table of a file")
    options = parser.parse_args(words)
    if options.show:
        return table(json.loads(options.show.read_text(encoding="utf-8")))
    # Started in the background, these would be ignored by all that is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    missing = missing_for_cluster() or next(
        (f"{name} is not installed" for name in ("pdsh", str(BIN / "deepspeed")) if shutil.which(name) is None), ""
    )
    if missing:
        return f"left out: {missing}"

    def chosen(name: str, wanted: Sequence[str]) -> bool:
        return not wanted or any(word in name for word in wanted)

    faults = [fault for fault in FAULTS if chosen(fault.name, options.only)]
    launchers = [launcher for launcher in LAUNCHERS if chosen(launcher.name, options.launcher)]
    record = measure(faults, launchers, options.watch, options.together)
    if options.record:
        _keep(options.record, record)
    return table(record)


def _python_of(program: str) -> str:
    """The interpreter of an installed program: what it starts, its neighbours start by the same path."""
    return (BIN / program).read_text(encoding="utf-8").partition("\n")[0].removeprefix("#!").strip()


def _keep(path: Path, record: dict[str, Any]) -> None:
    """Write the record; trials of an earlier one that were not made again stay."""
    order = [fault.name for fault in FAULTS]
    names = [launcher.name for launcher in LAUNCHERS]
    if path.is_file():
        made = {(one["fault"], one["launcher"]) for one in record["seen"]}
        before = json.loads(path.read_text(encoding="utf-8"))["seen"]
        record["seen"] += [one for one in before if (one["fault"], one["launcher"]) not in made]
    record["seen"].sort(key=lambda one: (order.index(one["fault"]), names.index(one["launcher"])))
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(record, indent=1).replace(
        f"{BIN}/", ""
    )  # where this machine has its programs is nobody's concern
    path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    print(main(sys.argv[1:]))
