"""Trying a failed stage again: what is, what is not, and with which port."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from dsdoctor.hosts.transport import TransportError
from dsdoctor.plan.model import Command, EnvVar, LaunchPlan, RankPart
from dsdoctor.report.model import Report, Verdict
from dsdoctor.run import retry
from dsdoctor.run.events import Noted
from dsdoctor.run.execute import execute
from dsdoctor.run.outcome import Outcome
from dsdoctor.run.retry import with_port, worth_it
from dsdoctor.run.stage_end import HostEnd, Limits, StageEnd
from tests.run.plans import Scripts, Seen, directory_for, plan_of, transports_of

TAKEN = (
    "RuntimeError: The server socket has failed to listen on any local network address. port: 29500, name: EADDRINUSE"
)
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "PAUSES", (0.1,))
    monkeypatch.setattr(retry, "LOOK_EVERY", 0.1)


def tried(scripts: Scripts, base: Path, retries: int) -> tuple[Outcome, Seen, Path]:
    directory = directory_for(scripts, base)
    plan = plan_of(scripts, directory.path, MASTER_PORT="29500")
    seen = Seen()
    limits = Limits(lifeline=5, grace=1, settle=0.3, retries=retries)
    outcome = execute(plan, transports_of(plan), directory, seen, limits=limits)
    return outcome, seen, directory.path


def notes(seen: Seen) -> list[str]:
    return [event.text for event in seen.events if isinstance(event, Noted)]


def failing_once(line: str) -> str:
    first = f"{{ echo '@rank0@ {line}'; exit 1; }}"
    return f"echo x >> tries; echo $MASTER_PORT >> ports; [ $(wc -l < tries) -gt 1 ] || {first}"


def test_a_port_that_is_taken_is_changed_and_the_stage_tried_again(tmp_path: Path) -> None:
    scripts = {"one": {"a": failing_once(TAKEN)}, "two": {"a": "echo $MASTER_PORT >> ports"}}
    outcome, seen, path = tried(scripts, tmp_path, retries=2)
    assert outcome.status == "done", outcome.failure
    ports = (path / "ports").read_text().split()
    assert ports[0] == "29500"
    assert ports[1] == ports[2] != "29500", "the stages after it meet there, too"
    assert notes(seen)[0] == "trying again in 0 s (1): port-in-use: another port is taken"
    assert (path / "logs/1-one.attempt1/merged.log").is_file(), "the first attempt's log is kept apart"
    assert not (path / "verdict.json").exists()
    plan = msgspec.json.decode((path / "plan.json").read_bytes())
    assert str(plan["master"]["port"]) == ports[1]


@pytest.mark.parametrize("line", [OOM, "ValueError: nobody knows this", "ModuleNotFoundError: No module named 'peft'"])
def test_what_time_does_not_mend_is_not_tried_again(tmp_path: Path, line: str) -> None:
    outcome, seen, path = tried({"one": {"a": failing_once(line.replace("'", ""))}}, tmp_path, retries=3)
    assert outcome.status == "failed"
    assert (path / "tries").read_text() == "x\n"
    assert notes(seen)[-1] == "not tried again: nothing says that another attempt would go better"


def test_nothing_is_tried_again_unasked(tmp_path: Path) -> None:
    outcome, seen, path = tried({"one": {"a": failing_once(TAKEN)}}, tmp_path, retries=0)
    assert outcome.status == "failed"
    assert (path / "tries").read_text() == "x\n"
    assert notes(seen) == []


def test_attempts_come_to_an_end(tmp_path: Path) -> None:
    outcome, _, path = tried({"one": {"a": f"echo x >> tries; echo '@rank0@ {TAKEN}'; exit 1"}}, tmp_path, retries=2)
    assert outcome.status == "failed"
    assert (path / "tries").read_text() == "x\n" * 3


def ended(lost: str | None = None, **more: object) -> StageEnd:
    hosts = {"a": HostEnd(code=1), "b": HostEnd(lost=lost) if lost else HostEnd(code=-15)}
    return StageEnd(hosts, "a", False, 10.0, **more)  # type: ignore[arg-type]


def said(cause: str) -> Report:
    return Report(command="diagnose", seconds=0.0, verdict=Verdict(cause, "likely"))  # type: ignore[arg-type]


def test_a_lost_host_is_waited_for() -> None:
    for cause in ("none", "unknown", "host-lost", "peer-unreachable-firewall", "nccl-collective-timeout"):
        again = worth_it(ended("no sign of life for 20 s"), said(cause))
        assert again is not None
        assert again.lost == ("b",)
        assert again.because.startswith("b was lost")


def test_without_a_lost_host_an_unreachable_peer_is_a_setting() -> None:
    assert worth_it(ended(), said("peer-unreachable-firewall")) is None
    assert worth_it(ended(), said("none")) is None
    assert worth_it(ended(), None) is None


def test_a_lost_host_excuses_no_other_cause() -> None:
    assert worth_it(ended("no sign of life for 20 s"), said("cuda-oom")) is None
    assert worth_it(ended("no sign of life for 20 s"), said("training-script-exception")) is None


def test_a_stall_is_not_tried_again() -> None:
    assert worth_it(ended(stalled="stalled: no step for 60 s"), said("run-stalled")) is None


class Away:
    """A host that is not reached at first."""

    def __init__(self, inner: object, times: int) -> None:
        self.inner, self.times = inner, times

    def run(self, argv: list[str], **options: object) -> object:
        if argv == ["true"] and self.times > 0:
            self.times -= 1
            raise TransportError("b", "timeout", "no answer")
        return self.inner.run(argv, **options)  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)


def waiting(base: Path, times: int, asked: bool = False) -> tuple[LaunchPlan, object, Seen]:
    scripts = {"one": {"a": "true", "b": "true"}}
    plan, seen = plan_of(scripts, directory_for(scripts, base).path), Seen()
    transports = dict(transports_of(plan))
    transports["b"] = Away(transports["b"], times)  # type: ignore[assignment]
    again = retry.Again("b was lost", lost=("b",))
    return plan, retry.prepare(again, 1, plan, transports, seen, lambda: asked), seen


def test_a_host_that_comes_back_is_waited_for_and_said_once(tmp_path: Path) -> None:
    plan, result, seen = waiting(tmp_path, 3)
    assert result is plan
    assert [text.split(",")[0] for text in notes(seen)][1:] == ["waiting for b to be reached again"]


def test_a_host_that_does_not_come_back_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "RETURN_LIMIT", 0.3)
    _, result, _ = waiting(tmp_path, 10_000)
    assert result == "b did not come back within 0 s"


def test_who_is_told_to_stop_waits_no_longer(tmp_path: Path) -> None:
    assert waiting(tmp_path, 10_000, asked=True)[1] is None


def test_another_port_in_every_form_of_command(tmp_path: Path) -> None:
    port = EnvVar("MASTER_PORT", "29500", "a port that nobody listens on there")
    scripts = {"one": {"a": "true"}}
    plan = plan_of(scripts, directory_for(scripts, tmp_path).path, OTHER="29500")
    argv = (
        *("python", "-m", "x", "--master_port", "29500", "--master_port=29500", "--rdzv_endpoint", "h:29500"),
        *("--rdzv_endpoint=[fd00::1]:29500", "--main_process_port", "29500", "--max_steps", "29500", "/data/29500"),
        "--seed=29500",
    )
    command = Command("a", argv, "/", {"MASTER_PORT": port}, ranks=(RankPart(0, {"MASTER_PORT": "29500"}),))
    plan = msgspec.structs.replace(plan, stages=(msgspec.structs.replace(plan.stages[0], commands=(command,)),))
    changed = with_port(plan, 31000)
    made = changed.stages[0].commands[0]
    assert made.argv == (
        *("python", "-m", "x", "--master_port", "31000", "--master_port=31000", "--rdzv_endpoint", "h:31000"),
        *("--rdzv_endpoint=[fd00::1]:31000", "--main_process_port", "31000", "--max_steps", "29500", "/data/29500"),
        "--seed=29500",
    )
    assert made.env["MASTER_PORT"].value == "31000"
    assert made.ranks[0].env["MASTER_PORT"] == "31000"
    assert changed.master_port == 31000
    assert changed.hosts[0].env["OTHER"].value == "29500"
