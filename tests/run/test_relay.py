"""Whether hosts that are done hand on a tree: decided by what the first copies took."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsdoctor.run.events import Copying
from dsdoctor.run.sync import relay as module
from dsdoctor.run.sync.errors import SyncError
from dsdoctor.run.sync.parts import Host
from dsdoctor.run.sync.relay import Relay, pays
from dsdoctor.run.sync.session import Session
from tests.run.plans import plan_of, transports_of


class Giver:
    """Copies from a head whose cable carries `cable` MB/s, to hosts that take 10 MB/s each."""

    tree: Any = None

    def __init__(self, cable: float, failing: str = "") -> None:
        self.cable, self.failing = cable, failing
        self.progress: Any = lambda event: None
        self.active, self.most = 0, 0
        self.lock = threading.Lock()

    def copy(self, host: Host) -> None:
        if host.name == self.failing:
            raise SyncError(host.name, "disk full")
        with self.lock:
            self.active += 1
            self.most = max(self.most, self.active)
        left = 2.0
        while left > 0:
            rate = min(10.0, self.cable / self.active)
            self.progress(Copying(host.name, 1, "data", f"{rate:.2f}MB/s"))
            time.sleep(0.02)
            left -= rate * 0.02
        with self.lock:
            self.active -= 1


def spread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, giver: Giver, knows: bool = True, handing: bool = True
) -> tuple[Relay, dict[str, SyncError]]:
    names = ("a", "b", "c", "d", "e", "f")
    plan = plan_of({"s": dict.fromkeys(names, "true")}, tmp_path)
    ways = transports_of(plan)
    hosts = [Host(Session(msgspec.structs.replace(host, local=False), ways[host.name]), "t") for host in plan.hosts]

    def hand(self: Relay, by: Host, to: Host) -> str | None:
        time.sleep(0.01)
        if not handing:
            return "it does not get there"
        self._took(False, time.monotonic() - 0.01)
        self.by_whom[to.name] = by.name
        return None

    monkeypatch.setattr(module, "TRIAL_SECONDS", 0.08)
    monkeypatch.setattr(Relay, "_knows", lambda self, by, to: knows)
    monkeypatch.setattr(Relay, "_hand_on", hand)
    with ThreadPoolExecutor(6) as pool:
        relay = Relay(giver, pool)  # type: ignore[arg-type]
        return relay, relay.spread(hosts)


def test_a_full_cable_is_relieved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    giver = Giver(cable=10)
    relay, failed = spread(tmp_path, monkeypatch, giver)
    assert failed == {}
    assert len(relay.by_whom) == 4
    assert giver.most == 2


def test_a_cable_with_room_serves_all_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    giver = Giver(cable=1000)
    relay, failed = spread(tmp_path, monkeypatch, giver)
    assert (failed, relay.by_whom) == ({}, {})
    assert giver.most > 2


def test_hosts_that_do_not_know_one_another_are_served_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    giver = Giver(cable=100)
    relay, failed = spread(tmp_path, monkeypatch, giver, knows=False)
    assert (failed, relay.by_whom, giver.most) == ({}, {}, 6)


def test_a_host_that_gives_nothing_after_all_costs_nobody_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, failed = spread(tmp_path, monkeypatch, Giver(cable=10), handing=False)
    assert (failed, relay.by_whom) == ({}, {})


def test_a_copy_that_fails_is_told_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, failed = spread(tmp_path, monkeypatch, Giver(cable=10, failing="a"))
    assert str(failed["a"]) == "a: disk full"
    assert list(failed) == ["a"]


def test_little_is_not_asked_about() -> None:
    assert not pays([10**9, 10**9])
    assert not pays([10**6] * 8)
    assert pays([10**8] * 3)
