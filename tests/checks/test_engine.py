"""The engine: what a check is given, what becomes of what it says, and that nothing it does hurts the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dsdoctor.checks import JobContext, UnknownCheckError, run_checks
from dsdoctor.checks.casefile import CaseJob
from dsdoctor.checks.engine import Check, NothingToJudge, check, discover, find, run_these
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped
from tests.checks.building import load_cluster, resolved

Said = Iterator[Finding | Skipped]

XUANYUAN = load_cluster("xuanyuan")


@check(since="0.1")
def every_host(host: HostFacts, entry: HostEntry) -> Said:
    yield every_host.finding(
        "something",
        evidence=[Evidence(text=host.name)],
        fix=[Fix("Mend it", (f"mend {entry.name}",)), Fix("Or this", env={"A": "1"})],
    )


@check(severity=Severity.WARNING, since="0.1")
def once(cluster: Cluster) -> Said:
    yield once.finding("seen once", hosts=["gpu-b"])
    yield once.finding("and worse", severity=Severity.ERROR, hosts=["gpu-a"])


@check(since="0.1")
def clean(host: HostFacts) -> Said:
    yield from ()


@check(since="0.1")
def unknowable(host: HostFacts) -> Said:
    yield unknowable.finding("said before the fact was missed")
    raise FactUnavailable("shm", f"no idea on {host.name}" if host.name == "gpu-a" else "no idea")


@check(since="0.1")
def broken(host: HostFacts) -> Said:
    yield broken.finding("said before it broke")
    raise ZeroDivisionError(host.name)


@check(since="0.1")
def of_job(context: JobContext) -> Said:
    yield of_job.finding(f"job {context.job.name}, {len(context.cluster or ())} hosts")


@check(since="0.1")
def of_host_and_job(host: HostFacts, context: JobContext) -> Said:
    yield of_host_and_job.finding(context.job.name)


@check(since="0.1")
def of_either(cluster: Cluster | None, context: JobContext | None) -> Said:
    yield of_either.finding(f"{cluster is not None} {context is not None}")


def names(checks: list[Check], cluster: Cluster | None, job: bool = False) -> list[tuple[str, str, tuple[str, ...]]]:
    outcome = run_these(checks, cluster, resolved(CaseJob()) if job else None)
    return [(finding.name, finding.message, finding.hosts) for finding in outcome.findings]


def test_what_all_hosts_have_in_common_is_one_finding_with_all_commands() -> None:
    (finding,) = run_these([every_host], XUANYUAN).findings
    assert finding.hosts == ("gpu-a", "gpu-b")
    assert [evidence.text for evidence in finding.evidence] == ["gpu-a", "gpu-b"]
    assert finding.fix == (Fix("Mend it", ("mend gpu-a", "mend gpu-b")), Fix("Or this", env={"A": "1"}))


def test_a_check_gets_what_it_asks_for_and_is_left_out_without() -> None:
    everything = [of_job, of_host_and_job, of_either]
    assert names(everything, None) == []
    assert names(everything, None, job=True) == [("of-either", "False True", ()), ("of-job", "job job, 0 hosts", ())]
    assert names(everything, XUANYUAN) == [("of-either", "True False", ())]
    assert names(everything, XUANYUAN, job=True) == [
        ("of-either", "True True", ()),
        ("of-host-and-job", "job", ("gpu-a", "gpu-b")),
        ("of-job", "job job, 2 hosts", ()),
    ]


def test_a_check_that_was_not_run_is_in_no_list() -> None:
    outcome = run_these([of_job], XUANYUAN)
    assert outcome == run_these([], None)


def test_findings_come_worst_first_then_by_name_then_by_host() -> None:
    assert names([once, every_host, clean], XUANYUAN) == [
        ("every-host", "something", ("gpu-a", "gpu-b")),
        ("once", "and worse", ("gpu-a",)),
        ("once", "seen once", ("gpu-b",)),
    ]


def test_a_missing_fact_skips_the_host_and_keeps_what_was_said() -> None:
    outcome = run_these([unknowable], XUANYUAN)
    assert outcome.skipped == (
        Skipped("unknowable", ("gpu-a",), "shm: no idea on gpu-a"),
        Skipped("unknowable", ("gpu-b",), "shm: no idea"),
    )
    assert len(outcome.findings) == 1
    assert not outcome.passed


def test_a_bug_in_a_check_is_kept_and_costs_no_other() -> None:
    outcome = run_these([broken, clean, once], XUANYUAN)
    assert [(crash.name, crash.hosts) for crash in outcome.crashed] == [("broken", ("gpu-a",)), ("broken", ("gpu-b",))]
    assert "ZeroDivisionError: gpu-a" in outcome.crashed[0].traceback
    assert outcome.passed == ("clean",)
    assert {finding.name for finding in outcome.findings} == {"broken", "once"}


def test_an_ignored_error_is_a_warning_that_is_still_there() -> None:
    outcome = run_these([every_host, once], XUANYUAN, ignore=["every-host", "once"])
    assert {(finding.name, finding.severity, finding.ignored) for finding in outcome.findings} == {
        ("every-host", Severity.WARNING, True),
        ("once", Severity.WARNING, True),
    }
    as_ever = run_checks(XUANYUAN).findings
    assert run_checks(XUANYUAN, ignore=["low-shm"]).findings == as_ever
    assert not any(finding.ignored for finding in as_ever)


@pytest.mark.parametrize("wrong", [{"select": ["duplicate_ncl"]}, {"ignore": ["Duplicate-NCCL"]}])
def test_an_unknown_name_is_refused_with_the_nearest(wrong: dict[str, list[str]]) -> None:
    with pytest.raises(UnknownCheckError, match=r"did you mean duplicate-nccl\?"):
        run_checks(XUANYUAN, **wrong)


def test_a_name_near_to_none() -> None:
    with pytest.raises(UnknownCheckError, match="explain --all"):
        find("zzz")


def test_select_runs_no_other() -> None:
    assert run_checks(XUANYUAN, select=["low-shm", "duplicate-nccl"]).passed == ("duplicate-nccl", "low-shm")


def test_what_was_asked_for_by_name_and_had_nothing_to_look_at_is_told() -> None:
    outcome = run_checks(XUANYUAN, select=["low-shm", "missing-input", "peer-unreachable"])
    assert outcome.passed == ("low-shm",)
    assert [(each.name, each.reason) for each in outcome.skipped] == [
        ("missing-input", "it was not asked for: add --job JOB"),
        ("peer-unreachable", "it was not asked for: add --network"),
    ]
    silent = run_checks(XUANYUAN, resolved(CaseJob()), select=["long-training"])
    assert [each.reason for each in silent.skipped] == ["nothing that it could judge is here"]
    assert not {each.name for each in run_checks(XUANYUAN).skipped} & {"missing-input", "peer-unreachable"}


def test_nobody_examined_is_not_passed() -> None:
    cluster = Cluster(tuple(type(member)(member.entry, member.reach) for member in XUANYUAN))
    outcome = run_these([clean], cluster)
    assert outcome.skipped == (Skipped("clean", ("gpu-a", "gpu-b"), "no host was examined"),)
    assert not outcome.passed


@check(since="0.1")
def about_a_model(host: HostFacts) -> Said:
    if host.name == "gpu-b":
        yield about_a_model.finding("seen, and no more")
    raise NothingToJudge("no model")


@check(since="0.1")
def about_nothing(host: HostFacts) -> Said:
    if host.name:
        raise NothingToJudge("no model")
    yield about_nothing.finding("never")


@check(since="0.1")
def about_nothing_at_once(cluster: Cluster, context: JobContext | None) -> Said:
    if len(cluster):
        raise NothingToJudge("no model")
    yield about_nothing_at_once.finding("never")


def test_a_check_with_nothing_to_judge_is_in_no_list() -> None:
    outcome = run_these([about_nothing, about_nothing_at_once, clean], XUANYUAN)
    assert (outcome.passed, outcome.skipped, outcome.findings, outcome.crashed) == (("clean",), (), (), ())
    said = run_these([about_a_model], XUANYUAN)
    assert [(finding.message, finding.hosts) for finding in said.findings] == [("seen, and no more", ("gpu-b",))]
    assert said.passed == ()


@check(since="0.1")
def silent_cluster(cluster: Cluster) -> Said:
    yield from ()


@check(since="0.1")
def silent_both(cluster: Cluster, context: JobContext | None) -> Said:
    yield from ()


@check(since="0.1")
def silent_either(cluster: Cluster | None, context: JobContext | None) -> Said:
    yield from ()


@check(since="0.1")
def silent_job(context: JobContext) -> Said:
    yield from ()


def test_a_check_of_hosts_has_not_passed_where_none_was_examined() -> None:
    dead = Cluster(tuple(type(member)(member.entry, member.reach) for member in XUANYUAN))
    checks = [silent_cluster, silent_both, silent_either, silent_job, once]
    without = run_these(checks, dead)
    assert [skipped.name for skipped in without.skipped] == ["silent-cluster", "silent-both", "silent-either"]
    assert {(skipped.hosts, skipped.reason) for skipped in without.skipped} == {
        (("gpu-a", "gpu-b"), "no host was examined")
    }
    assert without.passed == ()
    assert [finding.name for finding in without.findings] == ["once", "once"]  # who says something is not skipped
    of_job_too = run_these(checks, dead, resolved(CaseJob()))
    assert [skipped.name for skipped in of_job_too.skipped] == ["silent-cluster", "silent-both"]
    assert of_job_too.passed == ("silent-either", "silent-job")  # these looked at the job
    assert run_these(checks[:3], XUANYUAN).passed == ("silent-cluster", "silent-both", "silent-either")


def test_a_cluster_of_no_hosts_is_none() -> None:
    assert run_checks(Cluster(())) == run_checks(None)


def test_one_context_may_be_given_instead_of_a_job() -> None:
    context = JobContext(resolved(CaseJob(name="mine")), XUANYUAN, planned=True)
    assert run_these([of_job], XUANYUAN, context).findings[0].message == "job mine, 2 hosts"


def test_a_parameter_that_nobody_offers_is_a_mistake_in_the_check() -> None:
    @check(since="0.1")
    def strange(host: HostFacts, number: int) -> Said:
        yield from ()

    with pytest.raises(TypeError, match="the check strange asks for"):
        run_these([strange], XUANYUAN)


def test_every_check_of_the_package_is_declared_as_it_should_be() -> None:
    for name, declared in discover().items():
        assert declared.wants, name
        assert declared.since
        assert declared.function.__module__.rpartition(".")[2] == name.replace("-", "_")
