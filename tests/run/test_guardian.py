"""The guardian, as a real process on this machine: what it forwards, and that nothing it started outlives it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.run.guard import BOOT
from dsdoctor.run.guardian import MARKER

SOURCE = resources.files("dsdoctor.run").joinpath("guardian.py").read_bytes()


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
        frames = started.frames()
    lines = {(frame["r"], frame["s"], frame["x"]) for frame in frames if frame["e"] == "line"}
    assert lines == {(3, "o", "a"), (5, "e", "b"), (None, "o", "plain")}
    assert frames[-1] == {"e": "exit", "code": 7, "stopped": None, "left": 0, "oom_kills": 0}


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


def test_the_command_is_told_to_end_when_the_guardian_is_killed_outright() -> None:
    with guardian(
        [sys.executable, "-c", "import os,time; print(os.getpid(), flush=True); time.sleep(1000)"]
    ) as started:
        pid = int(started.line())
        started.process.kill()
        assert gone_within(pid, 3)


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
