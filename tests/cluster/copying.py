"""A sync as a program on the head: an order in JSON on standard input, what came of it in JSON on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from dsdoctor.cluster import HostEntry
from dsdoctor.hosts.transport.openssh import OpenSSHTransport
from dsdoctor.plan.model import HostPlan, LaunchPlan, SyncPlan
from dsdoctor.run.sync.carry_out import sync
from dsdoctor.run.sync.errors import SyncError
from tests.cluster.host import ClusterHost


class Copying:
    """Syncs of a folder on the head to hosts of the cluster."""

    def __init__(self, head: ClusterHost, *hosts: str) -> None:
        self.head = head
        self.order: dict[str, Any] = {
            "hosts": dict.fromkeys(hosts, "/root/work"),
            "source": "/root/lab",
            "exclude": [],
            "trees": [],
            "run": "run-1",
            "directory": None,
            "lifeline": 20,
            "relay_from": 64 << 20,
        }

    def begin(self, behind: Sequence[str] = (), **changes: Any) -> Any:
        """Start a sync, `behind` a command, and leave it running."""
        order = json.dumps({**self.order, **changes})
        argv = [*behind, sys.executable, "-c", "from tests.cluster.copying import main; main()", order]
        return self.head.popen(argv, cwd=str(Path(__file__).parents[2]))

    def end(self, process: Any, timeout: float = 60) -> dict[str, Any]:
        """What came of it."""
        said, _ = process.communicate(timeout=timeout)
        last = said.strip().splitlines()[-1] if said.strip() else ""
        assert last.startswith("{"), said
        return dict(json.loads(last))

    def __call__(self, **changes: Any) -> dict[str, Any]:
        """A sync to its end: `got` by host and kind, or `error`; `events` are what was shown."""
        return self.end(self.begin(**changes))


def main() -> None:
    """Do one order."""
    order = json.loads(sys.argv[1])
    hosts = tuple(
        HostPlan(name, 1, number, number, sys.executable, f"{work}/code", f"{work}/runs/{order['run']}", False, {})
        for number, (name, work) in enumerate(order["hosts"].items())
    )
    trees = msgspec.convert(order["trees"], list[dict[str, Any]])
    plan = LaunchPlan(
        *("demo", order["run"], None, "", 0, len(hosts), hosts, ()),
        sync=msgspec.convert({"source": order["source"], "exclude": order["exclude"], "trees": trees}, SyncPlan),
    )
    ways = {host.name: OpenSSHTransport(HostEntry(host.name, 1)) for host in hosts}
    events: list[Any] = []
    directory = Path(order["directory"]) if order["directory"] else None
    answer: dict[str, Any] = {"events": events}
    try:
        options = {name: order[name] for name in ("lifeline", "relay_from")}
        got = sync(plan, ways, events.append, directory=directory, **options)
        answer["got"] = {f"{each.host} {each.what}": [each.how, each.detail, *each.warnings] for each in got}
    except SyncError as error:
        answer["error"] = str(error)
    finally:
        for way in ways.values():
            way.close()
    print(json.dumps(msgspec.to_builtins(answer)))
