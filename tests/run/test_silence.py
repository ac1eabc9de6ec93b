"""A stall while no head follows: noticed by the guardians by a head's rule, kept, told, taken over by the next head."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dsdoctor.cli.runs import runs
from dsdoctor.cli.status import status
from dsdoctor.logs.stacks import Look
from dsdoctor.plan.model import LaunchPlan
from dsdoctor.run import kept
from dsdoctor.run.directory import RunDirectory
from dsdoctor.run.events import Noted
from dsdoctor.run.execute import execute
from dsdoctor.run.guardian import silence as module
from dsdoctor.run.guardian.looking import Parts, in_parts
from dsdoctor.run.guardian.silence import Silence
from dsdoctor.run.outcome import Manner
from dsdoctor.run.reach import HostSeen, look, stop
from dsdoctor.run.sent import sent_source
from dsdoctor.run.stage_end import Limits, Watching
from tests.hosts.test_sent import pythons
from tests.run.plans import Seen, directory_for, plan_of, transports_of
from tests.run.test_detached import head_of, wait_for_lines
from tests.run.test_peers import until
from tests.run.test_watch import script

PATIENCE = 120


@contextmanager
def left_alone(
    bodies: dict[str, str], base: Path, watching: Watching, lines: int
) -> Iterator[tuple[RunDirectory, LaunchPlan]]:
    """A detached run whose head is killed once there are so many lines; what still runs at the end is stopped."""
    scripts = {"one": {name: script(body, number, base) for number, (name, body) in enumerate(bodies.items())}}
    directory = directory_for(scripts, base)
    plan = plan_of(scripts, directory.path)
    kept.save(directory, plan, kept.Way(), Limits(lifeline=2, grace=1, settle=0.3, watching=watching))
    head = head_of(directory)
    try:
        wait_for_lines(directory, "1-one", lines)
        head.kill()
        head.wait()
        yield directory, plan
    finally:
        stop(kept.load(directory), transports_of(plan))


def asked(directory: RunDirectory, plan: LaunchPlan) -> list[HostSeen]:
    return look(kept.load(directory), transports_of(plan))


def attached(directory: RunDirectory, plan: LaunchPlan) -> tuple[Any, list[str]]:
    seen = Seen()
    with directory.locked():
        limits = kept.load(directory).limits
        outcome = execute(plan, transports_of(plan), directory, seen, limits=limits, manner=Manner(detach=True))
    return outcome, [event.text for event in seen.events if isinstance(event, Noted)]


@pytest.mark.slow
def test_a_stall_without_a_head_ends_the_run_where_that_is_wanted_and_the_next_head_has_the_stacks(
    tmp_path: Path,
) -> None:
    bodies = {"a": "steps(10)\nidle(600)", "b": "steps(10)\nidle(600)"}
    with left_alone(bodies, tmp_path, Watching(1.5, stop_on_stall=True), 20) as (directory, plan):
        until(lambda: not any(host.alive for host in asked(directory, plan)), PATIENCE)
        a, b = (host.guardians[0].end or {} for host in asked(directory, plan))
        assert a["stopped"].startswith("it stalled: no step for ")
        assert b["peer"] == "a"
        outcome, said = attached(directory, plan)
    assert outcome.failure.startswith("stage one was stopped: it stalled: no step for ")
    assert "after step 9" in outcome.failure
    assert outcome.report.verdict.cause == "run-stalled"
    files = sorted(path.name.rpartition("-")[0] for path in (directory.path / "stacks").iterdir())
    assert files == ["a-rank0", "b-rank1"]
    assert len([text for text in said if text.startswith("stalled: ")]) == 1


@pytest.mark.slow
def test_a_stall_without_a_head_is_in_status_and_runs_and_so_is_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "go"
    body = f"import os\nsteps(10)\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.2)\nsteps(5)\nidle(600)"
    with left_alone({"a": body, "b": "idle(600)"}, tmp_path, Watching(1.5), 10) as (directory, plan):
        until(lambda: all(host.alive and host.alive.stall for host in asked(directory, plan)), PATIENCE)
        monkeypatch.chdir(tmp_path)
        told = CliRunner().invoke(status, [str(directory.path)])
        assert "STALLED" in told.output, told.output
        assert "no step for" in told.output
        listed = CliRunner().invoke(runs, ["--runs", str(directory.path.parent)])
        assert "STALLED" in listed.output, listed.output
        go.touch()
        until(lambda: not any(host.alive and host.alive.stall for host in asked(directory, plan)), PATIENCE)


def told(silent: float, step_ago: float | None = None) -> dict[str, Any]:
    return {"silent": silent, "step": 7, "step_ago": step_ago, "gap": 1.0}


class Others:
    """What the guardians of other hosts tell, without a line to them."""

    def __init__(self) -> None:
        self.order = {"hosts": 2}
        self.lingers = False
        self.said: list[dict[str, Any]] = []
        self.pace_of_b = told(0)

    def names(self) -> list[str]:
        return ["b"]

    def paces(self, now: float) -> list[dict[str, Any]]:
        return [self.pace_of_b]

    def say(self, word: dict[str, Any]) -> None:
        self.said.append(word)


def judging(monkeypatch: pytest.MonkeyPatch, *, headless: bool) -> tuple[Silence, Others, list[dict[str, Any]]]:
    """The first host's watch over a silent host of its own, and its frames; nothing is really looked at."""
    monkeypatch.setattr(module, "look_here", lambda spool: {"ranks": []})
    order = {"host": "a", "first": True, "stall_after": 5.0, "stop": False, "spool": "/nowhere"}
    others, frames = Others(), []  # type: ignore[var-annotated]
    watch = Silence(order, others, lambda: headless, frames.append, lambda stall: None, lambda why: None)  # type: ignore[arg-type]
    watch.rule.sign = watch._sign = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: 200.0)
    return watch, others, frames


def test_one_host_that_goes_on_is_life_for_all_and_where_a_head_follows_nobody_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, others, frames = judging(monkeypatch, headless=True)
    others.pace_of_b = told(1, 1)
    watch.tick(200)
    assert (others.said, frames) == ([], [])
    watch, others, frames = judging(monkeypatch, headless=False)
    others.pace_of_b = told(90, 90)
    watch.tick(200)
    assert (others.said, frames) == ([], [])


def test_ranks_that_wait_for_one_that_works_on_another_host_are_no_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, others, frames = judging(monkeypatch, headless=True)
    others.pace_of_b = told(90, 90)
    watch.tick(200)
    assert [word.get("look") for word in others.said] == [True]
    until(lambda: "a" not in (watch._look or {"waiting": ()})["waiting"])
    working = module._told(Look("b", 1, 77, "R", cpu=1.0))
    waiting = module._told(Look("a", 0, 76))
    watch.take({"host": "b", "looked": [working, waiting], "problem": None})
    watch.tick(201)
    assert frames == []
    assert watch.rule._patience[False] == 2.0, "it is looked at later the next time"
    watch._look = {"at": 200, "waiting": {"b"}, "looks": []}
    watch.take({"host": "b", "looked": [module._told(Look("b", 1, 77)), waiting], "problem": None})
    watch.tick(202)
    assert [frame["e"] for frame in frames] == ["stall"]
    assert frames[0]["text"].startswith("stalled: no step for ")


@pytest.mark.parametrize("lingers", [False, True])
def test_a_first_host_that_is_done_itself_tells_the_others_to_end_for_a_stall(
    monkeypatch: pytest.MonkeyPatch, lingers: bool
) -> None:
    watch, others, _ = judging(monkeypatch, headless=True)
    ended: list[str] = []
    watch.order["stop"], watch.stop, others.lingers = True, ended.append, lingers
    others.pace_of_b = told(90, 90)
    watch.rule.due(module.Together([told(90, 90)], 200), 200)
    watch._look = {"at": 199, "waiting": set(), "looks": [Look("b", 1, 77)]}
    watch.tick(200)
    failed = [word["failed"] for word in others.said if "failed" in word]
    assert (len(ended), len(failed)) == ((0, 1) if lingers else (1, 0))
    assert (ended + failed)[0].startswith("it stalled: no step for ")


def test_stacks_of_any_size_come_in_parts_that_fit_into_frames() -> None:
    import random

    words = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=2_000_000))
    answer = {"ranks": [{"rank": 0, "pid": 5, "text": words}]}
    parts = [{"e": "look", **part} for part in in_parts(answer)]
    assert len(parts) > 1
    assert all(len(json.dumps(part)) < 1 << 20 for part in parts)
    together = Parts()
    assert [together.take("a", part) for part in parts][:-1] == [None] * (len(parts) - 1)
    assert [together.take("a", part) for part in parts][-1] == answer
    assert together.take("a", {"part": 0, "parts": 1, "x": "no base64"}) is None


@pytest.mark.parametrize("python", pythons("3.8", "3.9", "3.10", "3.12", "3.13", "3.14"))
def test_what_is_sent_for_it_loads_on_every_python(python: str) -> None:
    start = b'importlib.import_module("dsdoctor.run.guardian.main").main()'
    assert start in sent_source()
    program = sent_source().replace(start, b'importlib.import_module("dsdoctor.run.guardian.silence"); print("loaded")')
    done = subprocess.run([python, "-"], input=program, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"loaded\n", b"")
