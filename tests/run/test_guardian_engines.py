"""The guardian with engines that are no torchrun: ranks of its own, DeepSpeed's files, and where the ranks meet."""

from __future__ import annotations

import socket
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsdoctor.run.guard import order_for
from dsdoctor.run.guardian.launched import Failures
from tests.run.plans import plan_of
from tests.run.test_guardian import guardian

PYTHON = [sys.executable, "-u", "-c"]
RANKS = [{"rank": 4, "env": {"RANK": "4"}}, {"rank": 5, "env": {"RANK": "5"}}]

# What deepspeed.launcher.launch 0.19.8 does, without torch: files, log lines, a look once a second.
LAUNCHER = """
import os, subprocess, sys, time
folder, first, count, pause, script = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
os.makedirs(folder, exist_ok=True)
processes = []
for rank in range(first, first + count):
    log = open(f"{folder}/20260101000000_rank{rank}.log", "w")
    process = subprocess.Popen([sys.executable, "-u", "-c", script], env={"RANK": str(rank)}, stdout=log, stderr=log)
    print(f"[INFO] [launch.py:272:main] process {process.pid} spawned with command: x", flush=True)
    processes.append(process)
alive = set(processes)
while alive:
    for process in list(alive):
        if process.poll() is None:
            continue
        alive.discard(process)
        if process.returncode == 0:
            print(f"[INFO] [launch.py:367:main] Process {process.pid} exits successfully.", flush=True)
            continue
        for each in processes:
            print(f"[INFO] [launch.py:335:sigkill_handler] Killing subprocess {each.pid}", flush=True)
            if each.poll() is None:
                each.kill()
                each.wait()
        print(f"[ERROR] [launch.py:341:sigkill_handler] x exits with return code = {process.returncode}", flush=True)
        sys.exit(process.returncode)
    time.sleep(pause)
"""


def launched(folder: Path, script: str, *, first: int = 0, count: int = 2, pause: float = 1.0) -> dict[str, Any]:
    script = textwrap.dedent(script)
    return {
        "argv": [*PYTHON, LAUNCHER, str(folder), str(first), str(count), str(pause), script],
        "first_rank": first,
        "rank_logs": {"folder": str(folder), "ranks": list(range(first, first + count))},
    }


def lines(frames: list[dict[str, Any]]) -> list[tuple[int | None, str]]:
    return [(frame["r"], frame["x"]) for frame in frames if frame["e"] == "line"]


# --- ranks that it starts itself


def test_each_rank_has_its_own_variables_and_its_lines_carry_it() -> None:
    script = "import os; os.write(1, ('@rank0@ I am ' + os.environ['RANK'] + ' of ' + os.environ['ALL']).encode())"
    with guardian([*PYTHON, script], ranks=RANKS, env={"ALL": "two"}) as started:
        frames = started.frames()
    assert sorted(lines(frames)) == [(4, "@rank0@ I am 4 of two"), (5, "@rank0@ I am 5 of two")], "it is no prefix here"
    assert frames[-1]["code"] == 0
    assert [frame for frame in frames if frame["e"] == "ranks_up"]


def test_the_first_rank_that_fails_is_told_and_the_others_are_ended() -> None:
    script = """
        import os, sys, time
        if os.environ["RANK"] == "5":
            os.kill(os.getpid(), 9)
        time.sleep(1000)
    """
    began = time.monotonic()
    with guardian([*PYTHON, textwrap.dedent(script)], ranks=RANKS) as started:
        frames = started.frames()
    assert [(frame["r"], frame["code"]) for frame in frames if frame["e"] == "rank"] == [(5, -9)]
    assert (frames[-1]["code"], frames[-1]["left"], frames[-1]["stopped"]) == (-9, 0, None)
    assert time.monotonic() - began < 8


def test_a_rank_that_is_done_waits_for_the_others() -> None:
    script = "import os, time; time.sleep(0 if os.environ['RANK'] == '4' else 0.6); print('done', flush=True)"
    with guardian([*PYTHON, script], ranks=RANKS) as started:
        frames = started.frames()
    assert [rank for rank, _ in lines(frames)] == [4, 5]
    assert frames[-1]["code"] == 0


def test_ranks_that_are_stopped_have_not_failed() -> None:
    with guardian([*PYTHON, "import time; print('up'); time.sleep(1000)"], ranks=RANKS) as started:
        assert started.line() == "up"
        started.write(b'{"c":"stop"}\n')
        frames = started.frames_left()
    assert not [frame for frame in frames if frame["e"] == "rank"]
    assert (frames[-1]["stopped"], frames[-1]["code"]) == ("told to", -15)


def test_a_rank_s_line_without_an_end_is_told_apart_from_the_next_rank_s() -> None:
    with guardian(["printf", "@rank0@ bye@rank1@ left@rank1@ over@rank0@ .\\n"]) as started:
        frames = started.frames()
    assert lines(frames) == [(0, "bye"), (1, "leftover"), (0, ".")]


# --- DeepSpeed's files


def test_the_files_are_read_live_and_to_their_last_byte(tmp_path: Path) -> None:
    script = """
        import os, time
        os.write(1, b"first\\n")
        time.sleep(1.5 if os.environ["RANK"] == "2" else 0)
        os.write(2, b"last, without an end")
    """
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/20250101000000_rank2.log").write_text("of an earlier attempt\n")
    (tmp_path / "logs/20250101000000_rank9.log").write_text("of another host\n")
    with guardian(**launched(tmp_path / "logs", script, first=2)) as started:
        began = time.monotonic()
        first = [started.line() for _ in range(2)]  # the launcher's own are among them
        while "first" not in first:
            first.append(started.line())
        live = time.monotonic() - began
        frames = started.frames_left()
    assert live < 1.2, "before the launcher ended"
    said = lines(frames)
    assert {(2, "last, without an end"), (3, "last, without an end")} <= {*said, *((None, text) for text in first)} | {
        (3, text) for text in first
    }
    assert (2, "last, without an end") in said
    assert "of an earlier attempt" not in [text for _, text in said]
    assert (tmp_path / "logs/20250101000000_rank9.log").exists(), "hosts may share the folder"
    assert frames[-1]["code"] == 0


def test_much_output_is_not_lost(tmp_path: Path) -> None:
    script = "import os; [os.write(1, b'%d\\n' % n) for n in range(20000)]; os.write(1, b'x' * 100000)"
    with guardian(**launched(tmp_path / "logs", script, count=1)) as started:
        frames = started.frames()
    mine = [text for rank, text in lines(frames) if rank == 0]
    assert mine[:20000] == [str(number) for number in range(20000)]
    assert "".join(mine[20000:]) == "x" * 100000


@pytest.mark.parametrize(
    ("failing", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", -9), ("raise SystemError('x')", 1)]
)
def test_which_of_deepspeed_s_ranks_failed_is_told(tmp_path: Path, failing: str, code: int) -> None:
    script = f"""
        import os, sys, time
        if os.environ["RANK"] == "4":
            {failing}
        time.sleep(0 if os.environ["RANK"] == "3" else 1000)
    """
    with guardian(**launched(tmp_path / "logs", script, first=2, count=3)) as started:
        frames = started.frames()
    assert [(frame["r"], frame["code"]) for frame in frames if frame["e"] == "rank"] == [(4, code)]
    assert (frames[-1]["code"], frames[-1]["left"]) == (code, 0)


def test_a_rank_that_the_launcher_saw_first_is_told_from_what_it_says(tmp_path: Path) -> None:
    """The launcher here looks all the time, so that the guardian finds no zombie; a rank before it ended well."""
    script = """
        import os, sys, time
        rank = os.environ["RANK"]
        time.sleep({"0": 0.3, "1": 0.9}.get(rank, 1000))
        sys.exit(7 if rank == "1" else 0)
    """
    with guardian(**launched(tmp_path / "logs", script, count=3, pause=0.0005)) as started:
        frames = started.frames()
    assert [(frame["r"], frame["code"]) for frame in frames if frame["e"] == "rank"] in ([(1, 7)], [])
    assert frames[-1]["code"] == 7


def test_ended_ranks_that_nobody_saw_are_told_by_order() -> None:
    failures = Failures([4, 5, 6])
    gone = [2**22 + 4000 + number for number in range(3)]  # above pid_max: no such processes
    for pid in gone:
        failures.hear({"x": f"process {pid} spawned with command: ['python']"})
    failures.hear({"x": f"Process {gone[0]} exits successfully."})
    failures.look()
    failures.hear({"x": "['python'] exits with return code = -11"})
    assert failures.failed == {5: -11}


def test_ranks_are_up_when_all_have_their_file(tmp_path: Path) -> None:
    with guardian(**launched(tmp_path / "logs", "print('x')")) as started:
        frames = started.frames()
    assert len([frame for frame in frames if frame["e"] == "ranks_up"]) == 1
    order = {**launched(tmp_path / "none", ""), "argv": ["sleep", "0.3"]}
    with guardian(**order) as started:
        assert not [frame for frame in started.frames() if frame["e"] == "ranks_up"]


def test_the_folder_of_the_files_is_there_before_two_hosts_that_share_it_make_it(tmp_path: Path) -> None:
    plan = plan_of({"one": {"a": "true", "b": "true"}}, tmp_path)
    commands = tuple(
        msgspec.structs.replace(command, rank_logs=str(tmp_path / "ranks")) for command in plan.stages[0].commands
    )
    stage = msgspec.structs.replace(plan.stages[0], commands=commands)
    order = order_for(plan, stage, "b", 20, 5)
    assert str(tmp_path / "ranks") in order["make"]
    assert order["rank_logs"] == {"folder": str(tmp_path / "ranks"), "ranks": [1]}


# --- where the ranks meet


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_place_where_the_ranks_meet_is_seen_and_reached(family: socket.AddressFamily) -> None:
    address = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.socket(family) as place:
        try:
            place.bind((address, 0))
        except OSError:
            pytest.skip("no IPv6 here")
        port = place.getsockname()[1]
        orders = [{"addr": address, "port": port, "here": here} for here in (True, False)]
        with guardian(["sleep", "1000"], meet=orders[1]) as away, guardian(["sleep", "1000"], meet=orders[0]) as here:
            frames = {away: away.until("meet"), here: here.until("beat")}
            place.listen()
            frames[away] += away.until("meet", reached=True)
            frames[here] += here.until("meet", listening=True)
    said = {each: [frame for frame in frames[each] if frame["e"] == "meet"] for each in (away, here)}
    assert [frame.get("problem") for frame in said[away]] == ["Connection refused", None]
    assert len(said[here]) == 1
