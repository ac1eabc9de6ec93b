"""Every check against its cases, and the rule that a check has the cases it needs."""

from __future__ import annotations

import pytest

from dsdoctor.checks import run_checks
from dsdoctor.checks.casefile import Case, CaseJob, Expected, cases
from dsdoctor.checks.engine import Outcome, discover, run_these
from dsdoctor.checks.tables import case_names
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Finding, Severity
from tests.checks.building import COMPOSED, as_text, cluster_of, job_of, load_cluster, snapshots

CHECKS = tuple(discover())
CLUSTERS = sorted(path.name for path in COMPOSED.iterdir() if path.is_dir())
# What is true of a cluster as it is: two kinds of cards, a kernel older than accelerate likes.
TRUE = {"xuanyuan": {"kernel-too-old", "mixed-gpus"}, "mixed": {"mixed-gpus"}}
# What cannot be learnt there: a container may not read the kernel's log.
UNKNOWN = {"autodl": {"gpu-xid"}}
ALL = [pytest.param(name, case, id=f"{name}: {case.name}") for name in case_names() for case in cases(name)]


def test_there_are_checks_and_cases() -> None:
    assert len(CHECKS) >= 18
    assert case_names() == CHECKS, "a file of cases for every check, and none for anything else"


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_has_the_cases_it_needs(name: str) -> None:
    known = cases(name)
    assert any(case.expect for case in known), "no case with a finding"
    assert any(not case.expect and not case.skipped for case in known), "no clean case"
    assert len({case.name for case in known}) == len(known), "two cases have one name"
    assert all(case.why.strip() for case in known)
    first = next(expected for case in known for expected in case.expect)
    assert first.message, "the first finding is the example of `explain`: it wants its whole message"
    if discover()[name].per_host or name in {"nccl-differs-between-hosts", "ssh-by-name", "unknown-env-var"}:
        assert any(case.missing and case.skipped for case in known), "no case with the fact missing"


@pytest.mark.parametrize(("name", "case"), ALL)
def test_case(name: str, case: Case) -> None:
    outcome = run_these([discover()[name]], cluster_of(case), job_of(case))
    assert not outcome.crashed, outcome.crashed[0].traceback
    titles = [fix.title for finding in outcome.findings for fix in finding.fix]
    assert not [title for title in titles if title.startswith(("Or ", "or "))], "the report says Fix: and Or: itself"
    left = list(outcome.findings)
    for expected in case.expect:
        match = next((finding for finding in left if _is(name, expected, finding)), None)
        assert match is not None, f"expected {as_text(expected)}\namong {as_text(left)}"
        left.remove(match)
    assert not left, f"not expected: {as_text(left)}"
    for skip in case.skipped:
        found = [entry for entry in outcome.skipped if skip.reason in entry.reason]
        assert found, f"expected {as_text(skip)}\namong {as_text(outcome.skipped)}"
        assert not skip.hosts or found[0].hosts == skip.hosts
    assert len(outcome.skipped) == len(case.skipped), as_text(outcome.skipped)
    assert bool(outcome.passed) is not bool(case.expect or case.skipped or case.nothing)


@pytest.mark.parametrize("name", CHECKS)
def test_the_example_of_explain_shows_the_whole_fix(name: str) -> None:
    case = next(case for case in cases(name) if case.expect)
    expected = case.expect[0]
    found = run_checks(cluster_of(case), job_of(case), select=[name]).findings
    finding = next(finding for finding in found if _is(name, expected, finding))
    assert expected.commands == tuple(command for fix in finding.fix for command in fix.commands)
    assert expected.env == {key: value for fix in finding.fix for key, value in fix.env.items()}


def _is(name: str, expected: Expected, finding: Finding) -> bool:
    commands = [command for fix in finding.fix for command in fix.commands]
    variables = {key: value for fix in finding.fix for key, value in fix.env.items()}
    texts = [evidence.text for evidence in finding.evidence]
    return (
        finding.name == name
        and (expected.message is None or finding.message == expected.message)
        and all(piece in finding.message for piece in expected.contains)
        and finding.severity is (expected.severity or discover()[name].severity)
        and finding.hosts == expected.hosts
        and set(expected.commands) <= set(commands)
        and expected.env.items() <= variables.items()
        and all(any(piece in text for text in texts) for piece in expected.evidence)
        and (expected.line is None or any(evidence.line == expected.line for evidence in finding.evidence))
    )


@pytest.mark.parametrize("folder", CLUSTERS)
def test_a_healthy_cluster_has_no_finding(folder: str) -> None:
    outcome = run_checks(load_cluster(folder))
    assert {finding.name for finding in outcome.findings} == TRUE.get(folder, set()), as_text(outcome.findings)
    assert {finding.severity for finding in outcome.findings} <= {Severity.INFO}
    assert {entry.name for entry in outcome.skipped} == UNKNOWN.get(folder, set()), as_text(outcome.skipped)
    assert not outcome.crashed, as_text(outcome.crashed)


@pytest.mark.parametrize("name", [name for name, check in discover().items() if check.trial])
def test_what_was_not_tried_is_not_passed(name: str) -> None:
    outcome = run_these([discover()[name]], load_cluster("a100pair"))
    assert outcome == Outcome()
    asked = run_checks(load_cluster("a100pair"), select=[name])
    option = "--network" if discover()[name].trial == "peers" else "--deep"
    assert [(each.name, each.reason) for each in asked.skipped] == [(name, f"it was not asked for: add {option}")]
    assert asked.passed == ()


@pytest.mark.parametrize("folder", CLUSTERS)
def test_a_composed_snapshot_is_whole_and_says_what_it_is(folder: str) -> None:
    for snapshot in snapshots(folder).values():
        assert "composed" in snapshot.origin
        host = HostFacts(snapshot)
        assert set(snapshot.sections) == set(HostFacts.sections())
        for section in HostFacts.sections():
            getattr(host, section)


@pytest.mark.parametrize("section", HostFacts.sections())
@pytest.mark.parametrize("folder", CLUSTERS)
def test_a_missing_section_gives_no_finding_and_no_crash(folder: str, section: str) -> None:
    case = Case(name="x", why="x", expect=(), cluster=folder, missing={"*": {section: "permission denied"}})
    outcome = run_checks(cluster_of(case))
    assert not outcome.crashed, outcome.crashed[0].traceback
    assert {finding.name for finding in outcome.findings} <= TRUE.get(folder, set()), as_text(outcome.findings)
    skipped = [entry for entry in outcome.skipped if entry.name not in UNKNOWN.get(folder, set())]
    assert all("permission denied" in entry.reason for entry in skipped), as_text(skipped)


def test_a_bad_evening_all_at_once() -> None:
    """The conditions of one cluster's notes together: each is named on its host, and nothing that is not there."""
    case = Case(
        name="evening",
        why="everything at once",
        expect=(),
        cluster="xuanyuan",
        change={
            "*": {"environment": {"variables": {"NCCL_SOCKET_IFNAME": "bond0", "NCCL_IB_DISABL": "1"}, "files": []}},
            "gpu-a": {
                "nccl": {
                    "owners": [
                        {"name": "nvidia-nccl-cu11", "version": "2.14.3"},
                        {"name": "nvidia-nccl-cu12", "version": "2.18.1"},
                    ],
                    "copies": {0: {"version": "2.14.3", "cuda": "11.7"}},
                }
            },
            "gpu-b": {
                "gpu": {"status": "driver-not-loaded", "gpus": [], "driver_version": None},
                "driver": {"loaded": False, "version": None, "module_files": []},
                "limits": {"nofile": {"soft": 1024, "hard": 4096}},
            },
        },
        job=CaseJob(
            args={
                "lr_scheduler_type": "constant",
                "warmup_steps": 0,
                "per_device_train_batch_size": 1,
                "preprocessing_num_workers": 1024,
            },
            deepspeed='{"fp16": {"enabled": true}, "scheduler": {"type": "WarmupLR", "params": {}}, '
            '"train_micro_batch_size_per_gpu": "auto", "zero_optimization": {"stage": 0}}',
        ),
    )
    outcome = run_checks(cluster_of(case), job_of(case))
    assert [(finding.name, finding.severity.value, finding.hosts) for finding in outcome.findings] == [
        ("driver-not-loaded", "error", ("gpu-b",)),
        ("duplicate-nccl", "error", ("gpu-a",)),
        ("low-open-files", "error", ("gpu-b",)),
        ("precision-disagrees", "error", ()),
        ("socket-ifname-missing", "error", ("gpu-b",)),
        ("scheduler-overridden", "warning", ()),
        ("unknown-env-var", "warning", ("gpu-a", "gpu-b")),
        ("kernel-too-old", "info", ("gpu-a", "gpu-b")),
    ]
    assert {(entry.name, entry.hosts) for entry in outcome.skipped} == {
        ("nccl-differs-between-hosts", ("gpu-a",)),
        ("nccl-differs-from-torch", ("gpu-a",)),
    }
    # The job names no model, so there is nothing to forecast from, and no word is lost about that.
    assert not {"gpu-memory-exceeded", "gpu-memory-unused", "long-training", "ram-exceeded"} & set(outcome.passed)
    assert not outcome.crashed
