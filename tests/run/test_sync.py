"""Copies that are interrupted, refused or overtaken; the copies that go well are in the tests of the cluster."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdoctor.cluster import HostEntry
from dsdoctor.hosts import sent
from dsdoctor.hosts.sent import BOOT
from dsdoctor.hosts.transport.local import LocalTransport
from dsdoctor.plan.model import HostPlan, SyncPlan
from dsdoctor.run.on_host import HostAnswerError, ask
from dsdoctor.run.sync import rsync
from dsdoctor.run.sync.carry_out import sync
from dsdoctor.run.sync.code import Code
from dsdoctor.run.sync.errors import SyncError
from dsdoctor.run.sync.fetch import Fetched, fetch
from dsdoctor.run.sync.host_side.conversation import answer_to
from dsdoctor.run.sync.host_side.folders import Folders
from dsdoctor.run.sync.host_side.seen import kind_of, other_runs, users
from dsdoctor.run.sync.host_side.words import as_json
from dsdoctor.run.sync.rsync import Done, Rsync, unescaped
from dsdoctor.run.sync.session import Session, program
from dsdoctor.run.sync.source import look
from dsdoctor.run.sync.use import in_use, is_under_way, this_head
from dsdoctor.run.sync.view import grouped, relation
from tests.run.plans import plan_of, transports_of


class ByRsync(LocalTransport):
    """This machine as a host that rsync can be sent to."""

    def __init__(self) -> None:
        super().__init__(HostEntry("far", 1))

    def rsync_shell(self) -> Any:
        return ["ssh", "-p", "2222"], "alice@far"


def fake_rsync(folder: Path, body: str) -> str:
    """An rsync that writes down its arguments and then does this."""
    path = folder / "rsync"
    path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/argv\n{body}\n')
    path.chmod(0o755)
    return str(path)


def far(folder: Path) -> HostPlan:
    return plan_of({"s": {"far": "true"}}, folder).hosts[0]


class Copy:
    """The code on its way to a host, with an rsync that does what the test says."""

    def __init__(self, folder: Path, body: str, timeout: float = 30) -> None:
        self.rsync = Rsync(timeout, 20, program=fake_rsync(folder, body))
        self.session = Session(far(folder), ByRsync())
        self.seen: list[tuple[int, str]] = []

    def __call__(self, new: bool = False) -> Done:
        code = Code(self.rsync, "/src", ["/x y"])
        try:
            return code.copy(self.session, new, lambda percent, rate: self.seen.append((percent, rate)))[0]
        finally:
            self.session.close()


def test_arguments_are_a_list_and_progress_is_told(tmp_path: Path) -> None:
    body = "printf '  1,234  42%%   1.50MB/s    0:00:01\\r'; sleep 0.1; echo 'Number of created files: 0'"
    copy = Copy(tmp_path, body)
    assert not copy().changed
    assert copy.seen == [(42, "1.50MB/s")]
    argv = (tmp_path / "argv").read_text().splitlines()
    assert argv[:5] == ["-rlpt", "-s", "-8", "-e", "ssh -p 2222"]
    assert "--timeout=60" in argv, "of the other side, when this one is gone"
    assert "--exclude=/x y" in argv
    assert argv[-3:] == ["--", "/src/", f"alice@far:{tmp_path}/"]


def test_an_old_tree_stays_whole_until_the_new_one_is_there(tmp_path: Path) -> None:
    copy = Copy(tmp_path, "echo 'Number of created files: 0'")
    copy(new=False)
    argv = (tmp_path / "argv").read_text().splitlines()
    assert {"--delay-updates", "--delete-delay"} <= set(argv)
    assert "--delete" not in argv, "which deletes before the new files are there"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo 'sh: rsync: command not found' >&2; exit 127", "rsync is not installed there"),
        ("echo 'client_loop: send disconnect: Broken pipe' >&2; exit 255", "the connection was lost while copying"),
        ("echo 'io timeout after 20 seconds -- exiting' >&2; exit 30", "nothing came for 20 s"),
        ("echo 'protocol version mismatch -- is your shell clean?' >&2; exit 2", "login shell there prints"),
        ("exit 23", "rsync ended with code 23"),
        (
            'echo "rsync: [sender] send_files failed to open \\"/src/secret.key\\": Permission denied (13)" >&2;'
            "exit 23",
            "/src/secret.key cannot be read here (Permission denied (13))",
        ),
    ],
)
def test_what_went_wrong_is_said(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(SyncError) as caught:
        Copy(tmp_path, body)()
    assert words in str(caught.value)


def test_a_file_that_changes_while_it_is_copied_is_copied_again_and_then_named(tmp_path: Path) -> None:
    body = (
        f'echo x >> {tmp_path}/runs; case "$*" in *dry-run*) echo "<fcsT...... model.py";; '
        '*) echo "Number of regular files transferred: 3";; esac'
    )
    with pytest.raises(SyncError, match=r"after 3 attempts: model\.py"):
        Copy(tmp_path, body)()
    assert len((tmp_path / "runs").read_text().split()) == 6


def test_one_look_at_the_source_does_for_all_copies_that_ended_before_it(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("1")
    code = Code(Rsync(program="rsync"), str(tmp_path), [])
    ended = time.monotonic()
    assert code.as_before(ended)
    (tmp_path / "train.py").write_text("22")
    assert code.as_before(ended), "it was like that when that copy ended"
    assert not code.as_before(time.monotonic())
    assert not code.as_before(ended), "the copy may have begun after the change as well as before it"


def test_only_code_with_links_is_looked_through_for_those_that_lead_out(tmp_path: Path) -> None:
    source, calls = tmp_path / "source", tmp_path / "calls"
    source.mkdir()
    (source / "train.py").write_text("1")
    program = fake_rsync(tmp_path, f"echo >> {calls}; echo 'Number of regular files transferred: 1'")
    for name, wanted in (("train.py", 1), ("link.py", 1 + 2)):
        if name == "link.py":
            (source / name).symlink_to("train.py")
        session = Session(far(tmp_path), ByRsync())
        try:
            Code(Rsync(program=program), str(source), []).copy(session, True, lambda percent, rate: None)
        finally:
            session.close()
        assert len(calls.read_text()) == wanted


def test_an_interrupted_copy_ends_at_once(tmp_path: Path) -> None:
    copy = Copy(tmp_path, "exec sleep 1000")
    errors: list[BaseException] = []

    def run() -> None:
        try:
            copy()
        except SyncError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not (tmp_path / "argv").exists():
        time.sleep(0.01)
    copy.rsync.stop()
    thread.join(timeout=5)
    assert not thread.is_alive()
    assert errors


def test_progress_is_read_in_gulps_and_the_end_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gulps: list[bytes] = []
    take = rsync._Reading._take
    monkeypatch.setattr(rsync._Reading, "_take", lambda self, chunk: (gulps.append(chunk), take(self, chunk))[1])
    line = "printf '  1,234  %s%%   10.5MB/s    0:00:01\\r' $((i % 99))"
    body = f"i=0; while [ $i -lt 300 ]; do {line}; i=$((i+1)); sleep 0.002; done; echo 'Number of created files: 7'"
    told: list[int] = []
    done = Rsync(program=fake_rsync(tmp_path, body)).run(
        [str(tmp_path / "rsync")], lambda percent, rate: told.append(percent)
    )
    assert done.numbers["created"] == 7
    assert told
    assert len(gulps) < 150


def test_a_copy_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(SyncError, match="took longer than 1 s"):
        Copy(tmp_path, "exec sleep 1000", timeout=0.3)()


def test_an_absolute_exclude_is_refused_with_the_anchored_one(tmp_path: Path) -> None:
    plan = plan_of({"s": {"far": "true"}}, tmp_path)
    host = msgspec.structs.replace(plan.hosts[0], local=False)
    changed = msgspec.structs.replace(plan, hosts=(host,), sync=SyncPlan(str(tmp_path), (f"{tmp_path}/data",)))
    with pytest.raises(SyncError, match="Write /data"):
        sync(changed, transports_of(changed))


def test_names_as_rsync_prints_them() -> None:
    said = b"<f+++++++++ a\\#012b\n*deleting   old name\ncreated directory /x\n   100%  1.0MB/s\ncd+++++++++ d/\n"
    assert Done(0, said, b"", 0.0).items() == [
        ("<f+++++++++", "a\nb"),
        ("*deleting", "old name"),
        ("cd+++++++++", "d/"),
    ]
    assert os.fsencode(unescaped(b"caf\\#351")) == b"caf\xe9"


def test_a_change_of_the_source_is_seen_and_what_is_left_out_does_not_count(tmp_path: Path) -> None:
    for name in ("train.py", "outputs/log", "pkg/model.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    before = look(str(tmp_path), ["/outputs/"])
    assert before is not None
    (tmp_path / "outputs/log").write_text("more")
    assert look(str(tmp_path), ["/outputs/"]) == before
    (tmp_path / "pkg/model.py").write_text("y")
    os.utime(tmp_path / "pkg/model.py", ns=(0, before["pkg/model.py"][1]))
    assert look(str(tmp_path), ["/outputs/"]) != before, "the same size, the time put back"
    assert look("/nowhere", []) is None


# --- the host's side


@pytest.fixture
def folders() -> Iterator[Folders]:
    made = Folders()
    yield made
    made.close()


def opening(work: Path, name: str = "a", **more: Any) -> dict[str, Any]:
    who = {"id": name, "who": f"run {name}", "token": name, "run": name, "run_dir": str(work / "runs" / name)}
    return {"code": str(work / "code"), "trees": [], **who, **more}


def test_a_shared_folder_that_another_host_is_preparing_is_no_foreign_one(tmp_path: Path, folders: Folders) -> None:
    (tmp_path / "code/.dsdoctor-tokens").mkdir(parents=True)  # the other host's marker is not seen yet
    (tmp_path / "code/.dsdoctor-tokens/1-b").write_text("1-b")
    assert folders.open(opening(tmp_path))["code"] == "new"
    assert {path.name for path in (tmp_path / "code").iterdir()} == {".dsdoctor-sync", ".dsdoctor-tokens"}
    (tmp_path / "code/train.py").write_text("")
    assert folders.open(opening(tmp_path))["code"] == "ours"


@pytest.mark.parametrize("name", ["thesis.tex", ".hidden"])
def test_a_folder_with_anything_else_in_it_is_foreign(tmp_path: Path, folders: Folders, name: str) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / name).write_text("years of work")
    assert folders.open(opening(tmp_path))["code"] == "foreign"
    assert [path.name for path in (tmp_path / "code").iterdir()] == [name]


def test_one_sync_at_a_time_and_its_own_hosts_all_at_once(tmp_path: Path, folders: Folders) -> None:
    other, same = Folders(), Folders()
    assert "locked" not in folders.open(opening(tmp_path))
    assert "locked" not in same.open(opening(tmp_path)), "another host on the same file system"
    assert other.open(opening(tmp_path, "b")) == {"locked": "run a"}
    folders.close()
    assert "locked" not in other.open(opening(tmp_path, "b"))
    other.close()


def test_its_traces_are_gone_when_the_line_ends(tmp_path: Path) -> None:
    session = Session(msgspec.structs.replace(far(tmp_path), code_dir=str(tmp_path / "w/code")), ByRsync())
    assert session.ask("open", **opening(tmp_path / "w"))["code"] == "new"
    assert (tmp_path / "w/code/.dsdoctor-tokens/a").exists()
    session.close()
    left = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "w").rglob("*") if path.is_file())
    assert left == ["w/.dsdoctor-lock", "w/code/.dsdoctor-sync"]
    assert not (tmp_path / "w/code/.dsdoctor-tokens").exists()
    with pytest.raises(SyncError):
        session.ask("look", folders={}, names=[])


def test_another_python_compiles_the_host_s_side_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent, "MAGIC_NUMBER", b"none")
    sent.pack.cache_clear()
    try:
        text = program() + b"ping\n"
    finally:
        sent.pack.cache_clear()
    argv = [sys.executable, "-u", "-S", "-c", BOOT]
    done = subprocess.run(argv, input=text, capture_output=True, timeout=30, check=True)
    assert done.stdout == b"pong\n", done.stderr


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_what_a_host_says_is_json(value: Any) -> None:
    text = as_json(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert "\n" not in text


def test_a_host_without_that_python_says_so(tmp_path: Path) -> None:
    host = msgspec.structs.replace(far(tmp_path), python="/no/such/python")
    session = Session(host, ByRsync())
    with pytest.raises(SyncError, match="/no/such/python"):
        session.ask("look", folders={}, names=[])
    session.close()


def test_an_error_of_the_system_names_the_path_and_the_room(folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = answer_to(folders, {"do": "open", **opening(tmp_path / "file" / "work")})
    assert answer["error"] == "Not a directory"
    assert answer["room"]["free"] > 0


def test_links_that_lead_nowhere_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "good").symlink_to(tmp_path)
    assert [kind_of(str(tmp_path / name)) for name in ("link", "good", "x")] == ["none", "link", "none"]


# --- who uses the folder


def test_a_process_that_works_there_is_a_user_and_this_run_s_own_is_not(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs/mine"
    worker = subprocess.Popen(["sleep", "60"], cwd=tmp_path, env={"OUT": f"{tmp_path}/runs/other-1/outputs"})
    own = subprocess.Popen(["sleep", "60"], cwd=tmp_path, env={"OUT": f"{run_dir}/outputs"})
    try:
        found = users(str(tmp_path), str(run_dir))
        assert [(each["pid"], each["run"]) for each in found] == [(worker.pid, "other-1")]
        words = in_use({"users": found, "runs": []}, "node0")
        assert words == f"run other-1 (process {worker.pid} on node0: sleep 60)"
    finally:
        for process in (worker, own):
            process.kill()
            process.wait()


def test_a_run_between_two_stages_is_known_by_the_lock_of_its_directory(tmp_path: Path) -> None:
    entry = {"run": "a", "head": this_head(), "directory": str(tmp_path), "age": 5}
    assert not is_under_way(entry), "its directory is gone"
    with (tmp_path / "lock").open("w") as lock:
        assert not is_under_way(entry)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_under_way(entry)
    assert is_under_way({"run": "a", "head": "elsewhere", "age": 5}), "it may be about to start"
    assert not is_under_way({"run": "a", "head": "elsewhere", "age": 500})


def test_runs_that_were_given_the_code_are_kept_a_week(tmp_path: Path, folders: Folders) -> None:
    order = {"code": str(tmp_path / "code"), "run": "a", "head": "h", "directory": "/d"}
    folders.note(order)
    used = tmp_path / ".dsdoctor-used"
    assert [run["run"] for run in other_runs(str(used), "b")] == ["a"]
    assert other_runs(str(used), "a") == []
    (used / "broken").write_text("{")
    os.utime(used / "a", (0, 0))
    assert other_runs(str(used), "b") == []
    assert [path.name for path in used.iterdir()] == ["broken"]


# --- who sees whose folder


def test_a_folder_is_found_under_whatever_path_this_machine_has_it(tmp_path: Path) -> None:
    source = tmp_path / "home/alice/lab"
    for place in (source, source / "work/code", tmp_path / "home", tmp_path / "elsewhere"):
        (place / ".dsdoctor-tokens").mkdir(parents=True)
        (place / ".dsdoctor-tokens" / place.name).touch()
    there = "/nfs/alice/lab"  # what the host calls it
    assert relation(there, "lab", str(source)) == "same"
    assert relation(f"{there}/work/code", "code", str(source)) == "inside"
    assert relation("/nfs", "home", str(source)) == "around"
    assert relation(str(tmp_path / "elsewhere"), "elsewhere", str(source)) == "apart"
    assert relation(there, "unknown", str(source)) == "none"
    (tmp_path / "link").symlink_to(source)
    assert relation("/x", "lab", str(tmp_path / "link")) == "same"


def test_groups_are_those_who_see_the_first_one_s_token() -> None:
    seen = {"a": ["1", "2"], "b": ["1", "2"], "c": ["3"]}
    assert grouped(["a", "b", "c"], {"a": "1", "b": "2", "c": "3"}, seen) == [["a", "b"], ["c"]]
    assert grouped(["a", "b"], {"a": "1", "b": "2"}, {"a": [], "b": []}) == [["a"], ["b"]]


# --- bringing outputs back


def test_big_files_stay_and_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "echo 'model.safetensors is over max-size'; echo 'optim/a is over max-size'"
    fake_rsync(tmp_path, body)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    fetched = fetch(far(tmp_path), ByRsync(), "/run/outputs", tmp_path / "here")
    assert fetched == Fetched(left=("model.safetensors", "optim/a"))
    assert fetched.sentence("node0", "/run/outputs") == (
        "too big to be fetched, they stay in /run/outputs on node0: model.safetensors, optim/a"
    )
    fake_rsync(tmp_path, "exit 255")
    lost = fetch(far(tmp_path), ByRsync(), "/run/outputs", tmp_path / "here")
    assert "the connection was lost" in str(lost.sentence("node0", "/run/outputs"))


def test_a_host_that_answers_something_else_is_an_error(tmp_path: Path) -> None:
    transport = transports_of(plan_of({"s": {"far": "true"}}, tmp_path))["far"]
    with pytest.raises(HostAnswerError, match=r"exit code 1|ended"):
        ask(transport, "/bin/false", code_of, {})
    with pytest.raises(HostAnswerError, match="KeyError"):
        ask(transport, sys.executable, code_of, {})


def code_of(order: dict[str, Any]) -> Any:
    return order["code"]
