"""Coming to hosts for a copy alone: who is reached, who is not and why, and that nothing stays open."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from dsdoctor.cluster import HostEntry
from dsdoctor.hosts.transport import Transport, TransportError
from dsdoctor.hosts.transport.local import LocalTransport
from dsdoctor.run.sync import ways


class Door(LocalTransport):
    """This machine as a host; `dark` is not reached."""

    closed = 0

    def __init__(self, host: HostEntry) -> None:
        super().__init__(host)
        self.opened = threading.Event()

    def rsync_shell(self) -> Any:
        self.opened.set()
        if self.host.name == "dark":
            raise TransportError("dark", "timeout", "no route to host")
        return ["ssh"], self.host.name

    def close(self) -> None:
        Door.closed += 1
        super().close()


@pytest.fixture
def doors(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(entry: HostEntry, *_: Any, **__: Any) -> Transport:
        return Door(entry)

    monkeypatch.setattr(ways, "connect", connect)
    monkeypatch.setenv("HOME", "/somewhere/alice")
    Door.closed = 0


def homes(found: ways.Ways, **more: str) -> dict[str, str]:
    return found.homes(lambda entry: more.get(entry.name, sys.executable), (), lifeline=20, patience=30)


@pytest.mark.usefixtures("doors")
def test_each_host_tells_its_home_and_who_does_not_is_told_apart() -> None:
    entries = [HostEntry("a", 1), HostEntry("dark", 1), HostEntry("here", 1, local=True), HostEntry("bare", 1)]
    with ways.Ways(entries) as found:
        assert homes(found, bare="/no/such/python") == {"a": "/somewhere/alice"}
        assert found.lost["dark"] == "no route to host"
        assert "/no/such/python" in found.lost["bare"]
        assert list(found.sessions) == ["a"]
        assert found.sessions["a"].ask("missing", paths=["/no/such"]) == {"paths": ["/no/such"]}
    assert Door.closed == 4
    with pytest.raises(Exception, match="ended"):
        found.sessions["a"].ask("home")


@pytest.mark.usefixtures("doors")
def test_connections_begin_before_anything_is_asked_and_end_with_an_error() -> None:
    with pytest.raises(KeyError), ways.Ways([HostEntry("a", 1)]) as found:
        door = found.transports["a"]
        assert isinstance(door, Door)
        assert door.opened.wait(timeout=30)
        raise KeyError("the job")
    assert Door.closed == 1
