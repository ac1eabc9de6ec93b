"""Runs a failure in a sandbox: namespaces that end with it, whatever it left behind in them.

Nothing of the machine is changed: the interpreter's folders are seen through an overlay, the network is a loopback of
its own. What is outside the namespaces is one folder, and a control group where memory is limited; both are removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.footprint import start_time
from tests.provoked.failure import HERE, Failure
from tests.provoked.memory_group import memory_group

PREFIX = "dsdoctor-provoked-"
INIT = HERE / "sandbox.sh"
PROGRAMS = HERE / "programs"
SYSTEM = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"


class NotProvokedError(AssertionError):
    """The provocation itself did not come to its end in time; the message has what it had printed."""


@dataclass(frozen=True)
class Outcome:
    """What a failure printed, how its script ended, and how long it took."""

    log: bytes
    code: int
    seconds: float
    folder: Path  # where it ran; not there any more


class Provocation:
    """One failure that happens in a sandbox, and can be given up from another thread."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        self._given_up = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> Outcome:
        """Let it happen, to its end.

        Raises:
            NotProvokedError: it took longer than its limit, or was given up; everything of it has been ended.
        """
        failure = self.failure
        with sandbox_folder() as folder, memory_group(failure.memory) as group:
            lay_out(failure, folder / "job")
            start = time.monotonic()
            code = self._run(folder, group)
            seconds = time.monotonic() - start
            log = (folder / "log").read_bytes()
        if code is None:
            raise NotProvokedError(
                f"{failure.name}: not at its end after {seconds:.0f} s:\n{log.decode('utf-8', 'replace')}"
            )
        return Outcome(log, code, seconds, folder)

    def give_up(self) -> None:
        """End what runs of it; nothing begins any more."""
        self._given_up.set()
        if self._process is not None:
            self._process.kill()

    def _run(self, folder: Path, group: Path | None) -> int | None:
        """Run the script to its end, its output in `log`; None when it had to be ended."""
        (folder / "run.sh").write_text(self.failure.run, encoding="utf-8")
        join = ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(group)] if group else []
        with (folder / "log").open("wb") as log:
            self._process = process = subprocess.Popen(
                [*join, *enter(folder, self.failure.shm), "bash", str(folder / "run.sh")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(folder / "home", folder / "tmp"),
                start_new_session=True,
            )
            try:
                code = process.wait(0 if self._given_up.is_set() else self.failure.limit)
            except subprocess.TimeoutExpired:
                return None
            finally:
                process.kill()  # unshare's child, PID 1 of the sandbox, dies with it, and all others with that
                process.wait()
        return None if self._given_up.is_set() else code


@contextlib.contextmanager
def sandbox_folder() -> Iterator[Path]:
    """A folder with an empty home, a folder for temporary files and one for the job; removed at the end.

    Its name carries the owner's process id and start time: what an owner left that was killed is removed as well.
    """
    erase_leftovers()
    owner = f"{os.getpid()}-{start_time(os.getpid())}"
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{owner}-")).resolve()
    try:
        for name in ("home", "tmp", "job"):
            (folder / name).mkdir()
        yield folder
    finally:
        _remove(folder)


def erase_leftovers() -> None:
    """Remove the folders of test processes that were killed; their own processes died with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*-*"):
        pid, started, _ = folder.name.removeprefix(PREFIX).split("-", 2)
        if pid.isdecimal() and str(start_time(int(pid))) != started:
            shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: Path) -> None:
    """Remove a folder, though a failure may have taken away the permission to write below it."""
    for place, names, _ in os.walk(folder):
        for below in (Path(place, name) for name in names):
            if not below.is_symlink():
                below.chmod(0o700)
    shutil.rmtree(folder)


def lay_out(failure: Failure, job: Path) -> None:
    """Put the failure's own files and the shared programs into the folder of the job."""
    for path in PROGRAMS.glob("*.py"):
        shutil.copy(path, job / path.name)
    for name, text in failure.files.items():
        (job / name).parent.mkdir(parents=True, exist_ok=True)
        (job / name).write_text(text, encoding="utf-8")


def environment(home: Path | str, tmp: Path | str) -> dict[str, str]:
    """The variables of a user's shell with the interpreter of the tests activated, and nothing of the tests' own."""
    return {
        "PATH": f"{Path(sys.executable).parent}:{SYSTEM}",
        "VIRTUAL_ENV": sys.prefix,
        "HOME": str(home),
        "TMPDIR": str(tmp),
        "USER": "alice",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def changeable_directories() -> list[str]:
    """The folders of the interpreter that a failure may change; those of the system only for root."""
    found = {str(Path(prefix).resolve()) for prefix in (sys.prefix, sys.base_prefix)}
    if os.geteuid() == 0:
        found.add("/usr")
    return sorted(
        path
        for path in found
        if (os.geteuid() == 0 or not path.startswith("/usr"))
        and not any(path != other and Path(path).is_relative_to(other) for other in found)
    )


def enter(folder: Path, shm: str) -> list[str]:
    """What to put before a command to run it in a sandbox with that folder; it ends with whoever starts it.

    Signals that the tests' process ignores (SIGHUP, under nohup) are not ignored in there.
    """
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    return [
        *["env", "--default-signal", "setpriv", "--pdeathsig", "KILL", "unshare", *user, *namespaces],
        *["bash", str(INIT), str(folder), shm, *changeable_directories(), "--"],
    ]
