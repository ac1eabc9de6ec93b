"""`--env`: variables set, taken from here and taken away; .deepspeed_env as it lies on the machine that launches."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from dsdoctor.cli._group import dsdoctor
from dsdoctor.cli._launching import _setting
from dsdoctor.run.deepspeed_files import read_deepspeed_env

JOB = """
name: demo
script: train.py
env: {GONE: null}
stages: [{name: only}]
"""


@pytest.mark.parametrize(
    ("word", "name", "value", "host"),
    [
        ("A=1", "A", "1", None),
        ("A=", "A", "", None),
        ("A=x=y-", "A", "x=y-", None),
        ("gpu-a:A=1", "A", "1", "gpu-a"),
        ("fe80::1:A=1", "A", "1", "fe80::1"),
        ("A-", "A", None, None),
        ("gpu-a:A-", "A", None, "gpu-a"),
        ("FROM_HERE", "FROM_HERE", "it is\n", None),
    ],
)
def test_words_of_env(
    word: str, name: str, value: str | None, host: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_HERE", "it is\n")
    setting = _setting(word)
    assert (setting.name, setting.value, setting.host, setting.layer) == (name, value, host, "command line")


@pytest.mark.parametrize("word", ["", "=1", "a:", "-", "a:-", "NOT_SET_HERE"])
def test_words_that_are_none(word: str) -> None:
    with pytest.raises(click.UsageError):
        _setting(word)


def test_a_secret_that_is_typed_is_said_and_the_value_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    _setting("HF_TOKEN=hunter2hunter2")
    told = capsys.readouterr().err
    assert "everybody on this machine can read a value on the command line" in told
    assert "write --env HF_TOKEN" in told
    assert "hunter2" not in told
    _setting("HF_HOME=/data/hf")
    assert capsys.readouterr().err == ""


def test_a_plan_for_this_machine_shows_what_the_session_has_and_what_is_taken_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("demo.yaml").write_text(JOB, encoding="utf-8")
    for name, value in {"MASTER_ADDR": "192.0.2.9", "GONE": "x", "HF_TOKEN": "hunter2", "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    words = ["plan", "demo.yaml", "--no-check", "--env", "OMP_NUM_THREADS-", "--env", "KMP_BLOCKTIME=0"]
    result = CliRunner().invoke(dsdoctor, words)
    assert result.exit_code == 0, result.output
    assert "# warning: localhost: MASTER_ADDR=192.0.2.9 in the session is not used: it is left over" in result.stdout
    assert "GONE is unset [job]: env of demo.yaml" in result.stdout
    assert "OMP_NUM_THREADS is unset [command line]" in result.stdout
    assert "HF_TOKEN=(secret: of the session there) [inherited]" in result.stdout
    assert "hunter2" not in result.output
    assert " -u GONE -u MASTER_ADDR -u OMP_NUM_THREADS " in result.stdout


def test_deepspeed_s_files_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("DS_ENV_FILE", raising=False)
    assert read_deepspeed_env() == ()
    (home / ".deepspeed_env").write_text("A = 1 \n\nB=x=y\n", encoding="utf-8")
    Path(".deepspeed_env").write_bytes(b"A=\xff\r\n")
    first, second = read_deepspeed_env()
    assert (first.lines, first.bad_lines) == ((("A", "1"), ("B", "x=y")), (2,))
    assert (second.path, second.lines) == (".deepspeed_env", (("A", "\udcff"),))
    Path(".deepspeed_env").unlink()
    Path(".deepspeed_env").symlink_to(home / ".deepspeed_env")
    assert [file.path for file in read_deepspeed_env()] == [".deepspeed_env"], "one file by two names is read once"
    monkeypatch.setenv("DS_ENV_FILE", "other")
    assert read_deepspeed_env() == ()
    (home / "other").mkdir()
    assert read_deepspeed_env() == (), "a folder is no file"
