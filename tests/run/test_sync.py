"""Copies that are interrupted, refused or overtaken; the copies that go well are in the tests of the cluster."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from dsdoctor.cluster import HostEntry
from dsdoctor.plan.model import HostPlan, SyncPlan
from dsdoctor.run.on_host import HostAnswerError, ask, missing_outputs, prepare
from dsdoctor.run.sync import Copies, SyncError, sync
from tests.run.plans import plan_of, transports_of


class ByRsync:
    """Only what a copy asks of a transport."""

    host = HostEntry("far", 1)

    def rsync_shell(self) -> tuple[list[str], str]:
        return ["ssh", "-p", "2222"], "alice@far"


def fake_rsync(folder: Path, body: str) -> str:
    """An rsync that writes down its arguments and then does this."""
    path = folder / "rsync"
    path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/argv\n{body}\n')
    path.chmod(0o755)
    return str(path)


def copies(folder: Path, body: str, seen: list[int], timeout: float = 30) -> Copies:
    return Copies(
        fake_rsync(folder, body), "/src", ["--exclude=/x y"], lambda host, percent: seen.append(percent), timeout
    )


def far(folder: Path) -> HostPlan:
    return plan_of({"s": {"far": "true"}}, folder).hosts[0]


def test_arguments_are_a_list_and_progress_is_told(tmp_path: Path) -> None:
    seen: list[int] = []
    body = "printf '  1,234  42%%  1MB/s\\r'; sleep 0.1; echo 'Number of regular files transferred: 0'"
    assert copies(tmp_path, body, seen).copy(far(tmp_path), ByRsync()) is None  # type: ignore[arg-type]
    assert seen == [42, 100]
    argv = (tmp_path / "argv").read_text().splitlines()
    assert argv[:4] == ["-a", "-s", "-e", "ssh -p 2222"]
    assert "--exclude=/x y" in argv
    assert argv[-2:] == ["/src/", f"alice@far:{tmp_path}/"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo 'sh: rsync: command not found' >&2; exit 127", "rsync is not installed there"),
        ("echo 'write failed: No space left on device (28)' >&2; exit 11", "no space left"),
        ("echo 'client_loop: send disconnect: Broken pipe' >&2; exit 255", "the connection was lost while copying"),
        ("exit 23", "rsync ended with code 23"),
        (
            'echo "Number of regular files transferred: 3"; case "$*" in *dry-run*) echo "<fcsT. model.py";; esac',
            "the copy differs from this machine's files: model.py",
        ),
    ],
)
def test_what_went_wrong_is_said(tmp_path: Path, body: str, words: str) -> None:
    error = copies(tmp_path, body, []).copy(far(tmp_path), ByRsync())  # type: ignore[arg-type]
    assert isinstance(error, SyncError)
    assert words in str(error)


def test_an_interrupted_copy_ends_at_once(tmp_path: Path) -> None:
    running = copies(tmp_path, "exec sleep 1000", [])
    thread = threading.Thread(target=running.copy, args=(far(tmp_path), ByRsync()))
    thread.start()
    while not (tmp_path / "argv").exists():
        time.sleep(0.01)
    running.stop()
    thread.join(timeout=5)
    assert not thread.is_alive()


def test_a_copy_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    error = copies(tmp_path, "exec sleep 1000", [], timeout=0.3).copy(far(tmp_path), ByRsync())  # type: ignore[arg-type]
    assert "took longer than 0 s" in str(error)


def test_an_absolute_exclude_is_refused_with_the_anchored_one(tmp_path: Path) -> None:
    plan = plan_of({"s": {"far": "true"}}, tmp_path)
    host = msgspec.structs.replace(plan.hosts[0], local=False)
    changed = msgspec.structs.replace(plan, hosts=(host,), sync=SyncPlan(str(tmp_path), (f"{tmp_path}/data",)))
    with pytest.raises(SyncError, match="Write /data"):
        sync(changed, transports_of(changed))


def test_a_shared_folder_that_another_host_is_preparing_is_no_foreign_one(tmp_path: Path) -> None:
    code, run = tmp_path / "code", tmp_path / "run"
    order = {"code_dir": str(code), "run_dir": str(run), "token": "0-a"}
    (code / ".dsdoctor-tokens").mkdir(parents=True)  # the other host's marker is not seen yet
    (code / ".dsdoctor-tokens" / "1-b").write_text("1-b")
    assert prepare(order) == {}
    assert sorted(path.name for path in code.iterdir()) == [".dsdoctor-sync", ".dsdoctor-tokens"]
    assert prepare(order) == {}


@pytest.mark.parametrize("name", ["thesis.tex", ".hidden"])
def test_a_folder_with_anything_else_in_it_is_foreign(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("years of work")
    order = {"code_dir": str(tmp_path), "run_dir": str(tmp_path / "run"), "token": ""}
    assert prepare(order) == {"error": "foreign"}
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_host_that_answers_something_else_is_an_error(tmp_path: Path) -> None:
    transport = transports_of(plan_of({"s": {"far": "true"}}, tmp_path))["far"]
    with pytest.raises(HostAnswerError, match=r"exit code 1|ended"):
        ask(transport, "/bin/false", missing_outputs, {})
    with pytest.raises(HostAnswerError, match="KeyError"):
        ask(transport, sys.executable, prepare, {})
