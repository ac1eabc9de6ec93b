"""What the stacks of all ranks say together: who waits, in what, and for whom."""

from __future__ import annotations

from typing import Any

import pytest

from dsdoctor.logs.stacks import Frame, Look, judge, looks_of

TORCH = "/venv/lib/python3.11/site-packages/torch/distributed"
C10D = f"{TORCH}/distributed_c10d.py"
REDUCE = (
    *(Frame("all_reduce", C10D, 3010), Frame("wrapper", f"{TORCH}/c10d_logger.py", 81)),
    Frame("train", "/w/train.py", 31),
)
BARRIER = (Frame("barrier", C10D, 4800), Frame("save", "/w/train.py", 40))
TOKENS = (Frame("encode", "/venv/lib/python3.11/site-packages/tokenizers/x.py", 3), Frame("tokenize", "/w/data.py", 12))
SLEEP = (Frame("fetch", "/w/data.py", 20),)


def look(rank: int, frames: tuple[Frame, ...] = (), **more: Any) -> Look:
    return Look(f"node{rank // 2}", rank, 100 + rank, frames=frames, **more)


def test_a_rank_elsewhere_that_does_nothing_is_behind() -> None:
    standing = judge([look(0, REDUCE), look(1, REDUCE), look(2, REDUCE), look(3, SLEEP)])
    assert standing.kind == "stuck"
    assert standing.text == (
        "rank 3 on node1 is in fetch (data.py:20), ranks 0-2 wait in all_reduce (train.py:31): "
        "rank 3 on node1 is behind"
    )
    assert standing.behind is not None
    assert standing.behind.rank == 3


def test_a_rank_elsewhere_that_works_is_waited_for() -> None:
    for doing in ({"moved": True}, {"cpu": 0.9}, {"moved_bytes": 5e7}, {"state": "R"}):
        standing = judge([look(0, TOKENS, **doing), look(1, BARRIER), look(2, BARRIER)])
        assert standing.kind == "waiting", doing
        assert standing.text == (
            "rank 0 on node0 is in tokenize (data.py:12, in encode), ranks 1-2 wait in barrier (train.py:40)"
        )


def test_a_rank_that_computes_for_ever_is_a_loop_unless_it_evaluates_or_saves() -> None:
    loop = judge([look(0, TOKENS, cpu=1.0), look(1, BARRIER)])
    assert (loop.kind, loop.patience) == ("waiting", 30)
    saving = (Frame("write", "/w/io.py", 3), Frame("save_checkpoint", "/w/train.py", 40))
    assert judge([look(0, saving, moved_bytes=5e7), look(1, BARRIER)]).patience == float("inf")


def test_ranks_that_all_work_are_well() -> None:
    assert judge([look(0, SLEEP, cpu=0.3), look(1, SLEEP, moved=True)]).kind == "working"


def test_a_stopped_rank_is_stuck_whatever_the_others_do() -> None:
    standing = judge([look(0, REDUCE, cpu=1.0), look(1, SLEEP, state="T"), look(2, SLEEP, cpu=1.0)])
    assert standing.kind == "stuck"
    assert standing.text.endswith("; kill -CONT 101 on node0 wakes it")
    assert standing.behind is not None
    assert standing.behind.rank == 1


def test_a_spinning_collective_is_waiting_and_a_busy_gpu_is_unclear() -> None:
    spinning = [look(rank, REDUCE, cpu=1.0, gpu=True) for rank in range(3)]
    assert judge(spinning).kind == "stuck"
    assert judge(spinning).text.endswith(": none is behind, so what they send does not arrive")
    busy = [look(rank, (Frame("step", "/w/train.py", 50),), cpu=1.0, gpu=True) for rank in range(3)]
    assert (judge(busy).kind, judge(busy).patience) == ("unclear", 3)
    evaluating = [look(rank, (Frame("evaluate", "/w/train.py", 50),), cpu=1.0, gpu=True) for rank in range(3)]
    assert judge(evaluating).patience == 10


def test_different_collectives_are_told() -> None:
    standing = judge([look(0, REDUCE), look(1, BARRIER)])
    assert standing.kind == "stuck"
    assert "different collectives" in standing.text


def test_a_function_of_that_name_elsewhere_is_no_collective() -> None:
    assert look(0, (Frame("reduce", "/w/train.py", 3),)).collective is None


def test_hosts_that_could_not_be_looked_at_leave_it_open() -> None:
    standing = judge([look(0, REDUCE)], ["node1"])
    assert (standing.kind, standing.patience) == ("unclear", 3)
    assert standing.text.endswith("; node1 could not be looked at")
    assert judge([], ["node1"]).kind == "unclear"


def test_without_stacks_the_kernel_tells() -> None:
    standing = judge([look(0, wait="ep_poll"), look(1, wait="hrtimer_nanosleep"), look(2, wait="ep_poll")])
    assert standing.kind == "stuck"
    assert standing.text == "rank 1 on node0 sleeps in hrtimer_nanosleep, ranks 0, 2 sleep in ep_poll"
    assert standing.behind is not None
    assert standing.behind.rank == 1
    assert "a disk or a file system does not answer" in judge([look(0, state="D", wait="nfs_wait")]).text


def answered(**more: Any) -> dict[str, Any]:
    frames = [{"name": "fetch", "filename": "/w/data.py", "line": 20}]
    stacks = [{"os_thread_id": 9, "thread_name": "Thread-1", "frames": []}, {"os_thread_id": 7, "frames": frames}]
    return {"ranks": [{"pid": 7, "rank": 1, "state": "S", "cpu": 0.01, "stacks": stacks, **more}]}


def test_an_answer_becomes_a_look_and_a_text() -> None:
    [(seen, text)] = looks_of("node1", answered(wait="ep_poll", threads=[{"id": "7", "name": "python", "state": "S"}]))
    assert seen.frames == (Frame("fetch", "/w/data.py", 20),)
    assert seen.place == "is in fetch (data.py:20)"
    assert "rank 1 on node1, process 7: state S" in text
    assert "    fetch (/w/data.py:20)" in text


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"ranks": 3},
        {"ranks": [3, {"rank": "x"}, {"rank": 1}]},
        {"ranks": [{"rank": 1, "pid": 2, "stacks": 3}]},
    ],
)
def test_any_answer_is_taken(answer: Any) -> None:
    looks = looks_of("node1", answer)
    judge([seen for seen, _ in looks])


def test_an_answer_of_any_length_is_cut() -> None:
    frames = [{"name": "f" * 5000, "filename": "/w/a.py", "line": 1}] * 5000
    [(seen, text)] = looks_of("node1", {"ranks": [{"pid": 7, "rank": 1, "stacks": [{"frames": frames}] * 500}]})
    assert len(seen.frames) == 120
    assert len(text) < 3_000_000
