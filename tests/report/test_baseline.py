"""Findings that a project lives with."""

from __future__ import annotations

from dsdoctor.report.baseline import accept, baseline_of, unseen
from dsdoctor.report.model import Evidence, Finding, HostState, Report, Severity


def report(*findings: Finding) -> Report:
    return Report(command="check", seconds=0.0, findings=findings)


def low_disk(free: str, *hosts: str) -> Finding:
    evidence = tuple(Evidence(f"/data: {free} GB free", host) for host in hosts)
    return Finding("low-disk", Severity.ERROR, f"/data has {free} GB free, 50 are wanted", hosts, evidence=evidence)


def test_numbers_do_not_make_a_finding_new() -> None:
    kept = baseline_of(report(low_disk("12.5", "a")), "0.1")
    assert accept(report(low_disk("3", "a")), kept).exit_code() == 0
    assert accept(report(low_disk("12.5", "b")), kept).exit_code() == 1


def test_a_new_host_is_split_from_the_known_ones() -> None:
    kept = baseline_of(report(low_disk("1", "a", "c")), "0.1")
    new, old = accept(report(low_disk("1", "a", "b", "c")), kept).findings
    assert (new.hosts, new.ignored, [each.source for each in new.evidence]) == (("b",), False, ["b"])
    assert (old.hosts, old.ignored, [each.source for each in old.evidence]) == (("a", "c"), True, ["a", "c"])


def test_words_make_a_finding_new() -> None:
    def unknown(name: str) -> Finding:
        return Finding("unknown-env-var", Severity.WARNING, f"nobody reads {name}", ("a",))

    kept = baseline_of(report(unknown("NCCL_IB_DISABL")), "0.1")
    assert [each.ignored for each in accept(report(unknown("NCCL_IB_DISABL")), kept).findings] == [True]
    assert [each.ignored for each in accept(report(unknown("NCCL_P2P_DISABL")), kept).findings] == [False]


def test_a_finding_about_no_host_and_an_ignored_one() -> None:
    job = Finding("precision-disagrees", Severity.ERROR, "fp16 and bf16 are both on")
    ignored = Finding("low-shm", Severity.WARNING, "64 MB", ("a",), ignored=True)
    kept = baseline_of(report(job, ignored), "0.1")
    assert [each.name for each in kept.findings] == ["precision-disagrees"]
    assert [each.ignored for each in accept(report(job, ignored), kept).findings] == [True, True]


def test_what_is_not_there_any_more_is_told() -> None:
    shm = Finding("low-shm", Severity.WARNING, "64 MB", ("a",))
    kept = baseline_of(report(low_disk("1", "a"), shm), "0.1")
    hosts = (HostState("a", True), HostState("b", True))

    def now(*findings: Finding, passed: tuple[str, ...] = (), hosts: tuple[HostState, ...] = hosts) -> Report:
        return Report(command="check", seconds=0.0, findings=findings, passed=passed, hosts=hosts)

    assert unseen(now(low_disk("2", "a"), shm), kept) is None
    told = "1 of the 2 findings in it are not there any more (low-shm)"
    assert unseen(now(low_disk("2", "a"), passed=("low-shm",)), kept) == told
    assert unseen(now(low_disk("2", "a")), kept) is None, "the check was not run"
    away = (HostState("a", False), HostState("b", True))
    assert unseen(now(passed=("low-shm", "low-disk"), hosts=away), kept) is None, "the host was not examined"
    strange = unseen(now(passed=("low-shm", "low-disk"), hosts=(HostState("n1", True),)), kept)
    assert strange == "it was written for other hosts (a) and lets nothing pass here"
    assert unseen(now(), baseline_of(report(), "0.1")) is None
