"""Carrying a plan out: order, first failure, stop on all hosts, outputs looked at, resume. Real guardians, no torch."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from dsdoctor.hosts.transport.local import LocalTransport
from dsdoctor.report.model import Finding, Report, Severity
from dsdoctor.run.directory import Holder
from dsdoctor.run.events import LineSeen, Noted, RankFailed, StageDone, StageSkipped, StageStarted
from dsdoctor.run.execute import execute
from dsdoctor.run.outcome import Outcome
from dsdoctor.run.stage import StageRun
from dsdoctor.run.stage_end import Limits
from dsdoctor.yamlfile import FileError
from tests.run.plans import Scripts, Seen, directory_for, plan_of, transports_of

QUICK = Limits(lifeline=5, grace=1, settle=0.3)


def carried_out(scripts: Scripts, base: Path, outputs: tuple[str, ...] = ()) -> tuple[Outcome, Seen, Path]:
    directory = directory_for(scripts, base)
    plan = plan_of(scripts, directory.path, outputs, GREETING="hello")
    seen = Seen()
    outcome = execute(plan, transports_of(plan), directory, seen, limits=QUICK)
    return outcome, seen, directory.path


def test_stages_run_in_order_and_lines_are_kept_by_host_and_rank(tmp_path: Path) -> None:
    scripts = {
        "one": {"a": 'echo "@rank0@ $GREETING"; echo agent >&2', "b": "echo '@rank1@ there'"},
        "two": {"a": "echo '@rank0@ second'", "b": "true"},
    }
    outcome, seen, path = carried_out(scripts, tmp_path)
    assert (outcome.status, outcome.exit_code) == ("done", 0)
    kinds = [type(event).__name__ for event in seen.events if not isinstance(event, LineSeen)]
    assert kinds == ["StageStarted", "HostsStarted", "StageDone"] * 2
    assert (path / "logs/1-one/a/rank0.log").read_text() == "hello\n"
    assert (path / "logs/1-one/a/agent.log").read_text() == "agent\n"
    merged = (path / "logs/1-one/merged.log").read_text().splitlines()
    assert sorted(merged) == ["a:-| agent", "a:0| hello", "b:1| there"]


def test_the_first_failure_stops_the_others_and_the_later_stages(tmp_path: Path) -> None:
    scripts = {
        "one": {"a": "sleep 100", "b": "echo $$; sleep 0.3; exit 3"},
        "two": {"a": "true", "b": "true"},
    }
    began = time.monotonic()
    outcome, seen, _ = carried_out(scripts, tmp_path)
    assert time.monotonic() - began < 10
    assert (outcome.status, outcome.exit_code, outcome.stage) == ("failed", 1, "one")
    assert outcome.failure == "stage one failed: b ended with exit code 3"
    assert [event.name for event in seen.of(StageStarted)] == ["one"]  # type: ignore[attr-defined]
    assert any("stopping a" in event.text for event in seen.of(Noted))  # type: ignore[attr-defined]


def test_torchrun_s_report_names_the_rank(tmp_path: Path) -> None:
    report = "failed (exitcode: -9) local_rank: 0 (pid: 77) of binary: /usr/bin/python"
    scripts = {"one": {"a": "sleep 100", "b": f"echo '{report}' >&2; exit 1"}}
    outcome, seen, path = carried_out(scripts, tmp_path)
    assert outcome.failure == "stage one failed: rank 1 on b was killed by SIGKILL"
    assert seen.of(RankFailed) == [RankFailed("b", 1, "was killed by SIGKILL")], "said at once"
    assert (outcome.host, outcome.rank) == ("b", 1)
    said = "dsdoctor: killed by SIGKILL; the kernel of b killed none for want of memory meanwhile\n"
    assert (path / "logs/1-one/b/rank1.log").read_text() == said
    assert outcome.report is not None
    assert outcome.report.verdict is not None
    assert outcome.report.verdict.cause == "process-killed-externally"


def test_exit_code_0_without_the_outputs_is_a_failure(tmp_path: Path) -> None:
    scripts = {"one": {"a": "mkdir -p a/outputs/1-one && : > a/outputs/1-one/model.bin"}}
    outcome, _, _ = carried_out(scripts, tmp_path, outputs=("model.bin", "adapter"))
    assert outcome.status == "failed"
    assert outcome.failure is not None
    assert "on a model.bin is empty, adapter is not there" in outcome.failure


def test_launching_again_goes_on_with_the_first_stage_that_is_not_done(tmp_path: Path) -> None:
    good = "mkdir -p a/outputs/1-one && echo x > a/outputs/1-one/out"
    scripts = {
        "one": {"a": good},
        "two": {"a": "echo x >> tries; [ -e allowed ] && mkdir -p a/outputs/2-two && echo x > a/outputs/2-two/out"},
    }
    directory = directory_for(scripts, tmp_path)
    plan = plan_of(scripts, directory.path, ("out",))
    first = execute(plan, transports_of(plan), directory, Seen(), limits=QUICK)
    assert (first.status, first.stage) == ("failed", "two")
    (directory.path / "allowed").touch()
    seen = Seen()
    second = execute(plan, transports_of(plan), directory, seen, limits=QUICK)
    assert second.status == "done"
    assert [event.name for event in seen.of(StageSkipped)] == ["one"]  # type: ignore[attr-defined]
    assert [event.name for event in seen.of(StageDone)] == ["two"]  # type: ignore[attr-defined]
    state = directory.state()
    assert [(stage.status, stage.attempts) for stage in state.stages] == [("done", 1), ("done", 2)]
    assert (directory.path / "logs" / "2-two.attempt1" / "merged.log").parent.is_dir()


def test_a_done_stage_whose_outputs_are_gone_is_run_again_and_all_after_it(tmp_path: Path) -> None:
    script = "mkdir -p a/outputs/{0} && echo x > a/outputs/{0}/out"
    scripts = {"one": {"a": script.format("1-one")}, "two": {"a": script.format("2-two")}}
    directory = directory_for(scripts, tmp_path)
    plan = plan_of(scripts, directory.path, ("out",))
    assert execute(plan, transports_of(plan), directory, Seen(), limits=QUICK).status == "done"
    (directory.path / "a/outputs/1-one/out").unlink()
    seen = Seen()
    assert execute(plan, transports_of(plan), directory, seen, limits=QUICK).status == "done"
    assert [event.name for event in seen.of(StageDone)] == ["one", "two"]  # type: ignore[attr-defined]
    assert any("out is not there" in event.text for event in seen.of(Noted))  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_every_host_first(tmp_path: Path, number: int) -> None:
    scripts = {"one": {"a": "echo $$ > pid; sleep 100", "b": "sleep 100"}}
    directory = directory_for(scripts, tmp_path)
    plan = plan_of(scripts, directory.path)

    def interrupt() -> None:
        while not (directory.path / "pid").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt).start()
    try:
        outcome = execute(plan, transports_of(plan), directory, Seen(), limits=QUICK)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (outcome.status, outcome.exit_code) == ("interrupted", 130)
    assert directory.state().status == "interrupted"
    assert not Path(f"/proc/{(directory.path / 'pid').read_text().strip()}").exists()


def test_a_guardian_that_ends_by_itself_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    # The program ends its guardian (a host that shuts down) and exits with 0 when it is told to end.
    script = "trap 'exit 0' TERM; kill -TERM $PPID; sleep 100 & wait"
    outcome, _, path = carried_out({"one": {"a": script, "b": "sleep 100"}}, tmp_path)
    assert outcome.status == "failed"
    assert outcome.failure == "stage one failed: the guardian of a ended the job (signal 15)"
    assert "dsdoctor: the guardian of a ended the job: signal 15" in (path / "logs/1-one/merged.log").read_text()


class Slow:
    """This machine as a host that takes its time to connect."""

    def __init__(self, inner: LocalTransport, seconds: float) -> None:
        self.inner, self.seconds = inner, seconds

    def start(self, argv: Sequence[str]) -> object:
        time.sleep(self.seconds)
        return self.inner.start(argv)

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)


def test_a_host_that_connects_after_the_stop_starts_nothing(tmp_path: Path) -> None:
    directory = directory_for({"one": {"a": "", "b": ""}}, tmp_path)
    plan = plan_of({"one": {"a": "exit 4", "b": "touch started"}}, directory.path)
    transports = dict(transports_of(plan))
    transports["b"] = Slow(transports["b"], 2)  # type: ignore[assignment]
    outcome = execute(plan, transports, directory, Seen(), limits=QUICK)
    assert outcome.failure == "stage one failed: a ended with exit code 4"
    time.sleep(1)
    assert not (directory.path / "started").exists()


def test_a_ping_never_comes_before_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def eager(self: StageRun, over: threading.Event) -> None:
        while not over.wait(0.0005):
            for guard in self.guards.values():
                guard.ping()

    monkeypatch.setattr(StageRun, "_keep_alive", eager)
    hosts = {f"h{number}": "true" for number in range(8)}
    outcome, _, _ = carried_out({"one": hosts}, tmp_path)
    assert outcome.status == "done", outcome.failure


def test_only_the_host_of_rank_0_must_have_the_outputs(tmp_path: Path) -> None:
    script = "mkdir -p a/outputs/1-one && echo x > a/outputs/1-one/out && ln -s /nowhere a/outputs/1-one/link"
    outcome, _, _ = carried_out({"one": {"a": script, "b": "true"}}, tmp_path, outputs=("out",))
    assert outcome.status == "done", outcome.failure


def test_a_log_that_cannot_be_written_ends_no_training(tmp_path: Path) -> None:
    directory = directory_for({"one": {"a": ""}}, tmp_path)
    plan = plan_of({"one": {"a": "echo hello"}}, directory.path)
    (directory.path / "logs").mkdir()
    (directory.path / "logs/1-one").mkdir()
    (directory.path / "logs/1-one/merged.log").mkdir()  # in the way
    seen = Seen()
    assert execute(plan, transports_of(plan), directory, seen, limits=QUICK).status == "done"
    assert any("cannot be written" in event.text for event in seen.of(Noted))  # type: ignore[attr-defined]


def test_an_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        outcome, _, _ = carried_out({"one": {"a": f"kill -HUP {os.getpid()}; sleep 0.3"}}, tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert outcome.status == "done", "nohup dsdoctor launch survives its terminal"


def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    scripts = {"one": {"a": "exec /no/such/python -m torch"}}
    outcome, _, path = carried_out(scripts, tmp_path)
    assert outcome.failure == "stage one failed: a ended with exit code 127"  # bash's word
    assert "/no/such/python" in (path / "logs/1-one/merged.log").read_text()


def test_a_run_under_way_is_not_started_twice(tmp_path: Path) -> None:
    directory = directory_for({"one": {"a": "true"}}, tmp_path)
    with (
        directory.locked(),
        pytest.raises(FileError, match=f"carried out by process {os.getpid()}"),
        directory.locked(),
    ):
        pass
    assert directory.holder() is None
    with directory.locked():
        assert directory.holder() == Holder(os.getpid())


DUPLICATE = "torch.distributed.DistBackendError: x\nInvalid config blocking attribute value -2147483648"


def test_what_the_checks_said_of_the_hosts_makes_the_verdict_more_or_less_sure(tmp_path: Path) -> None:
    """`launch` keeps their report with the run: the same log then reads otherwise."""
    found = Finding("duplicate-nccl", Severity.ERROR, "two packages own libnccl.so.2", hosts=("a",))
    reports = {
        "nothing known": None,
        "ruled out": Report("launch", 0.0, passed=("duplicate-nccl", "nccl-differs-from-torch")),
        "confirmed": Report("launch", 0.0, findings=(found,)),
    }
    said = {}
    for number, (name, report) in enumerate(reports.items()):
        base = tmp_path / str(number)
        base.mkdir()
        scripts = {"one": {"a": f"printf '%s\\n' '{DUPLICATE}'; exit 1"}}
        directory = directory_for(scripts, base)
        if report is not None:
            directory.write_json("report.json", report.to_dict())
        plan = plan_of(scripts, directory.path)
        outcome = execute(plan, transports_of(plan), directory, Seen(), limits=QUICK)
        assert outcome.report is not None
        verdict = outcome.report.verdict
        assert verdict is not None
        assert verdict.cause == "nccl-duplicate-lib"
        kept = json.loads((directory.path / "verdict.json").read_text())["verdict"]
        assert kept["confidence"] == verdict.confidence
        said[name] = (verdict.confidence, " ".join(outcome.report.notes))
    assert said["nothing known"][0] == "certain"
    assert said["ruled out"][0] == "likely"
    assert "finds nothing of it" in said["ruled out"][1]
    assert said["confirmed"][0] == "certain"
    assert "duplicate-nccl finds the same" in said["confirmed"][1]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    scripts = {"one": {"a": "true"}}
    directory = directory_for(scripts, tmp_path)
    (directory.path / "a").mkdir()
    (directory.path / "a/outputs").touch()
    plan = plan_of(scripts, directory.path)
    outcome = execute(plan, transports_of(plan), directory, Seen(), limits=QUICK)
    folder = f"{directory.path}/a/outputs/1-one"
    assert outcome.failure == (
        f"stage one failed: nothing could be started on a: the folder {folder} cannot be made: Not a directory"
    )
