"""`.dsdoctor.yaml` and baselines: what a project sets for all commands, and what it lives with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dsdoctor.cli import _project
from tests.cli.conftest import run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The top of a repository, with the user in a folder of it."""
    (tmp_path / "project" / ".git").mkdir(parents=True)
    (tmp_path / "project" / "src").mkdir()
    monkeypatch.chdir(tmp_path / "project" / "src")
    return tmp_path / "project"


def counts(output: str) -> dict[str, int]:
    found: dict[str, int] = json.loads(output)["counts"]
    return found


def test_defaults_come_from_the_nearest_file(project: Path, ill: Path) -> None:
    (project / ".dsdoctor.yaml").write_text("ignore: [duplicate-nccl]\nfail-on: warning\n")
    result = run("check", "--facts", ill, "--format", "json")
    assert result.exit_code == 1
    assert (counts(result.stdout)["error"], counts(result.stdout)["ignored"]) == (0, 1)
    assert f"Defaults from {project}/.dsdoctor.yaml" in run("check", "--facts", ill).stdout
    (project / "src" / ".dsdoctor.yaml").write_text("fail-on: error\n")
    assert run("check", "--facts", ill, "--format", "json").exit_code == 1
    assert counts(run("check", "--facts", ill, "--format", "json").stdout)["ignored"] == 0


def test_the_command_line_wins_and_adds_to_what_is_ignored(project: Path, ill: Path) -> None:
    (project / ".dsdoctor.yaml").write_text("ignore: [duplicate-nccl]\nfail-on: warning\n")
    assert run("check", "--facts", ill, "--fail-on", "error").exit_code == 0
    assert run("check", "--facts", ill, "--ignore", "low-open-files").exit_code == 0


def test_paths_are_taken_from_the_files_folder(project: Path, healthy: Path) -> None:
    (project / "hosts").write_text("n1 slots=2\n")
    (project / ".dsdoctor.yaml").write_text("hostfile: hosts\n")
    result = run("check", "--facts", healthy, "--format", "json")
    assert [host["name"] for host in json.loads(result.stdout)["hosts"]] == ["n1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ignroe: [x]\n", "unknown key ignroe; did you mean ignore?"),
        ("timeout: soon\n", ".dsdoctor.yaml:1: timeout: Expected `float"),
        ("- a\n", "Expected `object`"),
        ("ignore: [no-such-check]\n", "no check is called no-such-check"),
        ("a: [\n", ".dsdoctor.yaml"),
    ],
)
def test_a_wrong_file_is_named(project: Path, healthy: Path, text: str, words: str) -> None:
    (project / ".dsdoctor.yaml").write_text(text)
    result = run("check", "--facts", healthy)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_file_above_the_repository_or_of_somebody_else_is_passed_over(
    project: Path, healthy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.parent / ".dsdoctor.yaml").write_text("nonsense: 1\n")
    assert run("check", "--facts", healthy).exit_code == 0
    (project / ".dsdoctor.yaml").write_text("nonsense: 1\n")
    monkeypatch.setattr(_project.os, "geteuid", lambda: 4242)
    monkeypatch.setattr(Path, "stat", lambda path, **_: type("Stat", (), {"st_uid": 77, "st_mode": 0o100644})())
    assert _project.project_file(project) is None


def test_a_baseline_lets_pass_what_it_knows(project: Path, ill: Path, healthy: Path) -> None:
    assert run("check", "--facts", ill, "--save-baseline", "known.json").exit_code == 1
    result = run("check", "--facts", ill, "--baseline", "known.json", "--fail-on", "info", "--format", "json")
    assert result.exit_code == 0
    assert counts(result.stdout)["ignored"] == 2
    empty = run("check", "--facts", healthy, "--save-baseline", "none.json")
    assert empty.exit_code == 0
    assert json.loads(Path("none.json").read_text())["findings"] == []
    assert run("check", "--facts", ill, "--baseline", "none.json").exit_code == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema": "dsdoctor.baseline/2", "findings": []}', "this version reads dsdoctor.baseline/1"),
        ('{"findings": []}', "missing required field `schema`"),
        ('{"schema": "dsdoctor.baseline/1", "findings": [{"name": "x"}]}', "host"),
        ("not a baseline", "Expected `object`"),
        ("not a baseline", "wanted is a file that `dsdoctor check --save-baseline FILE` has written"),
    ],
)
def test_a_baseline_that_cannot_be_read(project: Path, healthy: Path, text: str, words: str) -> None:
    Path("known.json").write_text(text)
    result = run("check", "--facts", healthy, "--baseline", "known.json")
    assert result.exit_code == 2
    assert "known.json" in result.stderr
    assert words in result.stderr
    assert run("check", "--facts", healthy, "--baseline", "missing.json").exit_code == 2


def test_keeping_and_applying_a_baseline_at_once_is_refused(project: Path, healthy: Path) -> None:
    assert run("check", "--facts", healthy, "--baseline", "a", "--save-baseline", "b").exit_code == 2


def test_a_baseline_of_other_hosts_is_told(project: Path, ill: Path) -> None:
    known = {"name": "low-shm", "host": "elsewhere", "message": "x"}
    Path("known.json").write_text(json.dumps({"schema": "dsdoctor.baseline/1", "findings": [known]}))
    result = run("check", "--facts", ill, "--baseline", "known.json")
    assert result.exit_code == 1
    assert "known.json: it was written for other hosts (elsewhere) and lets nothing pass here" in result.stdout
