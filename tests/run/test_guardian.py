"""The guardian, as a real process on this machine: what it forwards, and that nothing it started outlives it."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.run.guard import BOOT
from dsdoctor.run.guardian import MARKER, cgroup, owner
from dsdoctor.run.guardian.left_behind import end_left_behind, left_behind
from dsdoctor.run.guardian.spool import ask_to_stop
from dsdoctor.run.sent import sent_source

SOURCE = sent_source()


class Started:
    """A guardian under test, spoken to as the head speaks to it."""

    def __init__(self, argv: list[str], **order: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-c", BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        whole = {"argv": argv, "cwd": "/", "env": {}, "lifeline_seconds": 30, "grace_seconds": 1, **order}
        self.write(b"%d\n%s%s\n" % (len(SOURCE), SOURCE, json.dumps(whole).encode()))

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        view = memoryview(data)
        while view:
            view = view[self.process.stdin.write(view) :]

    def frames(self) -> list[dict[str, Any]]:
        """Everything it says until its end, beats left out."""
        assert self.process.stdout is not None
        blank, first, *rest = self.process.stdout.read().decode().splitlines()
        assert (blank, first) == ("", MARKER)
        return [frame for frame in map(json.loads, rest) if frame["e"] != "beat"]

    def frames_without_times(self) -> list[dict[str, Any]]:
        """The same, without when each was made."""
        return [{key: value for key, value in frame.items() if key != "m"} for frame in self.frames()]

    def frames_left(self) -> list[dict[str, Any]]:
        """What it says from now on, beats left out."""
        assert self.process.stdout is not None
        frames = [json.loads(line) for line in self.process.stdout.read().decode().splitlines() if line]
        return [frame for frame in frames if frame["e"] != "beat"]

    def until(self, kind: str, **values: Any) -> list[dict[str, Any]]:
        """The frames up to one of that kind that has these values."""
        assert self.process.stdout is not None
        seen: list[dict[str, Any]] = []
        for raw in iter(self.process.stdout.readline, b""):
            if not raw.startswith(b"{"):
                continue
            seen.append(json.loads(raw))
            if seen[-1]["e"] == kind and values.items() <= seen[-1].items():
                return seen
        raise AssertionError(f"the guardian ended without {kind} {values}")

    def line(self) -> str:
        """The next line the command printed."""
        assert self.process.stdout is not None
        raw = b""
        while True:
            byte = self.process.stdout.read(1)
            assert byte, "the guardian ended"
            raw += byte
            if byte == b"\n":
                if b'"line"' in raw:
                    return str(json.loads(raw)["x"])
                raw = b""


@contextmanager
def guardian(argv: list[str], **order: Any) -> Iterator[Started]:
    started = Started(argv, **order)
    try:
        yield started
    finally:
        if started.process.stdin:
            started.process.stdin.close()
        started.process.wait(timeout=20)
        if started.process.stdout:
            started.process.stdout.close()


def alive(pid: int) -> bool:
    try:
        with Path(f"/proc/{pid}/stat").open(encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False


def test_lines_carry_the_rank_and_the_exit_code_is_true() -> None:
    script = "echo '@rank3@ a'; echo '[default1]:b' >&2; echo plain; exit 7"
    with guardian(["bash", "-c", script], first_rank=4) as started:
        frames = started.frames_without_times()
    lines = {(frame["r"], frame["s"], frame["x"]) for frame in frames if frame["e"] == "line"}
    assert lines == {(3, "o", "a"), (5, "e", "b"), (None, "o", "plain")}
    assert frames[-1] == {"e": "exit", "code": 7, "stopped": None, "peer": None, "left": 0, "oom_kills": 0}


def test_a_signal_is_a_negative_code() -> None:
    with guardian(["bash", "-c", "kill -9 $$"]) as started:
        assert started.frames()[-1]["code"] == -9


def test_environment_and_folders_arrive_as_they_are(tmp_path: Any) -> None:
    odd = "spaces 'quotes' \"double\" $HOME `id` \\ \n 中文"
    folder = tmp_path / "a" / "b"
    with guardian(
        [sys.executable, "-c", "import os; print(ascii(os.environ['ODD']))"], env={"ODD": odd}, make=[str(folder)]
    ) as started:
        frames = started.frames()
    assert ascii(odd) in [frame.get("x") for frame in frames]
    assert folder.is_dir()


@pytest.mark.parametrize(
    ("argv", "cwd", "words"),
    [
        (["/no/such/python"], "/", "/no/such/python could not be started in /: No such file"),
        (["true"], "/no/such/folder", "the folder /no/such/folder is not there"),
    ],
)
def test_what_cannot_be_started_is_said(argv: list[str], cwd: str, words: str) -> None:
    with guardian(argv, cwd=cwd) as started:
        frames = started.frames()
    assert frames[0]["e"] == "error"
    assert words in frames[0]["text"]


FAMILY = """
import os, subprocess, sys, time
inner = "import os,time; print(os.getpid(), flush=True); time.sleep(1000)"
if os.fork() == 0:
    os.setsid()  # a new session, then the parent goes: without a subreaper what is below would be init's
    if os.fork() == 0:
        subprocess.Popen([sys.executable, "-c", inner], start_new_session=True)
    os._exit(0)
time.sleep(%s)
"""


def test_a_child_that_outlives_its_parents_is_ended_with_the_job() -> None:
    with guardian([sys.executable, "-c", FAMILY % "0.5"]) as started:
        orphan = int(started.line())
        assert gone_within(orphan, 5)


@pytest.mark.parametrize("how", ["stop", "close", "silence", "term"])
def test_every_way_of_losing_the_head_ends_the_whole_tree(how: str) -> None:
    lifeline = 1 if how == "silence" else 30
    with guardian([sys.executable, "-c", FAMILY % "1000"], lifeline_seconds=lifeline) as started:
        orphan = int(started.line())
        assert alive(orphan)
        if how == "stop":
            started.write(b'{"c":"stop"}\n')
        elif how == "close":
            assert started.process.stdin is not None
            started.process.stdin.close()
        elif how == "term":
            os.kill(started.process.pid, 15)
        assert gone_within(orphan, 8)
        assert started.process.wait(timeout=10) == 0


def test_a_command_that_ignores_term_is_killed_after_the_grace() -> None:
    script = (
        "import os,signal,time; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(1000)"
    )
    with guardian([sys.executable, "-c", script], grace_seconds=0.5) as started:
        pid = int(started.line())
        began = time.monotonic()
        started.write(b'{"c":"stop"}\n')
        assert gone_within(pid, 5)
        assert time.monotonic() - began > 0.4


def test_every_module_that_is_sent_is_python_3_8() -> None:
    for path in Path(owner.__file__).parent.glob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("victim", ["guardian", "keeper"])
def test_one_kill_9_leaves_nothing_not_even_a_child_that_forked_twice(victim: str, tmp_path: Path) -> None:
    with guardian([sys.executable, "-c", FAMILY % "1000"], spool=str(tmp_path / "spool")) as started:
        orphan = int(started.line())
        (owner,) = children(started.process.pid)
        (job,) = [pid for pid in children(owner) if b"fork" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(owner if victim == "guardian" else started.process.pid, 9)
        assert gone_within(orphan, 4)
        assert gone_within(job, 4)
        last = started.frames_left()[-1]
        assert gone_within(owner, 4)
    said = {"guardian": "its guardian was killed (SIGKILL)", "keeper": "its keeper was killed"}[victim]
    assert (last["e"], last["stopped"], last["left"]) == ("exit", said, 0)
    spooled = [json.loads(line) for line in (tmp_path / "spool/frames").read_text().splitlines()]
    assert spooled[-1]["stopped"] == said
    assert json.loads((tmp_path / "spool/end").read_text())["stopped"] == said


# Forks twice, forgets its environment and the mark in it, and takes no notice of TERM.
FORGETFUL = """
import os, signal, sys
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        os.execve("/bin/sleep", ["sleep", "1000"], {})
    os._exit(0)
signal.pause()
"""


def groups() -> set[str]:
    """The control groups that guardians started from here may have left."""
    above = cgroup.own()
    return {path.name for path in Path(above).glob(cgroup.PREFIX + "*")} if above else set()


@pytest.mark.parametrize("victims", ["none", "guardian", "keeper", "both"])
def test_what_forgets_its_environment_is_still_in_the_control_group(victims: str, tmp_path: Path) -> None:
    trial = cgroup.make()
    if trial is None:
        pytest.skip("no control group (version 2) can be made here")
    cgroup.remove(trial)
    before, guards = groups(), tmp_path / "run" / "guard"
    spool, marked = guards / "1-only.1" / "a", {"DSDOCTOR_RUN": str(tmp_path / "run")}
    spool.mkdir(parents=True)
    with guardian([sys.executable, "-c", FORGETFUL], spool=str(spool), env=marked) as started:
        forgetful = int(started.line())
        (owner_pid,) = children(started.process.pid)
        group = json.loads((spool / "identity").read_text())["cgroup"]
        assert Path(group).name in Path(f"/proc/{forgetful}/cgroup").read_text()
        assert Path(group).name not in Path(f"/proc/{owner_pid}/cgroup").read_text()
        if victims in ("keeper", "both"):
            os.kill(started.process.pid, signal.SIGSTOP if victims == "both" else signal.SIGKILL)
        if victims in ("guardian", "both"):
            os.kill(owner_pid, signal.SIGKILL)
        if victims == "both":
            os.kill(started.process.pid, signal.SIGKILL)
            assert wait_until_left_behind(str(guards)) == [forgetful]
            assert end_left_behind(str(guards), 0.2) == 1
        elif victims == "none":
            started.write(b'{"c": "stop"}\n')
        assert gone_within(forgetful, 30)
        assert gone_within(owner_pid, 30)
    assert groups() <= before


def wait_until_left_behind(guards: str) -> list[int]:
    """What nobody guards, once what takes notice of TERM has gone."""
    deadline = time.monotonic() + 30
    while len(left_behind(guards)) != 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    return left_behind(guards)


def test_a_guardian_that_is_stopped_is_woken() -> None:
    with guardian(["sleep", "1000"], lifeline_seconds=2) as started:
        deadline = time.monotonic() + 30
        while not children(started.process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (owner,) = children(started.process.pid)
        os.kill(owner, 19)
        assert gone_within(owner, 60), "it sees that its head says nothing"


def test_what_is_printed_after_the_line_broke_is_in_the_spool(tmp_path: Path) -> None:
    script = "trap 'echo last words; exit 3' TERM; echo first; sleep 1000 & wait"
    with guardian(["bash", "-c", script], spool=str(tmp_path / "spool")) as started:
        assert started.line() == "first"
        assert started.process.stdin is not None
        assert started.process.stdout is not None
        started.process.stdout.close()
        started.process.stdin.close()
        started.process.wait(timeout=10)
    raw = (tmp_path / "spool/frames").read_bytes()
    frames = [json.loads(line) for line in raw.splitlines()]
    assert [frame["x"] for frame in frames if frame["e"] == "line"] == ["first", "last words"]
    assert frames[-1]["stopped"] in ("the line to the head closed", "the line to the head broke")
    for frame in frames:
        assert json.loads(raw[frame["at"] :].split(b"\n")[0]) == frame, "`at` is where the line begins"


def test_a_spool_that_cannot_be_written_is_said_once_and_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    script = "for i in 1 2 3; do echo $i; sleep 0.6; done; exit 5"
    with guardian(["bash", "-c", script], spool=str(tmp_path / "file/spool")) as started:
        frames = started.frames()
    assert [frame["x"] for frame in frames if frame["e"] == "line"] == ["1", "2", "3"]
    assert frames[-1]["code"] == 5
    (note,) = [frame["text"] for frame in frames if frame["e"] == "note"]
    assert "file/spool (Not a directory); the job goes on" in note


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.02)


def test_the_stop_file_stops_an_attached_job_too(tmp_path: Path) -> None:
    with guardian(["sleep", "1000"], spool=str(tmp_path / "spool")) as started:
        wait_for(tmp_path / "spool")
        ask_to_stop(str(tmp_path / "spool"), "told by a test")
        assert started.frames()[-1]["stopped"] == "told by a test"


def test_the_next_attempt_ends_a_guardian_whose_head_was_lost(tmp_path: Path) -> None:
    first, second = (str(tmp_path / "guard" / f"1-one.{number}" / "a") for number in (1, 2))
    with guardian(["sleep", "1000"], spool=first) as lost:
        wait_for(Path(first) / "identity")
        with guardian(["echo", "second"], spool=second) as started:
            assert started.frames()[-1]["code"] == 0
        assert lost.frames()[-1]["stopped"] == "another attempt begins"


def test_a_line_of_megabytes_comes_in_pieces() -> None:
    with guardian([sys.executable, "-c", "print('x' * 3_000_000)"]) as started:
        frames = started.frames()
    pieces = [frame["x"] for frame in frames if frame["e"] == "line"]
    assert sum(map(len, pieces)) == 3_000_000
    assert max(map(len, pieces)) <= 64 * 1024


@pytest.mark.parametrize(
    "line", ["@rank" + "9" * 5000 + "@ x", "[default" + "9" * 5000 + "]:x", "@rank@", "\\xff\\xfe"]
)
def test_a_line_made_to_hurt_is_only_a_line(line: str) -> None:
    with guardian(["bash", "-c", f"printf '{line}\\n'; echo after"]) as started:
        frames = started.frames()
    assert [frame["x"] for frame in frames if frame["e"] == "line"][-1] == "after"


def test_a_prefix_inside_a_line_is_taken_out_and_a_long_line_keeps_its_rank() -> None:
    script = "printf '@rank1@ .@rank1@ .\\n@rank2@ '; head -c 200000 /dev/zero | tr '\\0' y; echo; echo plain"
    with guardian(["bash", "-c", script]) as started:
        lines = [(frame["r"], frame["x"][:3]) for frame in started.frames() if frame["e"] == "line"]
    assert lines == [(1, ".."), *[(2, "yyy")] * 4, (None, "pla")]


def test_a_head_that_reads_nothing_any_more_does_not_keep_the_guardian() -> None:
    with guardian(["bash", "-c", "yes | head -c 50000000"], lifeline_seconds=1) as started:
        assert started.process.wait(timeout=30) == 0  # nobody reads its pipe


def test_another_process_is_left_alone() -> None:
    other = subprocess.Popen(["sleep", "1000"])
    try:
        with guardian(["sleep", "1000"]) as started:
            started.write(b'{"c":"stop"}\n')
            assert started.frames()[-1]["left"] == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_what_nobody_guards_is_ended_by_the_next_attempt_and_nothing_else(tmp_path: Path) -> None:
    guards = tmp_path / "run/guard"
    marked = {**os.environ, "DSDOCTOR_RUN": str(tmp_path / "run")}
    sleeping = ["sleep", "1000"]
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(1000)"
    deaf = [sys.executable, "-c", script]
    orphan = subprocess.Popen(deaf, env=marked, stdout=subprocess.PIPE)
    others = [
        subprocess.Popen(sleeping),
        subprocess.Popen(sleeping, env={**marked, "DSDOCTOR_RUN": f"{tmp_path}/run2"}),
        subprocess.Popen(sleeping, env={**os.environ, "X": f"DSDOCTOR_RUN={tmp_path}/run"}),
    ]
    order = {"env": {"DSDOCTOR_RUN": marked["DSDOCTOR_RUN"]}}
    try:
        assert orphan.stdout is not None
        orphan.stdout.readline()
        with guardian(["bash", "-c", "echo $$; sleep 1000"], spool=f"{guards}/1-one.1/a", **order) as other_host:
            guarded = int(other_host.line())
            with guardian(["true"], spool=f"{guards}/1-one.1/b", **order) as started:
                assert started.frames()[-1]["code"] == 0
            assert orphan.wait(timeout=20) == -9
            assert alive(guarded), "a host of another name here, of the same run"
            assert all(other.poll() is None for other in others)
    finally:
        for process in (orphan, *others):
            process.kill()
            process.wait()
