"""The line that ssh carries means the same in every login shell."""

import os
import shlex
import shutil
import subprocess

import pytest

from dsdoctor.hosts.transport.quoting import OWN_255, exit_code, prefaced, remote_command
from tests.hosts.test_transports import NASTY

SHELLS = ["sh", "dash", "bash", "zsh", "tcsh", "fish"]


@pytest.fixture(params=SHELLS)
def shell(request):
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} (Debian: apt-get install {request.param})")
    return request.param


def run(shell, line):
    return subprocess.run([shell, "-c", line], capture_output=True, stdin=subprocess.DEVNULL, timeout=30)


@pytest.mark.parametrize("limit", [None, 5])
def test_arguments_in_every_login_shell(shell, limit):
    for arguments in (NASTY, *([argument] for argument in NASTY)):
        done = run(shell, remote_command(["printf", r"%s\0", *arguments], limit))
        assert done.stdout == b"".join(os.fsencode(argument) + b"\0" for argument in arguments)


def test_exit_codes_in_every_login_shell(shell):
    assert run(shell, remote_command(["sh", "-c", "kill -9 $$"])).returncode == 137
    assert run(shell, remote_command(["sh", "-c", "exit 3"], 5)).returncode == 3
    done = run(shell, remote_command(["sh", "-c", "exit 255"]))
    assert (done.returncode, done.stderr) == (255, OWN_255)


def test_a_command_ends_by_itself_when_nobody_stops_it():
    done = run("sh", remote_command(["sleep", "60"], 0))
    assert done.returncode == 124


def test_a_host_without_timeout_runs_the_command_all_the_same(tmp_path):
    (tmp_path / "sh").symlink_to(shutil.which("sh"))
    (tmp_path / "echo").symlink_to(shutil.which("echo"))
    line = remote_command(["echo", "hi"], 5)
    done = subprocess.run([tmp_path / "sh", "-c", line], capture_output=True, env={"PATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (0, b"hi\n")


def test_plain_commands_stay_readable():
    assert remote_command(["echo", "a b"]).endswith(" sh echo 'a b'")


def test_no_command_is_no_line():
    with pytest.raises(ValueError, match="not a command line"):
        remote_command([])


@pytest.mark.parametrize(
    ("status", "code"), [(0, 0), (128, 128), (129, -1), (137, -9), (192, -64), (193, 193), (255, 255)]
)
def test_what_a_shell_says_of_signals(status, code):
    assert exit_code(status) == code


@pytest.mark.parametrize("limit", [None, 5])
def test_a_preface_is_said_before_the_command_in_every_login_shell(shell, limit):
    for preface in ('NOTE=a; export NOTE; echo "first"; ', "NOTE='a'; export NOTE; printf 'first\\n'; "):
        argv = prefaced(preface, ["sh", "-c", 'echo "$NOTE $1"; exit 3', "sh", "a b"])
        for line in (remote_command(argv, limit), shlex.join(argv) if shell in ("sh", "dash", "bash") else ""):
            if line:
                done = run(shell, line)
                assert (done.returncode, done.stdout) == (3, b"first\na a b\n")


def test_a_preface_costs_no_shell_of_its_own():
    line = remote_command(prefaced("NOTE=a; ", ["echo", "b"]), 5)
    assert line.count("sh") == 2  # the word and the name of the one that waits
    assert line.endswith(" sh echo b")


@pytest.mark.parametrize("argv", [["sh", "-c", "exit 3"], ["sh", "-c", 'exit 3; exec "$@"', "sh"]])
def test_a_shell_command_is_no_preface(argv):
    assert run("sh", remote_command(argv, 5)).returncode == 3


def test_a_program_that_is_not_there_is_told_by_the_shell():
    done = run("sh", remote_command(["no-such-program"], 5))
    assert done.returncode == 127
    assert b"not found" in done.stderr and b"timeout" not in done.stderr
