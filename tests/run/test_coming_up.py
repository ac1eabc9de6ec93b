"""A host that keeps the others waiting fails the stage, with the reason, long before torch's own limits."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dsdoctor.plan.model import LaunchPlan, RankPart
from dsdoctor.run.coming_up import ComingUp
from dsdoctor.run.execute import execute
from dsdoctor.run.outcome import Outcome
from dsdoctor.run.stage_end import Limits
from tests.run.plans import Seen, directory_for, plan_of, transports_of

QUICK = Limits(lifeline=5, grace=1, settle=0.3, ranks_up=1.5, meeting=1.5)
SCRIPTS = {"one": {"a": "sleep 100", "b": "sleep 100"}}


def carried_out(base: Path, commands: dict[str, dict[str, Any]], **changes: Any) -> tuple[Outcome, float, Path]:
    """Carry out a stage of two hosts that sleep, with their commands changed."""
    directory = directory_for(SCRIPTS, base)
    plan = msgspec.structs.replace(plan_of(SCRIPTS, directory.path), **changes)
    changed = tuple(
        msgspec.structs.replace(command, **commands.get(command.host, {})) for command in plan.stages[0].commands
    )
    plan = msgspec.structs.replace(plan, stages=(msgspec.structs.replace(plan.stages[0], commands=changed),))
    began = time.monotonic()
    outcome = execute(plan, transports_of(plan), directory, Seen(), limits=QUICK)
    return outcome, time.monotonic() - began, directory.path


def test_a_launcher_that_starts_no_rank_fails_the_stage(tmp_path: Path) -> None:
    outcome, seconds, path = carried_out(tmp_path, {"b": {"rank_logs": str(tmp_path / "ranks")}})
    assert outcome.status == "failed"
    assert outcome.failure is not None
    assert "stage one failed: the launcher of b runs, but its rank was not started within 2 s" in outcome.failure
    assert seconds < 12
    assert "dsdoctor: the launcher of b runs" in (path / "logs/1-one/merged.log").read_text()


def test_a_host_that_does_not_reach_the_meeting_place_is_named(tmp_path: Path) -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        place.listen()
        port = place.getsockname()[1]
        outcome, seconds, _ = carried_out(
            tmp_path,
            {"a": {"meets": True}, "b": {"meets": True}},
            master_addr="127.0.0.2",  # where nobody listens: for host b the way is closed
            master_port=port,
        )
    assert outcome.failure is not None
    assert f"b does not reach 127.0.0.2:{port}, where rank 0 has been waiting" in outcome.failure
    assert "Connection refused" in outcome.failure
    assert "dsdoctor check --network" in outcome.failure
    assert seconds < 12


def test_ranks_of_the_guardian_fail_by_name(tmp_path: Path) -> None:
    ranks = (RankPart(1, {"R": "1"}), RankPart(2, {"R": "2"}))
    script = "if [ $R = 2 ]; then sleep 0.3; exit 5; else sleep 100; fi"
    command = {"argv": ("bash", "-c", script), "ranks": ranks}
    outcome, seconds, _ = carried_out(tmp_path, {"b": command})
    assert outcome.failure == "stage one failed: rank 2 on b ended with exit code 5"
    assert (outcome.host, outcome.rank) == ("b", 2)
    assert seconds < 12


def plan_with(tmp_path: Path, **command: Any) -> LaunchPlan:
    plan = plan_of(SCRIPTS, tmp_path)
    commands = tuple(msgspec.structs.replace(each, **command) for each in plan.stages[0].commands)
    return msgspec.structs.replace(plan, stages=(msgspec.structs.replace(plan.stages[0], commands=commands),))


@pytest.mark.parametrize("command", [{}, {"meets": True}, {"ranks": (RankPart(0),)}])
def test_what_comes_up_in_time_is_left_alone(tmp_path: Path, command: dict[str, Any]) -> None:
    plan = plan_with(tmp_path, **command)
    watched = ComingUp(plan, plan.stages[0], 120, 30)
    watched.take("a", {"e": "started"}, 0)
    watched.take("b", {"e": "started"}, 0)
    watched.take("b", {"e": "meet", "problem": "Connection refused"}, 1)
    for name in ("a", "b"):
        watched.take(name, {"e": "ranks_up"}, 2)
    assert watched.problem(10_000) is None, "rank 0 does not listen yet: it is the script's to say when it begins"
    watched.take("a", {"e": "meet", "listening": True}, 10_000)
    assert watched.problem(10_020) is None
    watched.take("b", {"e": "meet", "reached": True}, 10_021)
    assert watched.problem(99_999) is None
