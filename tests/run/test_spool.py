"""A guardian's spool: bounded, with the last lines and an honest word about those that are gone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdoctor.run import kept
from dsdoctor.run.events import LineSeen
from dsdoctor.run.execute import execute
from dsdoctor.run.guardian.spool import Frames, Spool, segments
from dsdoctor.run.outcome import Manner
from dsdoctor.run.reach import look
from dsdoctor.run.stage_end import Limits
from tests.run.plans import Seen, directory_for, plan_of, transports_of
from tests.run.test_detached import head_of, wait_for_lines
from tests.run.test_peers import until


def written(folder: Path, limit: int, count: int) -> Spool:
    spool = Spool(str(folder), limit)
    for number in range(count):
        spool.write({"e": "line", "x": f"line {number}"})
    return spool


def texts(lines: bytes) -> list[str]:
    return [json.loads(line).get("x") for line in lines.splitlines()]


def size_of(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in ("frames", "frames.old") if (folder / name).exists())


def all_of(frames: Frames) -> list[str]:
    found: list[str] = []
    while lines := frames.read():
        found += texts(lines)
    return found


def test_a_spool_holds_so_much_the_last_lines_and_their_offsets(tmp_path: Path) -> None:
    spool = written(tmp_path, 10_000, 2000)
    assert 5000 <= size_of(tmp_path) <= 10_100
    frames = Frames(str(tmp_path), 0)
    got = all_of(frames)
    assert got[-1] == "line 1999"
    assert got == [f"line {number}" for number in range(2000 - len(got), 2000)]
    assert frames.gone + size_of(tmp_path) == frames.at == spool.size
    assert all_of(Frames(str(tmp_path), spool.size)) == []
    spool.write({"e": "line", "x": "more"})
    assert all_of(Frames(str(tmp_path), frames.at)) == ["more"], "an offset means the same line as ever"


def test_a_spool_without_a_limit_keeps_all(tmp_path: Path) -> None:
    written(tmp_path, 0, 2000)
    frames = Frames(str(tmp_path), 0)
    assert (len(all_of(frames)), frames.gone) == (2000, 0)
    assert not (tmp_path / "frames.old").exists()


def test_what_a_head_must_hear_outlives_the_lines_around_it(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path), 4000)
    spool.write({"e": "started", "pid": 7})
    for number in range(1000):
        spool.write({"e": "line", "x": str(number)})
    kinds = [json.loads(line)["e"] for line in Frames(str(tmp_path), 0).read().splitlines()]
    assert "started" in kinds


def test_a_spool_that_is_opened_again_goes_on_where_it_was(tmp_path: Path) -> None:
    size = written(tmp_path, 4000, 500).size
    with (tmp_path / "frames").open("ab") as file:
        file.write(b'{"e": "line", "x": "half a li')  # killed in the middle
    again = Spool(str(tmp_path), 4000)
    assert again.size == size
    again.write({"e": "exit"})
    assert json.loads((tmp_path / "frames").read_bytes().splitlines()[-1])["at"] == size


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=30), st.integers(200, 3000))
def test_who_reads_along_gets_every_line_once_or_is_told_how_much_is_gone(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, bool]], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool, frames, got, number = Spool(str(folder), limit), Frames(str(folder), 0), [], 0
    for count, reads in steps:
        for _ in range(count):
            spool.write({"e": "line", "x": number})
            number += 1
        got += all_of(frames) if reads else []
    got += all_of(frames)
    assert got == sorted(set(got))
    assert frames.at == spool.size
    assert got == list(range(number)) or frames.gone
    assert number == 0 or got[-1] == number - 1
    assert segments(str(folder))[-1][1].endswith("frames")


@pytest.mark.slow
def test_the_next_head_is_told_of_what_a_host_did_not_keep_and_has_the_last_lines(tmp_path: Path) -> None:
    go = tmp_path / "go"
    flood = "for number in range(3000): print('@rank0@ flood', number, flush=True)"
    script = f'echo up; while [ ! -e {go} ]; do sleep 0.1; done; {sys.executable} -c "{flood}"'
    directory = directory_for({"one": {"a": script}}, tmp_path)
    plan = plan_of({"one": {"a": script}}, directory.path)
    limits = Limits(lifeline=5, grace=1, settle=0.3, spool=40_000)
    kept.save(directory, plan, kept.Way(), limits)
    head = head_of(directory)
    wait_for_lines(directory, "1-one", 1)
    head.kill()
    head.wait()
    go.touch()
    what = kept.load(directory)
    until(lambda: look(what, transports_of(plan))[0].alive is None, 60)
    spool = directory.path / "a/guard/1-one.1/a"
    assert size_of(spool) <= 41_000
    seen = Seen()
    with directory.locked():
        outcome = execute(plan, transports_of(plan), directory, seen, limits=limits, manner=Manner(detach=True))
    assert outcome.status == "done"
    shown: list[Any] = [event.text for event in seen.of(LineSeen)]  # type: ignore[attr-defined]
    assert any("kB of what was printed here are not kept any more" in text for text in shown)
    assert "flood 2999" in shown
    log = (directory.logs("1-one") / "merged.log").read_text()
    assert "are not kept any more" in log
    assert "flood 2999" in log
