"""`dsdoctor check` from its options to its exit code."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path
from xml.etree import ElementTree

import pytest

from dsdoctor.checks.engine import Outcome
from dsdoctor.report.model import Finding, Fix, Severity
from tests.cli.conftest import run


def names(output: str) -> dict[str, str]:
    return {finding["name"]: finding["severity"] for finding in json.loads(output)["findings"]}


def test_healthy_hosts(healthy: Path) -> None:
    result = run("check", "--facts", healthy)
    assert result.exit_code == 0
    assert result.stdout.startswith("✓ Nothing wrong found on 2 hosts.\n")
    assert result.stderr == ""


def test_what_is_wrong_is_found_on_the_host_that_has_it(ill: Path) -> None:
    result = run("check", "--facts", ill, "--format", "json")
    assert result.exit_code == 1
    assert names(result.stdout) == {"duplicate-nccl": "error", "low-open-files": "warning"}
    assert {tuple(finding["hosts"]) for finding in json.loads(result.stdout)["findings"]} == {("n2",)}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--fail-on", "error"], 1),
        (["--ignore", "duplicate-nccl"], 0),
        (["--ignore", "duplicate-nccl", "--fail-on", "warning"], 1),
        (["--ignore", "duplicate-nccl", "--ignore", "low-open-files", "--fail-on", "warning"], 0),
        (["--select", "low-open-files"], 0),
        (["--select", "low-open-files", "--fail-on", "warning"], 1),
        (["--select", "low-shm", "--fail-on", "info"], 0),
        (["--select", "low-shm, low-open-files,", "--fail-on", "warning"], 1),
        (["--select", "low-shm", "--select", "low-memory,low-open-files", "--fail-on", "warning"], 1),
        (["--ignore", "low-open-files,duplicate-nccl", "--fail-on", "warning"], 0),
        (["--select", "peer-unreachable,low-shm"], 0),
        (["--select", "peer-unreachable"], 3),
        (["--include", "n1"], 0),
        (["--exclude", "n2"], 0),
        (["--include", "n2"], 1),
        (["--include", "n3"], 2),
        (["--include", "n1", "--exclude", "n2"], 2),
        (["--select", "low-shmm"], 2),
        (["--select", ""], 2),
        (["--select", " , "], 2),
        (["--ignore", "no-such-check"], 2),
        (["--format", "pdf"], 2),
        (["--fail-on", "never"], 2),
        (["--redact"], 2),
        (["--fix"], 2),
        (["--fix", "--yes"], 2),
        (["--deep"], 2),
        (["--yes"], 2),
        (["--python", "/usr/bin/python3"], 2),
        (["--job", "no-such-job"], 2),
        (["--hostfile", "no-such-hostfile"], 2),
        (["surplus"], 2),
    ],
)
def test_exit_codes(ill: Path, arguments: list[str], code: int) -> None:
    result = run("check", "--facts", ill, *arguments)
    assert result.exit_code == code, result.output
    assert (result.stdout == "") == (code == 2)
    assert (result.stderr == "") == (code != 2)


def test_a_bare_hostfile_option_takes_the_default(healthy: Path, tmp_path: Path) -> None:
    """Another option after it is not taken for the file's name."""
    result = run("check", "--hostfile", "--facts", healthy)
    assert result.exit_code == 2
    assert "/job/hostfile: no such file" in result.stderr


def test_an_ignored_finding_is_shown_and_counted(ill: Path) -> None:
    result = run("check", "--facts", ill, "--ignore", "duplicate-nccl")
    assert "! warning duplicate-nccl  n2 (ignored, as asked)" in result.stdout
    assert "1 ignored" in result.stdout


def test_a_check_that_was_asked_for_and_not_run_has_not_passed(healthy: Path) -> None:
    result = run("check", "--facts", healthy, "--select", "peer-unreachable")
    assert result.stdout.startswith("? Nothing was judged: the check was skipped.")
    assert "it was not asked for: add --network" in result.stdout
    assert run("check", "--facts", healthy, "--select", "low-shm,peer-unreachable").stdout.startswith("✓ Nothing wrong")


def test_a_misspelt_name_is_put_right(ill: Path) -> None:
    assert "did you mean low-shm?" in run("check", "--facts", ill, "--select", "low_shmm").stderr
    begun = run("check", "--facts", ill, "--select", "nccl-differs").stderr
    assert "did you mean nccl-differs-between-hosts or nccl-differs-from-torch?" in begun


def test_a_host_without_a_snapshot_is_not_examined(healthy: Path, tmp_path: Path) -> None:
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("n1 slots=8\nn9 slots=8\n")
    result = run("check", "--facts", healthy, "--hostfile", hostfile)
    assert result.exit_code == 3
    assert result.stdout.startswith("? Nothing wrong found on the other host; n9 could not be examined.\n")
    lost = json.loads(run("check", "--facts", healthy, "--hostfile", hostfile, "--format", "json").stdout)["hosts"][1]
    assert lost == {"name": "n9", "reachable": False, "error": f"not-recorded: {healthy} holds no snapshot of n9"}


def test_this_machine_is_really_examined() -> None:
    result = run("check", "--format", "json")
    report = json.loads(result.stdout)
    assert report["hosts"] == [{"name": "localhost", "reachable": True, "error": None}]
    assert result.exit_code == (1 if report["counts"]["error"] else 0)
    assert report["counts"]["passed"] > 5
    assert report["counts"]["crashed"] == 0


def test_an_interpreter_that_is_not_there_is_not_examined() -> None:
    result = run("check", "--python", "/no/such/python", "--format", "json")
    assert result.exit_code == 3
    assert names(result.stdout) == {"unreachable-host": "error"}


def test_where_no_host_can_be_examined_no_check_has_passed(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: it refuses
        taken.bind(("127.0.0.1", 0))
        hostfile = tmp_path / "hostfile"
        hostfile.write_text(f"no-such-host.invalid slots=1\n127.0.0.1 slots=1 port={taken.getsockname()[1]}\n")
        result = run("check", "--hostfile", hostfile, "--format", "json")
        text = run("check", "--hostfile", hostfile).stdout
    assert result.exit_code == 3
    report = json.loads(result.stdout)
    reasons = {host["name"]: host["error"].partition(":")[0] for host in report["hosts"]}
    assert reasons == {"no-such-host.invalid": "unresolvable", "127.0.0.1": "refused"}
    assert names(result.stdout) == {"unreachable-host": "error"}
    assert report["passed"] == [] and report["counts"]["passed"] == 0
    assert {skipped["reason"] for skipped in report["skipped"]} == {"no host was examined"}
    assert {"clock-spread", "duplicate-nccl"} <= {skipped["name"] for skipped in report["skipped"]}
    assert text.splitlines()[0] == "? no-such-host.invalid, 127.0.0.1 could not be examined."
    assert " 0 passed, " in text and "checks passed" not in text


def test_facts_are_kept_and_judged_alike(ill: Path, tmp_path: Path) -> None:
    first = run("check", "--facts", ill, "--save-facts", tmp_path / "kept", "--format", "json")
    assert f"the facts of 2 hosts are in {tmp_path / 'kept'}" in first.stderr
    again = run("check", "--facts", tmp_path / "kept", "--format", "json")
    assert names(first.stdout) == names(again.stdout)


def test_redacted_facts_are_judged_alike_and_name_nobody(ill: Path, tmp_path: Path) -> None:
    first = run("check", "--facts", ill, "--save-facts", tmp_path / "kept", "--redact", "--format", "json")
    again = run("check", "--facts", tmp_path / "kept", "--format", "json")
    assert names(first.stdout) == names(again.stdout)
    assert "alice" not in "".join(path.read_text() for path in (tmp_path / "kept").iterdir())


@pytest.mark.parametrize(
    ("form", "begins"),
    [
        ("text", "✗ 1 error, 1 warning on 1 of 2 hosts.\n"),
        ("json", "{\n"),
        ("markdown", "### dsdoctor check: 1 error"),
        ("html", "<!doctype html>\n"),
        ("junit", "<?xml version"),
        ("sarif", "{\n"),
    ],
)
def test_every_format_into_a_file(ill: Path, tmp_path: Path, form: str, begins: str) -> None:
    target = tmp_path / "out"
    result = run("check", "--facts", ill, "--format", form, "--output", target)
    assert (result.exit_code, result.stdout) == (1, "")
    text = target.read_text()
    assert text.startswith(begins)
    assert "duplicate-nccl" in text
    if form == "junit":
        ElementTree.fromstring(text)


def test_junit_failures_follow_fail_on(ill: Path) -> None:
    root = ElementTree.fromstring(run("check", "--facts", ill, "--format", "junit", "--fail-on", "warning").stdout)
    assert root.attrib["failures"] == "2"


def test_output_refuses_a_folder_and_a_missing_one(ill: Path, tmp_path: Path) -> None:
    result = run("check", "--facts", ill, "--output", tmp_path)
    assert result.exit_code == 2
    assert f"{tmp_path}: is a folder" in result.stderr
    result = run("check", "--facts", ill, "--output", tmp_path / "no" / "out")
    assert result.exit_code == 2
    assert f"mkdir -p {tmp_path / 'no'}" in result.stderr


def test_a_job_is_judged_too(healthy: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("name: trial\nscript: train.py\nstages: [{name: one}]\nargs: {learning_rate: 1e-3}\n")
    result = run("check", "--facts", healthy, "--job", job)
    assert result.exit_code == 0
    assert f"Job trial, from {job}" in result.stdout
    passed = json.loads(run("check", "--facts", healthy, "--job", job, "--format", "json").stdout)["passed"]
    assert set(json.loads(run("check", "--facts", healthy, "--format", "json").stdout)["passed"]) < set(passed)


def test_a_broken_job_file_is_told_with_its_line(healthy: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("name: trial\nscript: train.py\nstagse: []\n")
    result = run("check", "--facts", healthy, "--job", job)
    assert result.exit_code == 2
    assert f"{job}" in result.stderr
    assert "did you mean stages?" in result.stderr


class Mendable:
    """Stands in for the checks: a finding with a safe fix until the fix has been run."""

    def __init__(self, marker: Path, commands: tuple[str, ...]) -> None:
        self.marker = marker
        self.commands = commands
        self.looks = 0

    def __call__(self, *_: object, **__: object) -> Outcome:
        self.looks += 1
        if self.marker.exists():
            return Outcome(passed=("low-open-files",))
        fix = Fix("Make the marker", self.commands, safe=True)
        return Outcome((Finding("low-open-files", Severity.ERROR, "no marker", ("localhost",), fix=(fix,)),))


@pytest.fixture
def mendable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mendable:
    marker = tmp_path / "mar ker"
    checks = Mendable(marker, ("echo making", f"touch '{marker}'"))
    monkeypatch.setattr("dsdoctor.checks.engine.run_checks", checks)
    return checks


def test_fix_runs_what_is_safe_and_looks_again(mendable: Mendable) -> None:
    result = run("check", "--fix", "--yes", "--format", "json")
    assert mendable.marker.exists()
    assert mendable.looks == 2
    assert result.exit_code == 0
    assert json.loads(result.stdout)["passed"] == ["low-open-files"]
    assert f"    touch '{mendable.marker}'" in result.stderr
    assert "\n  making\n" in result.stderr


@pytest.mark.parametrize(("answer", "done"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_fix_asks_first(mendable: Mendable, monkeypatch: pytest.MonkeyPatch, answer: str, done: bool) -> None:
    monkeypatch.setattr("dsdoctor.terminal.is_terminal", lambda stream: True)
    result = run("check", "--fix", input=answer)
    assert "Run them now? [y/N]" in result.stderr
    assert mendable.marker.exists() == done
    assert result.exit_code == (0 if done else 1)


def test_no_answer_is_an_interruption(mendable: Mendable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsdoctor.terminal.is_terminal", lambda stream: True)
    assert run("check", "--fix", input="").exit_code == 130
    assert not mendable.marker.exists()


def test_a_fix_that_fails_is_told(mendable: Mendable) -> None:
    mendable.commands = ("exit 7", f"touch '{mendable.marker}'")
    result = run("check", "--fix", "--yes")
    assert result.exit_code == 1
    assert "--fix: exit 7 ended with exit code 7" in result.stderr
    assert not mendable.marker.exists()


def test_fix_does_nothing_where_nothing_is_safe(mendable: Mendable) -> None:
    mendable.commands = ()
    result = run("check", "--fix", "--yes")
    assert result.exit_code == 1
    assert mendable.looks == 1
    assert "none of the findings has a fix that is safe" in result.stderr


def test_an_existing_file_is_replaced_and_keeps_its_permissions(ill: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.write_text("old " * 10000)
    target.chmod(0o640)
    run("check", "--facts", ill, "--output", target)
    assert "old" not in target.read_text()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []
