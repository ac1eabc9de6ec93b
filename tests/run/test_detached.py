"""Guardians without a head, and a head that takes over: real processes on this machine, no torch."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from dsdoctor.cli.runs import runs
from dsdoctor.hosts.transport import Completed, Transport, TransportError
from dsdoctor.hosts.transport.local import LocalTransport
from dsdoctor.jobs.load import load_job
from dsdoctor.jobs.trees import JobTree
from dsdoctor.plan.model import EnvVar, LaunchPlan
from dsdoctor.run import fetched, kept, work
from dsdoctor.run.directory import RunDirectory, find_run
from dsdoctor.run.events import LineSeen, Noted
from dsdoctor.run.execute import execute
from dsdoctor.run.guardian.follower import Follower
from dsdoctor.run.guardian.process_table import identity, is_alive
from dsdoctor.run.launch import changes_since, choose_target, job_fingerprint
from dsdoctor.run.outcome import Manner, Outcome
from dsdoctor.run.reach import look, stop, stop_when_reached
from dsdoctor.run.stage_end import Limits
from dsdoctor.run.taken import Taken, restore, save
from dsdoctor.yamlfile import FileError
from tests.plan.test_plan import job as job_of
from tests.run.plans import Scripts, Seen, directory_for, plan_of, transports_of

QUICK = Limits(lifeline=5, grace=1, settle=0.3)
COUNTING = "for i in $(seq %d); do echo @rank0@ line $i; sleep 0.05; done"

# A head of its own, so that it can be killed: it carries the run out as `launch --detach` has it done.
HEAD = """
import sys
from pathlib import Path
from dsdoctor.run import kept
from dsdoctor.run.directory import RunDirectory
from dsdoctor.run.execute import execute
from dsdoctor.run.outcome import Manner
run = RunDirectory(Path(sys.argv[1]))
with run.locked():
    what = kept.load(run)
    execute(what.plan, kept.lines_to(what), run, lambda event: None, limits=what.limits, manner=Manner(detach=True))
"""


def written_down(scripts: Scripts, base: Path, **env: str) -> tuple[RunDirectory, LaunchPlan]:
    directory = directory_for(scripts, base)
    plan = plan_of(scripts, directory.path, **env)
    kept.save(directory, plan, kept.Way(), QUICK)
    return directory, plan


def head_of(directory: RunDirectory) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", HEAD, str(directory.path)])


def merged(directory: RunDirectory, folder: str) -> list[str]:
    path = directory.logs(folder) / "merged.log"
    return path.read_text().splitlines() if path.exists() else []


def wait_for_lines(directory: RunDirectory, folder: str, count: int) -> None:
    end = time.monotonic() + 20
    while len(merged(directory, folder)) < count:
        assert time.monotonic() < end, merged(directory, folder)
        time.sleep(0.02)


def taken_over(directory: RunDirectory, plan: LaunchPlan, show: Seen) -> Outcome:
    with directory.locked():
        return execute(plan, transports_of(plan), directory, show, limits=QUICK, manner=Manner(detach=True))


def test_a_killed_head_is_followed_by_another_and_every_line_is_logged_once(tmp_path: Path) -> None:
    scripts = {"one": {"a": COUNTING % 100, "b": "sleep 3"}, "two": {"a": "echo end", "b": "true"}}
    directory, plan = written_down(scripts, tmp_path)
    # Three heads, each ended at another moment; TERM is what a machine says that shuts down.
    for count, number in ((5, signal.SIGKILL), (30, signal.SIGTERM), (60, signal.SIGKILL)):
        head = head_of(directory)
        wait_for_lines(directory, "1-one", count)
        head.send_signal(number)
        head.wait()
        assert directory.state().status == "running"
    seen = Seen()
    outcome = taken_over(directory, plan, seen)
    assert (outcome.status, directory.state().status) == ("done", "done")
    assert merged(directory, "1-one") == [f"a:0| line {number}" for number in range(1, 101)]
    assert (directory.logs("1-one") / "a/rank0.log").read_text().count("\n") == 100
    assert merged(directory, "2-two") == ["a:-| end"]
    assert [stage.attempts for stage in directory.state().stages] == [1, 1]
    assert directory.state().stages[0].seconds > 4, "the time without a head counts"
    shown = [event.text for event in seen.of(LineSeen)]  # type: ignore[attr-defined]
    assert "line 1" not in shown, "what was logged before is not shown again"


def test_a_stage_that_failed_without_a_head_is_a_failure_with_its_rank(tmp_path: Path) -> None:
    report = "failed (exitcode: 3) local_rank: 0 (pid: 77) of binary: /usr/bin/python"
    directory, plan = written_down(
        {"one": {"a": "echo begun; sleep 60", "b": f"sleep 1; echo '{report}' >&2; exit 1"}}, tmp_path
    )
    head = head_of(directory)
    wait_for_lines(directory, "1-one", 1)
    head.kill()
    head.wait()
    time.sleep(1.5)
    outcome = taken_over(directory, plan, Seen())
    assert outcome.failure == "stage one failed: rank 1 on b ended with exit code 3"
    assert not any(host.alive for host in look(kept.load(directory), transports_of(plan))), "and the other is stopped"


def test_look_and_stop_know_a_guardian_for_certain(tmp_path: Path) -> None:
    directory, plan = written_down({"one": {"a": "trap '' TERM; echo up; sleep 60 & wait; sleep 60"}}, tmp_path)
    head = head_of(directory)
    wait_for_lines(directory, "1-one", 1)
    head.kill()
    head.wait()
    what = kept.load(directory)
    (seen,) = look(what, transports_of(plan))
    assert seen.alive is not None
    assert (seen.alive.attempt, seen.alive.stopped) == ("1-one.1", False)
    assert 0 <= seen.alive.quiet < 10
    (ended,) = stop(what, transports_of(plan))
    assert (ended.ended, ended.left) == (("1-one.1",), ())
    (after,) = look(what, transports_of(plan))
    assert after.alive is None
    assert after.guardians[0].end is not None
    assert after.guardians[0].end["stopped"] == "told to"
    assert stop(what, transports_of(plan))[0].ended == ()


def test_a_guardian_that_takes_no_notice_is_signalled_and_a_stranger_is_not(tmp_path: Path) -> None:
    directory, plan = written_down({"one": {"a": "echo up; sleep 60"}}, tmp_path)
    head = head_of(directory)
    wait_for_lines(directory, "1-one", 1)
    head.kill()
    head.wait()
    spool = directory.path / "a/guard/1-one.1/a"
    proofs = json.loads((spool / "identity").read_text())
    (spool / "stop.new").mkdir()  # no stop file can be written
    (ended,) = stop(kept.load(directory), transports_of(plan))
    assert ended.ended == ("1-one.1",)
    assert not is_alive(proofs["guardian"])
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        for who in ("guardian", "keeper"):  # the same id, another process
            proofs[who]["pid"] = stranger.pid
        (spool / "identity").write_text(json.dumps(proofs))
        assert stop(kept.load(directory), transports_of(plan))[0].ended == ()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_another_boot_or_another_process_table_is_another_process() -> None:
    proof = identity(os.getpid())
    assert is_alive(proof)
    for other in ({"boot": "another"}, {"table": "pid:[1]"}, {"start": 1}, {"pid": 2**22 + 1}, {"pid": None}):
        assert not is_alive({**proof, **other})


def test_a_stop_file_in_the_run_s_directory_stops_it(tmp_path: Path) -> None:
    directory, plan = written_down({"one": {"a": "echo up; sleep 60"}}, tmp_path)

    def ask() -> None:
        wait_for_lines(directory, "1-one", 1)
        (directory.path / "stop").touch()

    threading.Thread(target=ask).start()
    seen = Seen()
    outcome = execute(plan, transports_of(plan), directory, seen, limits=QUICK)
    assert outcome.status == "interrupted"
    assert any("told to stop: stopping every host" in event.text for event in seen.of(Noted))  # type: ignore[attr-defined]


def test_a_secret_is_not_kept_and_a_later_stage_says_what_it_lacks(tmp_path: Path) -> None:
    directory, plan = written_down({"one": {"a": 'echo "token $HF_TOKEN"'}}, tmp_path)
    env = {"HF_TOKEN": EnvVar("HF_TOKEN", "", "--env HF_TOKEN", "command line", secret="abc")}
    host = msgspec.structs.replace(plan.hosts[0], env=env)
    plan = msgspec.structs.replace(plan, hosts=(host,))
    kept.save(directory, plan, kept.Way(), QUICK)
    assert "abc" not in (directory.path / kept.NAME).read_text()
    assert kept.secrets_of(plan) == {"a": {"HF_TOKEN": "abc"}}
    bare = kept.load(directory).plan
    assert kept.secrets_wanted(bare) == {"HF_TOKEN": "--env HF_TOKEN"}
    assert kept.with_secrets(bare, {"a": {"HF_TOKEN": "abc"}}) == plan
    outcome = execute(bare, transports_of(bare), directory, Seen(), limits=QUICK)
    assert outcome.failure is not None
    assert "stage one was not started" in outcome.failure
    assert "HF_TOKEN (came from --env HF_TOKEN)" in outcome.failure
    assert directory.state().stages[0].attempts == 0
    assert not (directory.path / "a").exists(), "nothing was started"


@pytest.mark.parametrize("broken", [False, True])
def test_logs_are_cut_to_where_they_were_or_read_again_from_the_start(tmp_path: Path, broken: bool) -> None:
    directory = directory_for({"one": {"a": ""}}, tmp_path)
    logs = directory.logs("1-one")
    (logs / "a").mkdir(parents=True)
    (logs / "merged.log").write_text("a:0| one\na:0| two\na:0| th")
    (logs / "a/rank0.log").write_text("one\ntwo\n")
    (logs / "a/rank1.log").write_text("came later\n")
    longer = 100 if broken else 0  # a log that lost its end with the machine's power
    known = Taken(7.0, {"a": 55}, lengths={"merged.log": 9, "a/rank0.log": 4 + longer})
    save(directory, "1-one", known)
    found = restore(directory, "1-one", 1.0)
    assert found == (Taken(7.0) if broken else known)
    left = {path.name: path.read_text() for path in logs.rglob("*.log")}
    assert left == ({} if broken else {"merged.log": "a:0| one\n", "rank0.log": "one\n"})


def test_the_nearest_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no run in this folder"):
        find_run(tmp_path, None)
    directory = directory_for({"one": {"a": ""}}, tmp_path)
    assert find_run(tmp_path, None).path == directory.path
    assert find_run(tmp_path, "demo-1").path == directory.path
    assert find_run(Path("/nowhere"), str(directory.path)).path == directory.path
    with pytest.raises(FileError, match="did you mean demo-1"):
        find_run(tmp_path, "demo-11")


def test_changes_are_told_by_name(tmp_path: Path) -> None:
    before: dict[str, Any] = {"args": {"one": {"lr": 0.1, "gone": 1}}, "env": {}}
    now: dict[str, Any] = {"args": {"one": {"lr": 0.2, "new": None}}, "env": {}}
    assert work.changes(before, now) == [
        "args.one.gone: 1 → not set",
        "args.one.lr: 0.1 → 0.2",
        "args.one.new: not set → None",
    ]
    assert work.changes(before, before) == []
    for name in ("a.py", "b/c.yaml", "b/weights.bin", "skipped/d.py", "runs/r1/state.json", "runs/r1/e.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    code = work.code_of(tmp_path, ["/skipped/"])
    assert sorted(code) == ["a.py", "b/c.yaml"]
    (tmp_path / "a.py").write_text("y")
    (tmp_path / "f.py").write_text("z")
    (tmp_path / "b/c.yaml").unlink()
    told = work.code_changes(code, work.code_of(tmp_path, ["/skipped/"]))
    assert told == ["a.py was changed", "f.py is new", "b/c.yaml is gone"]
    assert work.cut([str(number) for number in range(20)])[-1] == "and 8 more"


class Lost(LocalTransport):
    """This machine as a host that cannot be reached for a while."""

    def __init__(self, inner: LocalTransport, until: float) -> None:
        super().__init__(inner.host)
        self.until = until

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0) -> Completed:
        if time.monotonic() < self.until:
            raise TransportError(self.host.name, "timeout", "no answer")
        return super().run(argv, stdin=stdin, timeout=timeout)


def test_a_lost_host_is_stopped_as_soon_as_it_is_reached_and_a_later_attempt_is_left_alone(tmp_path: Path) -> None:
    directory, plan = written_down({"one": {"a": "echo up; sleep 60", "b": "echo up; sleep 60"}}, tmp_path)
    head = head_of(directory)
    wait_for_lines(directory, "1-one", 2)
    head.kill()
    head.wait()
    what = kept.load(directory)
    until = time.monotonic() + 1

    def connect() -> dict[str, Transport]:
        return {name: Lost(line, until) for name, line in transports_of(plan).items()}

    (other,) = stop_when_reached(what, connect, ["a"], "1-one.2", pause=0.1)
    assert other.ended == (), "that was another attempt"
    until = time.monotonic() + 1
    found = list(stop_when_reached(what, connect, ["a"], "1-one.1", pause=0.1))
    assert [(host.host, host.ended) for host in found] == [("a", ("1-one.1",))]
    assert [host.alive is not None for host in look(what, transports_of(plan))] == [False, True], "b was not lost"
    assert list(stop_when_reached(what, connect, ["a"], "1-one.1", seconds=0)) == []
    stop(what, transports_of(plan))


def test_data_and_model_that_changed_are_told(tmp_path: Path) -> None:
    data, model = tmp_path / "data", tmp_path / "model.bin"
    (data / "a").mkdir(parents=True)
    (data / "a/train.json").write_text("[]")
    (data / "labels.txt").write_text("x")
    model.write_bytes(b"0" * (work.SMALL + 1))
    trees = tuple(
        JobTree(kind, str(path), file, same=False)
        for kind, path, file in (("data", data, False), ("model", model, True))
    )
    job = replace(job_of("name: demo\nscript: t.py\nstages: [{name: one}]\n"), trees=trees)
    before = work.trees_of(job)
    assert sorted(before["data"]) == ["a/train.json", "labels.txt"]
    assert work.tree_changes(before, work.trees_of(job)) == []
    os.utime(data / "labels.txt", (1, 1))
    assert work.tree_changes(before, work.trees_of(job)) == [], "a small file is its content"
    (data / "a/train.json").write_text("[1]")
    (data / "labels.txt").unlink()
    os.utime(model, (1, 1))
    assert work.tree_changes(before, work.trees_of(job)) == [
        "data: a/train.json was changed",
        "data: labels.txt is gone",
        "model: model.bin was changed",
    ]
    other = replace(job, trees=trees[:1])
    assert work.changes(work.settings_of(job), work.settings_of(other)) == [f"sync.model: '{model}' → not set"]
    assert job_fingerprint(job) != job_fingerprint(other)


def test_of_very_many_files_one_mark_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "LISTED", 3)
    for number in range(4):
        (tmp_path / str(number)).write_text("x")
    trees = (JobTree("data", str(tmp_path), file=False, same=False),)
    job = replace(job_of("name: demo\nscript: t.py\nstages: [{name: one}]\n"), trees=trees)
    before = work.trees_of(job)
    assert list(before["data"]) == ["one of its 4 files"]
    (tmp_path / "2").write_text("y")
    assert work.tree_changes(before, work.trees_of(job)) == ["data: one of its 4 files was changed"]


def test_a_launch_that_goes_on_shows_changed_data_and_asks(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "src").mkdir()
    (data / "train.json").write_text("[]")
    lines = ("name: demo", "script: t.py", "sync: {code: src, data: data}", "args: {data_dir: '${data_dir}'}")
    (tmp_path / "demo.yaml").write_text("\n".join((*lines, "stages: [{name: one}]", "")))
    job = load_job(str(tmp_path / "demo.yaml"), None, ())
    assert [tree.kind for tree in job.trees] == ["data"]
    run = directory_for({"one": {"a": ""}}, tmp_path / "runs")
    for name, value in ((work.SETTINGS, work.settings_of(job)), (work.CODE, {}), (work.TREES, work.trees_of(job))):
        run.write_json(name, json.loads(json.dumps(value, default=str)))
    assert changes_since(run, job) == ()
    (data / "train.json").write_text("[1]")
    now = changes_since(run, job)
    assert now == ("data: train.json was changed",)
    assert choose_target(tmp_path / "runs", job, fresh=False).changes == now, "whoever launches is asked about these"


def spools(directory: RunDirectory) -> list[str]:
    return sorted(str(path.parent.relative_to(directory.path)) for path in directory.path.glob("*/guard/*/*/frames"))


def test_a_follower_gives_signs_of_life_while_its_guardian_comes_up(tmp_path: Path) -> None:
    said = io.BytesIO()
    order = {"spool": str(tmp_path), "offset": 0, "patience_seconds": 5}
    follower = Follower(order, io.BytesIO(), said)

    def beat(caught_up: bool = False) -> None:
        said.write(b"beat")
        (tmp_path / "frames").touch()
        (tmp_path / "identity").write_text("{}")

    follower.beat = beat  # type: ignore[method-assign]
    assert follower.wait_for_identity() == {}
    assert said.getvalue() == b"beat"


def test_an_attached_run_s_guardians_take_their_spools_away_and_no_host_is_asked_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = f"echo up; [ -e {tmp_path}/go ] || exit 3"
    directory, plan = written_down({"one": {"a": "echo up", "b": failing}, "two": {"a": "true", "b": "true"}}, tmp_path)
    asked: list[Any] = []
    monkeypatch.setattr(fetched, "clear", lambda kept, transports, attempts, timeout: asked.append(attempts) or [])
    for status in ("failed", "done"):
        outcome = execute(plan, transports_of(plan), directory, Seen(), limits=QUICK)
        assert outcome.status == status
        assert spools(directory) == []
        assert directory.state().spools_on == ()
        (tmp_path / "go").touch()
    assert asked in ([], [{"a": set(), "b": set()}]), "no host has anything left"


@pytest.mark.parametrize("detach", [False, True])
def test_what_hosts_kept_is_taken_away_once_the_head_has_it(tmp_path: Path, detach: bool) -> None:
    failing = f"echo up; [ -e {tmp_path}/go ] || exit 3"
    directory, plan = written_down({"one": {"a": "echo up", "b": failing}, "two": {"a": "true", "b": "true"}}, tmp_path)
    manner = Manner(detach=detach)
    outcome = execute(plan, transports_of(plan), directory, Seen(), limits=QUICK, manner=manner)
    assert outcome.status == "failed"
    assert spools(directory) == [], "of a failed run, too: all of it is in the logs"
    assert directory.state().spools_on == ()
    mine = directory.path / "a/guard/1-one.7/a"
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("by a person")
    (tmp_path / "go").touch()
    outcome = execute(plan, transports_of(plan), directory, Seen(), limits=QUICK, manner=manner)
    assert outcome.status == "done"
    assert (mine / "notes.txt").read_text() == "by a person", "no file of ours"
    assert not (directory.path / "b/guard").exists()
    # A guardian that takes its own away knows of no others', and nobody is asked.
    assert directory.state().spools_on == (("a",) if detach else ())


def test_what_a_lost_host_said_stays_there_until_it_is_fetched_or_cleared(tmp_path: Path) -> None:
    directory = directory_for({"one": {}}, tmp_path)
    script = "echo up; kill -9 $(ps -o ppid= $PPID) $PPID; sleep 60"
    plan = plan_of({"one": {"a": script, "b": "sleep 60"}}, directory.path)
    kept.save(directory, plan, kept.Way(), QUICK)
    outcome = execute(plan, transports_of(plan), directory, Seen(), limits=QUICK)
    assert outcome.status == "failed"
    assert spools(directory) == ["a/guard/1-one.1/a"]
    assert directory.state().spools_on == ("a",)
    runner = CliRunner()
    listed = runner.invoke(runs, ["--runs", str(tmp_path), "--format", "json"])
    assert json.loads(listed.stdout)["runs"][0]["spools_on"] == ["a"]
    assert "failed; lines kept on a" in runner.invoke(runs, ["--runs", str(tmp_path)]).stdout
    with directory.locked():
        refused = runner.invoke(runs, ["--runs", str(tmp_path), "--clear", "demo-1"], standalone_mode=False)
        assert refused.return_value == 2
    cleared = runner.invoke(runs, ["--runs", str(tmp_path), "--clear", "demo-1"], standalone_mode=False)
    assert cleared.return_value == 0, cleared.output
    assert spools(directory) == []
    assert directory.state().spools_on == ()


def test_lines_that_could_not_be_logged_here_stay_on_their_host(tmp_path: Path) -> None:
    directory, plan = written_down({"one": {"a": "echo up; exit 1"}}, tmp_path)
    (directory.logs("1-one") / "merged.log").mkdir(parents=True)
    seen = Seen()
    outcome = execute(plan, transports_of(plan), directory, seen, limits=QUICK)
    assert outcome.status == "failed"
    assert any("the rest of this stage is not logged" in event.text for event in seen.of(Noted))  # type: ignore[attr-defined]
    assert spools(directory) == ["a/guard/1-one.1/a"]
    assert directory.state().spools_on == ("a",)
