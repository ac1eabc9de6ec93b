"""A run under watch, with real guardians and processes and no torch: what is said while it goes on, and what is not."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dsdoctor.logs.diagnose import diagnose
from dsdoctor.run.events import Noted, Progressed
from dsdoctor.run.execute import execute
from dsdoctor.run.outcome import Outcome
from dsdoctor.run.progress_file import read_progress
from dsdoctor.run.stage_end import Limits, Watching
from dsdoctor.run.watch import Watch
from tests.run.plans import Seen, directory_for, plan_of, transports_of


def quick(watching: Watching) -> Limits:
    return Limits(lifeline=5, grace=1, settle=0.3, watching=watching)


RANK = """\
import sys, time
def steps(count, pause=0.05):
    for step in range(count):
        print("@rank%d@ step %d loss %.4f" % (int(sys.argv[1]), step, 5 - step / 100), flush=True)
        time.sleep(pause)
def idle(seconds=60):
    time.sleep(seconds)
def busy(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))
"""


def script(body: str, rank: int, base: Path) -> str:
    """A shell line that starts a Python program which is rank N."""
    path = base / f"rank{rank}.py"
    path.write_text(RANK + body)
    return f"RANK={rank} LOCAL_RANK=0 {sys.executable} -u {path} {rank}"


def watched(
    bodies: dict[str, str], base: Path, watching: Watching, meanwhile: Callable[[Path], None] | None = None
) -> tuple[Outcome, Seen, Path]:
    scripts = {"one": {name: script(body, number, base) for number, (name, body) in enumerate(bodies.items())}}
    directory = directory_for(scripts, base)
    plan = plan_of(scripts, directory.path)
    seen = Seen()
    if meanwhile is not None:
        threading.Thread(target=meanwhile, args=(directory.path,), daemon=True).start()
    outcome = execute(plan, transports_of(plan), directory, seen, limits=quick(watching))
    return outcome, seen, directory.path


def notes(seen: Seen) -> list[str]:
    return [event.text for event in seen.events if isinstance(event, Noted)]


@pytest.mark.slow
def test_a_stall_is_told_with_stacks_and_ends_the_run_when_that_is_wanted(tmp_path: Path) -> None:
    began = time.monotonic()
    outcome, seen, path = watched(
        {"a": "steps(10)\nidle()", "b": "steps(10)\nidle()"}, tmp_path, Watching(1.5, stop_on_stall=True)
    )
    assert time.monotonic() - began < 20
    assert outcome.status == "failed"
    assert outcome.failure is not None
    assert outcome.failure.startswith("stage one was stopped: it stalled: no step for ")
    assert "after step 9 (usually " in outcome.failure
    assert outcome.report is not None
    assert outcome.report.verdict is not None
    assert outcome.report.verdict.cause == "run-stalled"
    files = sorted((path / "stacks").iterdir())
    assert [file.name.rpartition("-")[0] for file in files] == ["a-rank0", "b-rank1"]
    assert "state S" in files[0].read_text()
    told = [text for text in notes(seen) if text.startswith("stalled: ")]
    assert len(told) == 1, "once"


@pytest.mark.slow
def test_a_stalled_run_goes_on_unless_that_is_wanted(tmp_path: Path) -> None:
    outcome, seen, path = watched({"a": "steps(10)\ntime.sleep(6)\nsteps(20)"}, tmp_path, Watching(1.0))
    assert outcome.status == "done"
    assert any(text.startswith("stalled: ") for text in notes(seen))
    assert any(text.startswith("the stall is over after ") for text in notes(seen))
    log = (path / "logs/1-one/merged.log").read_bytes()
    assert diagnose([("merged.log", [log])]).verdict.cause == "none", "it went on, so it is no verdict"


@pytest.mark.slow
def test_a_rank_that_computes_in_silence_is_not_accused(tmp_path: Path) -> None:
    outcome, seen, path = watched(
        {"a": "steps(10)\nbusy(7)\nsteps(2)", "b": "steps(10)\nbusy(7)"}, tmp_path, Watching(1.0, stop_on_stall=True)
    )
    assert outcome.status == "done", outcome.failure
    assert not any("stall" in text for text in notes(seen))
    assert not (path / "stacks").exists()


@pytest.mark.slow
def test_a_rank_that_others_wait_for_is_told_and_is_no_stall(tmp_path: Path) -> None:
    outcome, seen, _ = watched(
        {"a": "steps(10)\nbusy(7)", "b": "steps(10)\ntime.sleep(7)"}, tmp_path, Watching(1.0, stop_on_stall=True)
    )
    assert outcome.status == "done", outcome.failure
    told = [text for text in notes(seen) if "no stall" in text]
    assert len(told) == 1
    assert "rank 0 on a" in told[0]


@pytest.mark.slow
def test_a_rank_that_computes_without_an_end_is_a_stall_after_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dsdoctor.logs.stacks.LOOP_PATIENCE", 2)
    outcome, _, _ = watched(
        {"a": "steps(10)\nbusy(60)", "b": "steps(10)\nidle()"}, tmp_path, Watching(1.0, stop_on_stall=True)
    )
    assert outcome.failure is not None
    assert "stalled: no step for " in outcome.failure


@pytest.mark.slow
def test_lines_and_bars_of_any_rank_are_life(tmp_path: Path) -> None:
    bar = "steps(5)\nfor n in range(70):\n    sys.stderr.write('@rank0@ \\r%d|' % n); time.sleep(0.1)"
    outcome, seen, _ = watched({"a": bar, "b": "steps(5)\ntime.sleep(7)"}, tmp_path, Watching(4.0, stop_on_stall=True))
    assert outcome.status == "done", outcome.failure
    assert not any("stall" in text for text in notes(seen))


def test_nothing_is_a_stall_when_that_is_off(tmp_path: Path) -> None:
    outcome, seen, _ = watched({"a": "steps(5)\ntime.sleep(3)"}, tmp_path, Watching(0, stop_on_stall=True))
    assert outcome.status == "done"
    assert notes(seen) == []


def test_numbers_that_are_wrong_are_told_once_and_logged(tmp_path: Path) -> None:
    body = (
        "for step in range(30):\n"
        "    print(\"@rank0@ {'loss': %s, 'learning_rate': 0.0, 'epoch': 1.0}\" % (step if step < 20 else 'nan'))\n"
    )
    outcome, seen, path = watched({"a": body}, tmp_path, Watching())
    assert outcome.status == "done"
    assert [text.split(",")[0] for text in notes(seen)] == [
        "the learning rate has been 0 since the start",
        "the training loss is nan (rank 0 on a)",
    ]
    log = (path / "logs/1-one/a/rank0.log").read_text()
    assert log.count("dsdoctor: ") == 2


@pytest.mark.slow
def test_progress_is_told_and_kept_in_a_file(tmp_path: Path) -> None:
    outcome, seen, path = watched({"a": "steps(45)", "b": "steps(45, 0.07)"}, tmp_path, Watching())
    assert outcome.status == "done"
    told = [event for event in seen.events if isinstance(event, Progressed)]
    assert 1 <= len(told) <= 6, "at most once a second"
    assert told[-1].step is not None
    assert told[-1].stage == "one"
    kept = read_progress(path)
    assert kept is not None
    assert kept["step"] == 44
    assert kept["hosts"]["a"]["step"] == 44
    assert 10 < kept["hosts"]["b"]["speed"] < 15
    assert kept["loss"] == pytest.approx(4.56)


def test_a_progress_file_of_something_else_is_none(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    (tmp_path / "progress.json").write_text("{")
    assert read_progress(tmp_path) is None
    (tmp_path / "progress.json").write_text(json.dumps({"schema": "other"}))
    assert read_progress(tmp_path) is None


def made(base: Path, watching: Watching) -> tuple[Watch, Seen]:
    scripts = {"one": {"a": "true"}}
    directory = directory_for(scripts, base)
    plan, seen = plan_of(scripts, directory.path), Seen()
    watch = Watch(
        *(plan, plan.stages[0], transports_of(plan), directory.path),
        attempt=1,
        show=seen,
        log=lambda host, rank, text: None,
        watching=watching,
    )
    return watch, seen


@pytest.mark.parametrize(("gap", "limit"), [(0.5, 60), (6, 60), (30, 300), (75, 750), (600, 1800)])
def test_the_limit_follows_the_usual_time_between_steps(tmp_path: Path, gap: float, limit: float) -> None:
    watch, _ = made(tmp_path, Watching())
    assert watch.silence.limit(watch.training) == 1800, "before the first step"
    for step in range(2):
        watch.line("a", 0, f"step {step} loss 1.0", step * gap)
    assert watch.silence.limit(watch.training) == 600, "until the usual time is known"
    for step in range(2, 30):
        watch.line("a", 0, f"step {step} loss 1.0", step * gap)
    assert watch.silence.limit(watch.training) == limit


def test_a_given_limit_is_taken_and_ten_times_it_before_the_first_step(tmp_path: Path) -> None:
    watch, _ = made(tmp_path, Watching(5))
    assert watch.silence.limit(watch.training) == 50
    watch.line("a", 0, "step 1 loss 1.0", 1)
    assert watch.silence.limit(watch.training) == 5


@pytest.mark.slow
def test_what_a_faulthandler_prints_when_it_is_asked_is_kept_and_no_sign_of_life(tmp_path: Path) -> None:
    handler = "import faulthandler, signal\nfaulthandler.register(signal.SIGUSR2)\nsteps(6)\nidle()"
    path = tmp_path / "rank0.py"
    path.write_text(RANK + handler)
    python = f"PATH=/usr/bin:/bin RANK=0 LOCAL_RANK=0 DSDOCTOR_STACKS_SIGNAL=USR2 {sys.executable} -u {path} 0"
    scripts = {"one": {"a": f"{python} 2>&1 | sed -u 's/^/@rank0@ /;s/^@rank0@ @rank0@/@rank0@/'"}}
    directory = directory_for(scripts, tmp_path)
    plan, seen = plan_of(scripts, directory.path), Seen()
    without = tmp_path / "bare" / "python"
    without.parent.mkdir()
    without.symlink_to(Path(sys.executable).resolve())
    hosts = tuple(type(host)(**{**_fields(host), "python": str(without)}) for host in plan.hosts)
    plan = type(plan)(**{**_fields(plan), "hosts": hosts})
    outcome = execute(plan, transports_of(plan), directory, seen, limits=quick(Watching(1.0, stop_on_stall=True)))
    assert outcome.failure is not None
    assert "stalled" in outcome.failure
    text = next((directory.path / "stacks").iterdir()).read_text()
    assert "no Python stack: py-spy is not installed here" in text
    assert "SIGUSR2 was sent" in text
    assert "in idle" in text, "what the faulthandler said"
    assert any("pip install py-spy" in note for note in notes(seen))


def _fields(value: object) -> dict[str, object]:
    return {name: getattr(value, name) for name in value.__struct_fields__}  # type: ignore[attr-defined]


AS_NCCL = """
import os, pathlib, threading
pipe, dumps = (os.environ["TORCH_NCCL_DEBUG_INFO_" + name] for name in ("PIPE_FILE", "TEMP_FILE"))
def recorder():  # as ProcessGroupNCCL's DumpPipe has it: a pipe of its own making, looked at now and then
    os.mkfifo(pipe + "0.pipe")
    end = os.open(pipe + "0.pipe", os.O_RDONLY | os.O_NONBLOCK)
    while not os.read(end, 128):
        time.sleep(0.05)
    pathlib.Path(dumps + "0").write_bytes(b"entries of the ring")
threading.Thread(target=recorder, daemon=True).start()
steps(6)
idle()
"""


@pytest.mark.slow
def test_on_a_stall_the_flight_recorder_is_asked_for_and_its_pipe_does_not_stay(tmp_path: Path) -> None:
    scripts = {"one": {"a": script(AS_NCCL, 0, tmp_path)}}
    directory = directory_for(scripts, tmp_path)
    pipe, dumps = tmp_path / "pipe-", tmp_path / "recorder/rank"
    dumps.parent.mkdir()
    env = {"TORCH_NCCL_DEBUG_INFO_PIPE_FILE": str(pipe), "TORCH_NCCL_DEBUG_INFO_TEMP_FILE": str(dumps)}
    plan = plan_of(scripts, directory.path, **env)
    limits = quick(Watching(1.5, stop_on_stall=True))
    outcome = execute(plan, transports_of(plan), directory, Seen(), limits=limits)
    assert outcome.status == "failed"
    (kept,) = (directory.path / "stacks").glob("a-rank0-*-rank0")
    assert kept.read_bytes() == b"entries of the ring"
    assert not Path(f"{pipe}0.pipe").exists()
