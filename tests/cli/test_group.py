"""The command group: commands found by their files, imported when called; errors told with the right exit code."""

import array
import fcntl
import os
import signal
import subprocess
import sys
import termios
import textwrap
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from dsdoctor.cli._failures import guarded
from dsdoctor.cli._group import CommandFiles, dsdoctor
from dsdoctor.yamlfile import FileError
from tests.cli.conftest import ROOT


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandFiles:
    """A group over a folder with commands of all sorts."""
    package = tmp_path / "trial_commands"
    package.mkdir()
    files = {
        "zebra": '''
            import click
            @click.command()
            @click.option("--stripes", default=3)
            def zebra(stripes: int) -> int:
                """Count the stripes.

                More words.
                """
                click.echo(f"{stripes} stripes")
                return stripes
        ''',
        "check": '''
            import click
            @click.command("check")
            def anything() -> None:
                """Check it"""
        ''',
        "several": """
            import click
            def not_one(): "Not a command."
            @click.command(name="status")
            def status(): "Say how it stands."
            @click.command()
            def show_it(): "Show it."
        """,
        "broken": "raise RuntimeError('imported')",
        "_inner": """
            import click
            @click.command()
            def inner(): "Not to be seen."
        """,
    }
    for name, text in files.items():
        (package / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield CommandFiles(folder=package, package="trial_commands", name="trial")
    for name in [name for name in sys.modules if name.startswith("trial_commands")]:
        del sys.modules[name]


def test_help_reads_the_files_and_imports_nothing(group: CommandFiles) -> None:
    result = CliRunner().invoke(group, ["--help"])
    assert result.exit_code == 0
    listed = [line.split(maxsplit=1) for line in result.output.split("Commands:\n")[1].splitlines()]
    assert listed == [
        ["check", "Check it"],  # the commands of the order first, then the others by the alphabet
        ["status", "Say how it stands"],
        ["show-it", "Show it"],
        ["zebra", "Count the stripes"],
    ]
    assert not [name for name in sys.modules if name.startswith("trial_commands.")]


def test_a_command_is_called_and_its_value_is_the_exit_code(group: CommandFiles) -> None:
    result = CliRunner().invoke(group, ["zebra", "--stripes", "7"])
    assert (result.exit_code, result.output) == (7, "7 stripes\n")
    assert CliRunner().invoke(group, ["check"]).exit_code == 0
    assert CliRunner().invoke(group, ["status"]).exit_code == 0
    assert CliRunner().invoke(group, ["show-it"]).exit_code == 0
    assert "trial_commands.broken" not in sys.modules


def test_no_arguments_is_help(group: CommandFiles) -> None:
    assert CliRunner().invoke(group, []).output == CliRunner().invoke(group, ["--help"]).output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["zebar"], "There is no command 'zebar'; did you mean zebra?"),
        (["qqq"], "The commands are: check, status, show-it, zebra."),
        (["inner"], "There is no command 'inner'"),
        (["_inner"], "There is no command '_inner'"),
        (["not-one"], "There is no command 'not-one'"),
        (["zebra", "--strips", "1"], "No such option"),
        (["zebra", "--stripes", "x"], "'x' is not a valid integer"),
        (["zebra", "\x1b[31m"], r"\x1b[31m"),
    ],
)
def test_usage_errors(group: CommandFiles, arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(group, arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert "\x1b" not in result.stderr
    assert result.stdout == ""


def test_every_command_of_ours_has_a_name_and_a_sentence() -> None:
    from dsdoctor.cli._group import _commands_in

    files = sorted((ROOT / "dsdoctor" / "cli").glob("[!_]*.py"))
    found = [(path.stem, name, summary) for path in files for name, summary in _commands_in(path)]
    assert {stem for stem, _, _ in found} == {path.stem for path in files}
    assert all(summary and len(summary) < 100 for _, _, summary in found)
    names = [name for _, name, _ in found]
    assert {"check", "diagnose", "explain", "facts", "jobs", "launch", "plan"} <= set(names)
    assert sorted(names) == sorted(set(names))
    context = dsdoctor.make_context("dsdoctor", ["x"], resilient_parsing=True)
    for name in names:
        assert dsdoctor.get_command(context, name).name == name


def test_version() -> None:
    from dsdoctor import __version__

    result = CliRunner().invoke(dsdoctor, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith(f"dsdoctor {__version__} (Python 3.")


def outcome(error: BaseException | None, capsys: pytest.CaptureFixture[str], code: int = 0) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command that ends so."""

    def command() -> int:
        if error is not None:
            raise error
        return code

    with pytest.raises(SystemExit) as ended:
        guarded(command)
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("DSDOCTOR_DEBUG", raising=False)
    return tmp_path / "state"


class ForeseenError(Exception):
    exit_code = 3


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (FileError("hosts", "no such file", 3), 2, "dsdoctor: hosts:3: no such file\n"),
        (FileError("\x1b[1mhosts", "a\nb"), 2, "dsdoctor: \\x1b[1mhosts: a\\nb\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
        (BrokenPipeError(), 141, ""),
        (ForeseenError("the host went away"), 3, "dsdoctor: the host went away\n"),
    ],
)
def test_exit_codes(error: BaseException | None, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(error, capsys) == (code, "", said)


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_code_of_a_command_is_kept(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(None, capsys, code) == (code, "", "")


def test_a_bug_is_kept_in_a_private_file(state: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["dsdoctor", "launch", "order_1", "--env=TOKEN=hunter2", "--env", "A=hunter2"])
    monkeypatch.setenv("SECRET_NAME", "hunter2")
    code, out, err = outcome(ZeroDivisionError("a bug\x1b"), capsys)
    assert (code, out) == (4, "")
    (kept,) = (state / "dsdoctor" / "bugs").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert str(kept) in err
    assert "ZeroDivisionError: a bug\\x1b" in err
    assert "Traceback" not in err
    text = kept.read_text()
    assert "Traceback" in text
    assert "command: launch --env" in text
    assert "hunter2" not in text


def test_debug_shows_the_traceback(state: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSDOCTOR_DEBUG", "1")
    code, _, err = outcome(ZeroDivisionError("a bug\x1b"), capsys)
    assert code == 4
    assert err.startswith("Traceback")
    assert "\x1b" not in err
    assert not state.exists()


def test_a_traceback_that_cannot_be_kept_is_shown(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nothing")
    code, _, err = outcome(ZeroDivisionError("a bug"), capsys)
    assert code == 4
    assert "Traceback" in err
    assert "could not be saved" in err


def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dsdoctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **settings)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys, atexit\n"
        "atexit.register(lambda: sys.stderr.write(' '.join(sys.modules)))\n"
        "sys.argv = ['dsdoctor', '--help']\n"
        "from dsdoctor.cli import main\n"
        "main()\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    heavy = {"yaml", "msgspec", "rich", "paramiko", "torch", "deepspeed", "dsdoctor.checks", "dsdoctor.report"}
    assert not heavy & set(result.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--all"]])
def test_a_reader_that_goes_away_is_no_error(arguments: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dsdoctor", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 141


def test_a_locale_without_the_letters_gets_codes_instead() -> None:
    result = run("explain", "no\u00e9-such", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert result.returncode == 2
    assert "no\\xe9-such" in result.stderr


def test_the_console_script_and_the_module_are_the_same() -> None:
    script = Path(sys.executable).with_name("dsdoctor")
    if not script.exists():
        pytest.skip("dsdoctor is not installed in this environment")
    by_script = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert by_script.stdout == run("--version").stdout


def waiting_in(pipe: int) -> int:
    """The bytes in a pipe that nobody has read yet."""
    size = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return size[0]


def test_ctrl_c_is_one_quiet_line_and_130() -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "dsdoctor", "diagnose"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        process.stdin.write("step 1\n")
        process.stdin.flush()
        until = time.monotonic() + 60
        while waiting_in(process.stdin.fileno()) and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "\ninterrupted\n")
