"""Coming to hosts for a copy alone: who is reached, who is not and why, and that nothing stays open."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.cluster import HostEntry
from dsdoctor.hosts.transport import Transport, TransportError
from dsdoctor.hosts.transport.child import ChildProcess, bury, spawn
from dsdoctor.hosts.transport.local import LocalTransport
from dsdoctor.hosts.transport.openssh import OpenSSHTransport
from dsdoctor.plan.copies import NEVER_COPIED
from dsdoctor.plan.model import HostPlan
from dsdoctor.run.sync import opening, ways
from dsdoctor.run.sync.host_side import MARKER
from dsdoctor.run.sync.opening import Opening


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


# --- the command that opens the connection


class Shell(OpenSSHTransport):
    """This machine as a host behind ssh: what opens the connection is run here, behind what a login shell says."""

    before = ""

    def begin(self, argv: Sequence[str]) -> ChildProcess:
        process = spawn(["sh", "-c", f'{self.before}\nexec "$@"', "sh", *argv])
        self._children.add(process)
        return ChildProcess(process, code=lambda status: status, drop=bury)


@pytest.fixture
def shells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Hosts that are such shells; returns their home."""

    def connect(entry: HostEntry, *_: Any, **__: Any) -> Transport:
        return Shell(entry, connect_timeout=30)

    monkeypatch.setattr(ways, "connect", connect)
    monkeypatch.setattr(Shell, "before", "")
    home = tmp_path / "ho me'$x>"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def test_the_home_is_told_whatever_a_login_shell_says_before(shells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shell, "before", "echo Welcome to the cluster; printf 'no newline' >&2")
    with ways.Ways([HostEntry("a", 1)]) as found:
        assert homes(found, a="/no/such/python") == {"a": str(shells)}
        assert found.sessions == {}, "no Python was started for that"


def test_a_connection_that_does_not_open_says_why(shells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = "ssh: connect to host a port 22: Connection refused"
    monkeypatch.setattr(Shell, "before", f"echo '{refusal}' >&2; exit 255")
    with ways.Ways([HostEntry("a", 1)]) as found:
        assert homes(found) == {}
        assert "Connection refused" in found.lost["a"]


def test_a_host_whose_shell_hangs_is_given_up(shells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shell, "before", "exec sleep 1000")
    monkeypatch.setattr(opening, "LOGIN_SECONDS", -29.5)
    with ways.Ways([HostEntry("a", 1)]) as found:
        assert homes(found) == {}
        assert found.lost["a"] == "no shell answered within 0.5 s of connecting"


def test_hosts_that_have_the_very_same_are_told(shells: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "train.py").write_text("print(1)")
    folders = {name: tmp_path / name for name in ("same", "other", "foreign", "new\nline")}
    for name, folder in folders.items():
        folder.mkdir()
        (folder / "train.py").write_text("print(1)" if name != "other" else "print(10)")
        os.utime(folder / "train.py", ns=(0, (source / "train.py").stat().st_mtime_ns))
        if name != "foreign":
            (folder / MARKER).touch()
    hosts = [HostPlan(name, 1, 0, 0, "python3", str(folder), "", False, {}) for name, folder in folders.items()]
    exclude = (f"/{MARKER}", *NEVER_COPIED)
    with ways.Ways([HostEntry(name, 1) for name in folders]) as found:
        homes(found)
        assert found.unchanged(hosts, str(source), exclude, silence=60) == ["same"]
        (folders["other"] / "train.py").write_text("print(1)")
        os.utime(folders["other"] / "train.py", ns=(0, (source / "train.py").stat().st_mtime_ns))
        assert found.unchanged(hosts, str(source), exclude, silence=60) == ["same", "other"]
        assert found.unchanged(hosts, str(source), (*exclude, "a/**"), silence=60) == [], "rsync looks for itself"
        (source / "pipe").unlink(missing_ok=True)
        os.mkfifo(source / "pipe")
        assert found.unchanged(hosts, str(source), exclude, silence=60) == [], "rsync says that it is left out"


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("printf 'a b\\0c\\0'", [b"a b", b"c"]),
        ("true", []),
        ("exit 3", None),
        ("sleep 1000", None),
        ("while :; do echo more; done", None),
    ],
)
@pytest.mark.usefixtures("shells")
def test_what_a_line_says(command: str, answer: list[bytes] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "LIMIT", 1 << 20)
    way = Opening(Shell(HostEntry("a", 1), connect_timeout=30))
    try:
        way.home()
        assert way.records(command, silence=0.5 if command == "sleep 1000" else 60) == answer
    finally:
        way.close()
