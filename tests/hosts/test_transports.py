"""What every transport does alike: arguments, streams, exit codes, limits, and closing."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsdoctor.hosts.transport import TransportError, child
from tests.hosts.sshd import alive, until

NASTY = [
    "",
    "a b",
    "it's",
    "$HOME `id` $(id)",
    "x!y!!",
    "back\\slash\\\\",
    "two\nlines\n",
    "\t\r\x01\x7f",
    "*?[]~{a,b}",
    "é世界🙂",
    "-n",
    "--",
    "'\\''\"",
    "#c",
    "%s\\n",
    "(x);&|<>",
    "\udcff\udcfe",
    "A=1",
]
ARGUMENTS = st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), max_size=12)


def echoed(transport, arguments):
    """The arguments as a program at the other end gets them."""
    done = transport.run(["printf", r"%s\0", *arguments, "end"])
    assert done.returncode == 0
    return [os.fsdecode(part) for part in done.stdout.split(b"\0")][:-2]


def test_arguments_arrive_as_they_are(transport):
    assert echoed(transport, NASTY) == NASTY


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=ARGUMENTS)
def test_any_arguments_arrive_as_they_are(transport, arguments):
    assert echoed(transport, arguments) == arguments


def test_a_zero_byte_is_refused(transport):
    with pytest.raises(ValueError, match=r"null byte|not a command line"):
        transport.run(["echo", "a\0b"])


def test_a_word_of_the_shell_is_no_program(transport):
    assert transport.run(["exit", "3"]).returncode == 127


@pytest.mark.parametrize("code", [0, 1, 3, 126, 128, 254, 255])
def test_exit_codes(transport, code):
    done = transport.run(["sh", "-c", f"echo out; echo err >&2; exit {code}"])
    assert (done.returncode, done.stdout, done.stderr, done.truncated) == (code, b"out\n", b"err\n", False)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_death_by_a_signal_is_a_negative_code(transport, number):
    assert transport.run(["sh", "-c", f"kill -{int(number)} $$"]).returncode == -number


def test_a_missing_program_is_127_with_its_name(transport):
    done = transport.run(["/nowhere/python9", "-u"])
    assert done.returncode == 127
    assert b"/nowhere/python9" in done.stderr


def test_five_megabytes_on_standard_error_do_not_block(transport):
    script = "import sys; sys.stderr.buffer.write(b'e' * 5_000_000); sys.stdout.buffer.write(b'o' * 5_000_000)"
    done = transport.run([sys.executable, "-c", script], timeout=30)
    assert (done.returncode, len(done.stdout), len(done.stderr)) == (0, 5_000_000, 5_000_000)


def test_standard_input_arrives_whole(transport):
    data = os.urandom(3_000_000)
    assert transport.run(["cat"], stdin=data).stdout == data
    assert transport.run(["cat"]).stdout == b""
    assert transport.run(["true"], stdin=data).returncode == 0  # nobody reads it


def test_output_beyond_the_limit_is_dropped(transport, monkeypatch):
    monkeypatch.setattr(child, "OUTPUT_LIMIT", 1000)
    done = transport.run(["sh", "-c", "head -c 2000000 /dev/zero; echo err >&2"])
    assert (len(done.stdout), done.stderr, done.truncated, done.returncode) == (1000, b"err\n", True, 0)


@pytest.mark.slow
def test_a_command_over_its_time_is_stopped_at_the_other_end_too(transport, kind):
    seconds = f"9{os.getpid()}.{['local', 'openssh', 'paramiko', 'swift'].index(kind)}"
    begun = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        transport.run(["sh", "-c", f"echo begun; echo why >&2; sleep {seconds}; true"], timeout=5)
    assert time.monotonic() - begun < 60
    assert (caught.value.output, caught.value.stderr) == (b"begun\n", b"why\n")
    assert until(lambda: not alive(f"sleep {seconds}"), 60)
    assert transport.run(["echo", "on"]).stdout == b"on\n"


def test_a_conversation(transport):
    process = transport.start([sys.executable, "-u", "-c", "for line in iter(input, 'end'): print(line.upper())"])
    for word in (b"one\n", b"two\n"):
        process.stdin.write(word)
        process.stdin.flush()
        assert process.stdout.readline() == word.upper()
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    process.stdin.write(b"end\n")
    process.stdin.close()
    assert process.wait(10) == 0
    assert process.poll() == 0
    assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
    process.close()


def test_exit_codes_of_what_was_started(transport):
    for script, code in (("exit 3", 3), ("kill -9 $$", -9)):
        process = transport.start(["sh", "-c", script])
        assert process.wait(10) == code
        process.close()


def test_a_dropped_command_sees_its_input_end(transport, tmp_path):
    seen = tmp_path / "seen"
    process = transport.start(["sh", "-c", f"echo ready; cat; echo over > {seen}"])
    assert process.stdout.readline() == b"ready\n"
    process.close()
    assert until(seen.exists, 10)


@pytest.mark.slow
def test_thirty_commands_at_once(transport):
    with ThreadPoolExecutor(30) as pool:
        done = list(pool.map(lambda number: transport.run(["sh", "-c", f"sleep 0.1; echo {number}"]), range(30)))
    assert [each.stdout for each in done] == [b"%d\n" % number for number in range(30)]


def test_closing_ends_what_runs(transport):
    failed = []

    def run():
        try:
            transport.run(["sleep", "77"], timeout=60)
        except TransportError as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    transport.run(["true"])
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    begun = time.monotonic()
    transport.close()
    for thread in threads:
        thread.join(60)
    assert time.monotonic() - begun < 45
    assert [error.problem for error in failed] == ["closed"] * 3
    with pytest.raises(TransportError, match="the transport was closed"):
        transport.run(["true"])
    transport.close()  # twice is nothing


def test_what_a_command_leaves_behind_does_not_hold_up_its_answer():
    from dsdoctor.hosts.hostfile import local_entry
    from dsdoctor.hosts.transport.local import LocalTransport

    begun = time.monotonic()
    done = LocalTransport(local_entry(1)).run(["sh", "-c", "sleep 30 & echo here"], timeout=60)
    assert done.stdout == b"here\n"
    assert time.monotonic() - begun < 25
