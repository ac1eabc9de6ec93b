"""What happens in a sandbox stays there and ends with it, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.footprint import start_time
from tests.cluster.prerequisites import skip_or_fail
from tests.provoked import sandbox
from tests.provoked.ahead import Ahead
from tests.provoked.failure import Failure
from tests.provoked.memory_group import PREFIX, controller, memory_group, missing_for_memory_group
from tests.provoked.sandbox import NotProvokedError, Provocation
from tests.provoked.stage import happen, missing_for, missing_for_sandbox

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
LEAVE = """
sleep {0} &
setsid sleep {0} &
mount -t tmpfs tmpfs /mnt
ip link add left type veth peer name behind
echo left >/dev/shm/dsdoctor-left-{0}
"""


@pytest.fixture(autouse=True)
def possible() -> None:
    skip_or_fail(missing_for_sandbox())


def failure(run: str, **more: object) -> Failure:
    given = {"what": "trial", "cause": "none", "line": "", "run": run, "name": "trial", **more}
    return Failure(**given)  # type: ignore[arg-type]


def running(mark: str) -> list[str]:
    """Processes of this machine, in whatever namespace, that have a text in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if mark in words and "pytest" not in words:
            found.append(words)
    return found


def gone(mark: str) -> bool:
    deadline = time.monotonic() + 10
    while running(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def state(mark: str) -> tuple[str, str, bool]:
    """The machine's mounts, its NICs, and whether a file was left in its /dev/shm."""
    nics = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()
    names = " ".join(sorted(line.split(":")[0] for line in nics[2:]))
    return Path("/proc/self/mounts").read_text("utf-8"), names, Path(f"/dev/shm/dsdoctor-left-{mark}").exists()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_both_streams_and_the_exit_code_are_kept() -> None:
    outcome = happen(failure("echo out; echo err >&2; exit 7"))
    assert (outcome.log, outcome.code) == (b"out\nerr\n", 7)
    assert not outcome.folder.exists()


def test_nothing_of_a_failure_is_left() -> None:
    mark = f"7{os.getpid()}1"
    before = state(mark)
    assert happen(failure(LEAVE.format(mark))).code == 0
    assert gone(f"sleep {mark}")
    assert state(mark) == before


def test_no_signal_is_ignored_though_the_tests_ignore_it() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        outcome = happen(failure("kill -HUP $$; echo ignored"))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert outcome.code == 128 + signal.SIGHUP
    assert b"ignored" not in outcome.log


def test_a_folder_without_permission_to_write_is_removed() -> None:
    outcome = happen(failure("mkdir -p shut/below; ln -s /usr link; chmod 500 shut/below shut"))
    assert outcome.code == 0
    assert not outcome.folder.exists()
    assert Path("/usr").stat().st_mode & 0o777 == 0o755


def test_what_takes_too_long_is_ended_and_says_what_it_printed() -> None:
    mark = f"7{os.getpid()}2"
    with pytest.raises(NotProvokedError, match=r"(?s)trial: not at its end after [3-9] s:.so far"):
        happen(failure(f"{LEAVE.format(mark)}\necho so far\nsleep {mark}", limit=3.0))
    assert gone(f"sleep {mark}")


def test_what_is_given_up_ends_at_once_and_what_waits_does_not_begin() -> None:
    mark = f"7{os.getpid()}3"
    first = failure(f"sleep {mark}")
    start = time.monotonic()
    with Ahead([first, *(failure(f"sleep {mark}", name=f"trial-{number}") for number in range(9))]) as ahead:
        until(lambda: running(f"sleep {mark}"))
    assert time.monotonic() - start < 10
    assert gone(f"sleep {mark}")
    with pytest.raises(NotProvokedError):
        ahead.outcome(first)


def test_it_ends_with_the_tests_process_when_that_is_killed() -> None:
    mark = f"7{os.getpid()}4"
    code = f"from tests.provoked.test_sandbox import *; happen(failure({LEAVE.format(mark) + f'sleep {mark}'!r}))"
    tests = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
    try:
        until(lambda: len(running(f"sleep {mark}")) >= 3)
    finally:
        tests.send_signal(signal.SIGKILL)
        tests.wait()
    assert gone(f"sleep {mark}")


def test_the_folder_of_a_killed_process_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / f"{sandbox.PREFIX}{os.getpid()}-1-abc"  # this process id, at another time
    (left / "job").mkdir(parents=True)
    foreign = tmp_path / f"{sandbox.PREFIX}notes-of-mine"
    foreign.mkdir()
    with sandbox.sandbox_folder() as folder:
        assert folder.parent == tmp_path
        assert not left.exists()
    assert list(tmp_path.iterdir()) == [foreign]


def test_packages_that_a_failure_removes_are_still_here() -> None:
    package = Path(pytest.__file__).parent
    before = sorted(package.iterdir())
    outcome = happen(failure(f"rm -rf {package}\npython -c 'import pytest; pytest.main'"))
    assert outcome.code == 1
    assert b"pytest" in outcome.log
    assert sorted(package.iterdir()) == before


def test_a_sandbox_has_a_name_and_a_network_of_its_own() -> None:
    shown = happen(failure("hostname; getent hosts gpu-a; ip -o link | wc -l; df --output=size -BM /dev/shm", shm="9m"))
    assert shown.log.split() == b"gpu-a 192.0.2.10 gpu-a 1 1M-blocks 9M".split()


def test_without_root_it_is_made_in_a_user_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    missing_for_sandbox.cache_clear()
    try:
        reason = missing_for_sandbox()
    finally:
        missing_for_sandbox.cache_clear()
    if reason:
        pytest.skip(f"no user namespaces here: {reason}")
    outcome = happen(failure('rm -r "$VIRTUAL_ENV"/bin; ls "$VIRTUAL_ENV"; mount -t tmpfs tmpfs /mnt && echo mounted'))
    assert b"mounted" in outcome.log
    assert b"bin" not in outcome.log.split()
    assert Path(sys.executable).exists()


def test_what_is_missing_is_said() -> None:
    assert missing_for(failure("true")) == ""
    needy = failure("true", needs=("pdsh",))
    assert missing_for(needy) == ("" if shutil.which("pdsh") else "this failure needs pdsh (Debian: pdsh)")


def test_a_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name in ("g++", "unshare") else f"/usr/bin/{name}")
    assert missing_for(failure("true", needs=("g++",))) == "this failure needs g++ (Debian: g++)"
    missing_for_sandbox.cache_clear()
    try:
        assert missing_for_sandbox() == "the sandbox needs the programs unshare (Debian: util-linux, iproute2)"
    finally:
        missing_for_sandbox.cache_clear()


class TestMemoryGroup:
    @pytest.fixture(autouse=True)
    def group(self) -> None:
        skip_or_fail(missing_for_memory_group())

    def test_it_is_removed_after_a_failure(self) -> None:
        outcome = happen(failure("head -c 200m /dev/zero | tail; echo ${PIPESTATUS[1]}", memory=64))
        assert outcome.log.split()[-1] == b"137"
        assert list(controller()[0].glob(f"{PREFIX}{os.getpid()}-*")) == []

    def test_that_of_a_killed_process_is_erased_by_the_next(self) -> None:
        left = controller()[0] / f"{PREFIX}{os.getpid()}-1-0"  # this process id, at another time
        left.mkdir()
        with memory_group(64) as group:
            assert group is not None
            assert not left.exists()
            assert group.name.split("-")[-2] == str(start_time(os.getpid()))
        assert not group.exists()

    def test_no_limit_is_no_group(self) -> None:
        with memory_group(None) as group:
            assert group is None


def test_giving_up_what_has_not_begun_begins_nothing() -> None:
    mark = f"7{os.getpid()}5"
    provocation = Provocation(failure(f"sleep {mark}"))
    provocation.give_up()
    start = time.monotonic()
    with pytest.raises(NotProvokedError):
        provocation.run()
    assert time.monotonic() - start < 5
    assert gone(f"sleep {mark}")
