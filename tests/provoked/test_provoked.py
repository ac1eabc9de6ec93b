"""Every failure is made to happen here, and its recorded log is kept: `diagnose` has to see through both."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.cluster.little_cluster import LittleCluster
from tests.cluster.prerequisites import skip_or_fail
from tests.provoked.ahead import Ahead
from tests.provoked.failure import FAILURES, RECORDED, Failure, failures
from tests.provoked.judging import mistakes, rules
from tests.provoked.recording import INDEX, PACKAGES, index, neutral
from tests.provoked.sandbox import Outcome
from tests.provoked.stage import happen, missing_for

ALONE = [name for name, each in failures().items() if not each.everywhere]
EVERYWHERE = [name for name, each in failures().items() if each.everywhere]


def judge(failure: Failure, log: bytes) -> None:
    assert mistakes(failure, log) == [], log.decode("utf-8", "replace")


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.cluster
@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_failure_of_several_hosts_is_provoked_and_seen_through(
    name: str, ahead: Ahead, restored: LittleCluster
) -> None:
    failure = failures()[name]  # those that need no cluster are under way meanwhile
    skip_or_fail(missing_for(failure))
    judge(failure, happen(failure, restored).log)


@pytest.mark.slow
@pytest.mark.train
@pytest.mark.parametrize("name", ALONE)
def test_a_failure_is_provoked_and_seen_through(name: str, ahead: Ahead) -> None:
    failure = failures()[name]
    skip_or_fail(missing_for(failure))
    judge(failure, ahead.outcome(failure).log)


@pytest.mark.parametrize("name", failures())
def test_the_recorded_log_is_seen_through(name: str) -> None:
    failure = failures()[name]
    judge(failure, failure.log.read_bytes())


def test_there_is_a_log_for_every_failure_and_no_other() -> None:
    assert {path.stem for path in RECORDED.glob("*.log")} == set(failures()) == set(index())
    assert all(entry.keys() == {"python", *PACKAGES} for entry in index().values())
    assert {path.name for path in RECORDED.iterdir() if path.suffix != ".log"} == {INDEX.name}
    assert {path.suffix for path in FAILURES.iterdir()} == {".yaml"}


@pytest.mark.parametrize("name", failures())
def test_a_recorded_log_has_no_places_of_the_machine_that_it_was_recorded_on(name: str) -> None:
    text = failures()[name].log.read_text(encoding="utf-8")
    assert re.findall(r"/(?:tmp/(?!checkpoint|hosts)|root/|work/|farm/|home/(?!alice|bob))\S*", text) == []


def test_the_places_of_this_machine_are_replaced_and_nothing_else() -> None:
    lines = [
        ("{run}/job/train.py", "/home/alice/job/train.py"),
        ("{run}/home/.cache/torch_extensions", "/home/alice/.cache/torch_extensions"),
        ("{prefix}/lib/python3.11", "/opt/venv/lib/python3.11"),
        ("/root/job: No such file", "/home/bob/job: No such file"),
        ("/usr/bin/ld: cannot find {prefix}-other", "/usr/bin/ld: cannot find {prefix}-other"),
    ]
    run = Path("/tmp/dsdoctor-provoked-1-2-x")
    given, wanted = ("\n".join(each).format(run=run, prefix=sys.prefix) for each in zip(*lines, strict=True))
    kept = neutral(Outcome(given.encode(), 1, 0.0, run)).decode()
    assert kept.splitlines()[:4] == wanted.splitlines()[:4]
    assert kept.endswith("-other")


def test_every_failure_wants_a_cause_that_a_rule_names() -> None:
    causes = {cause for each in failures().values() for cause in (each.cause, *each.also)}
    assert causes <= {"none", *rules().rules}
