"""The commands about runs, with real runs of a few lines of Python on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.run.directory import RunDirectory, find_run
from dsdoctor.run.kept import load
from dsdoctor.yamlfile import FileError

JOB = """
name: play
engine: python
script: play.py
args: {out: "${output_dir}"}
stages:
  - {name: one, outputs: [done.json]}
  - {name: two, outputs: [done.json]}
"""
PLAY = r"""
import argparse, json, pathlib, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--out", type=pathlib.Path)
parser.add_argument("--steps", type=int, default=3)
parser.add_argument("--fail", default="false")
parser.add_argument("--gate", type=pathlib.Path, default=pathlib.Path("/nowhere"))  # waits until it is gone
options = parser.parse_args()
for step in range(options.steps):
    print("step", step, "\x1b[2Jred", flush=True)
    time.sleep(0.05)
while options.gate.exists():
    time.sleep(0.05)
if options.fail == "true":
    raise SystemExit(3)
options.out.mkdir(parents=True, exist_ok=True)
(options.out / "done.json").write_text("{}")
"""


class Place:
    """A folder with a job in it, and dsdoctor called there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "play.yaml").write_text(JOB)
        (path / "play.py").write_text(PLAY)

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "dsdoctor", *words]

    def call(self, *words: str, code: int = 0, given: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.argv(*words),
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL if given is None else None,
            input=given,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def launch(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.call("launch", "play.yaml", "--no-check", *words, code=code)

    def state(self) -> dict[str, Any]:
        path = max((self.path / "runs").iterdir(), key=lambda each: each.name)
        return {**json.loads((path / "state.json").read_text()), "path": path}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for path in (tmp_path / "runs").glob("*"):
        subprocess.run(made.argv("stop", str(path)), cwd=tmp_path, capture_output=True, timeout=60, check=False)


def test_a_detached_run_from_its_start_to_its_end(place: Place) -> None:
    gate = place.path / "gate"
    gate.touch()
    started = place.launch("--detach", "--set", "one.steps=40", "--set", f"one.gate={gate}")
    run = place.state()["run"]
    assert f"dsdoctor attach {run}" in started.stderr
    assert f"dsdoctor stop {run}" in started.stderr
    assert "running, detached" in place.call("runs").stdout
    assert "one: running" in place.call("status").stdout
    following = subprocess.Popen(place.argv("logs", "--follow"), cwd=place.path, stdout=subprocess.PIPE, text=True)
    assert following.stdout is not None
    followed = [following.stdout.readline().rstrip("\n") for _ in range(40)]
    gate.unlink()
    followed += following.communicate(timeout=60)[0].splitlines()
    assert followed == [
        *(f"localhost:0| step {step} \\x1b[2Jred" for step in range(40)),
        *(f"localhost:0| step {step} \\x1b[2Jred" for step in range(3)),
    ], "both stages, nothing twice, no control character"
    assert "done in" in place.call("attach").stderr
    told = json.loads(place.call("status", run, "--format", "json").stdout)
    assert (told["status"], [stage["status"] for stage in told["stages"]]) == ("done", ["done", "done"])
    assert told["hosts"][0]["guardian"] is None
    listed = json.loads(place.call("runs", "--format", "json").stdout)["runs"]
    assert [(each["run"], each["done"], each["stages"], each["hosts"]) for each in listed] == [
        (run, 2, 2, ["localhost"])
    ]


def test_lines_of_a_stage_a_host_or_a_rank(place: Place) -> None:
    place.launch()
    assert len(place.call("logs").stdout.splitlines()) == 3
    assert place.call("logs", "--stage", "one", "--tail", "1").stdout == "localhost:0| step 2 \\x1b[2Jred\n"
    assert place.call("logs", "--rank", "0", "--host", "localhost", "--tail", "1").stdout == "step 2 \\x1b[2Jred\n"
    assert place.call("logs", "--rank", "1").stdout == ""
    assert place.call("logs", "--tail", "0").stdout == ""
    assert "there is no stage oen; did you mean one?" in place.call("logs", "--stage", "oen", code=2).stderr


def test_a_failure_is_told_by_status_and_attach(place: Place) -> None:
    place.launch("--set", "two.fail=true", code=1)
    told = place.call("status").stdout
    assert "two: failed" in told
    assert "stage two failed" in told
    assert place.call("attach", code=1).stderr.startswith(f"{place.state()['run']} has ended: failed")


def test_ctrl_c_before_the_hosts_run_stops_everything(place: Place) -> None:
    (place.path / "play.yaml").write_text(JOB + 'setup: ["sleep 4"]\n')
    launching = subprocess.Popen(
        place.argv("launch", "play.yaml", "--no-check", "--detach"),
        cwd=place.path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + 30
    while not list((place.path / "runs").glob("*/logs/1-one")):
        assert time.monotonic() < end
        time.sleep(0.05)
    launching.send_signal(signal.SIGINT)
    _, said = launching.communicate(timeout=30)
    assert launching.returncode == 130, said
    assert place.state()["status"] == "interrupted"
    assert "goes on by itself" not in said
    assert "nothing runs any more" in place.call("stop").stderr


def test_settings_and_code_that_have_changed_are_shown_and_asked(place: Place) -> None:
    place.launch("--set", "two.fail=true", code=1)
    run = place.state()["run"]
    (place.path / "play.py").write_text(PLAY + "# mended\n")
    refused = place.launch(code=2)
    assert "args.two.fail: True → not set" in refused.stderr
    assert "play.py was changed" in refused.stderr
    assert "--yes goes on with it in spite of that, --fresh starts a new run" in refused.stderr
    place.launch("--yes")
    assert place.state()["run"] == run
    assert [stage["attempts"] for stage in place.state()["stages"]] == [1, 2]


def test_a_stage_by_name_is_run_again_and_makes_later_ones_stale(place: Place) -> None:
    place.launch()
    place.launch("--stage", "one")
    state = place.state()
    assert [(stage["status"], stage["attempts"]) for stage in state["stages"]] == [("done", 2), ("planned", 1)]
    assert state["status"] == "planned"
    assert "not finished" in place.call("runs").stdout
    place.launch()
    assert [(stage["status"], stage["attempts"]) for stage in place.state()["stages"]] == [("done", 2), ("done", 2)]
    both = place.launch("--stage", "one", "--from", "two", code=2)
    assert "give one of the two" in both.stderr


def test_an_output_that_was_cut_off_is_made_again(place: Place) -> None:
    place.launch("--set", "two.fail=true", code=1)
    output = place.state()["path"] / "outputs/1-one/done.json"
    output.write_text('{"cut": ')
    again = place.launch("--set", "two.fail=true", code=1)
    assert "done.json cannot be read" in again.stderr
    assert place.state()["stages"][0]["attempts"] == 2
    assert output.read_text() == "{}"


def test_what_is_not_there_is_said(place: Place) -> None:
    for command in ("status", "logs", "attach", "stop"):
        assert "there is no run" in place.call(command, "nothing", code=2).stderr
        assert "there is no run in this folder" in place.call(command, code=2).stderr
    assert "There is no run in runs." in place.call("runs").stderr
    assert json.loads(place.call("runs", "--format", "json").stdout)["runs"] == []


def test_a_folder_that_is_no_run_and_a_run_that_never_began_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(FileError, match="is a folder, and no run's directory"):
        find_run(tmp_path / "runs", str(tmp_path / "elsewhere"))
    with pytest.raises(FileError, match="ended before anything began; launch again"):
        load(RunDirectory(tmp_path / "elsewhere"))


def test_stop_ends_an_attached_run_of_another_shell(place: Place) -> None:
    running = subprocess.Popen(
        place.argv("launch", "play.yaml", "--no-check", "--set", "steps=1000"),
        cwd=place.path,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 30
    while not list((place.path / "runs").glob("*/logs/1-one/merged.log")):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert f"carried out by process {running.pid}" in place.launch("--set", "steps=1000", code=2).stderr
    assert f"is carried out by process {running.pid}" in place.call("attach").stderr
    place.call("stop")
    running.communicate(timeout=20)
    assert running.returncode == 130
    assert place.state()["status"] == "interrupted"


def test_a_launch_that_was_killed_is_not_called_running(place: Place) -> None:
    running = subprocess.Popen(
        place.argv("launch", "play.yaml", "--no-check", "--set", "steps=1000"),
        cwd=place.path,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 30
    while not list((place.path / "runs").glob("*/logs/1-one/merged.log")):
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert "killed: launch again" in place.call("runs").stdout
    assert "launch again to go on" in place.call("attach", code=1).stderr
    again = place.launch("--set", "steps=1000", "--set", "one.steps=2", "--set", "two.steps=2", "--yes")
    assert "args.one.steps: 1000 → 2" in again.stderr
    assert [stage["attempts"] for stage in place.state()["stages"]] == [2, 1]
