"""A run's directory: plan, facts, findings, logs, outputs and the state of each stage, all of it plain files.

`state.json` is replaced atomically, so that it is whole whenever it is read; a lock held for the life of the launch
says that the run is under way, and is gone with the process whatever ends it.
"""

from __future__ import annotations

import difflib
import errno
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import msgspec

from dsdoctor.run.guardian.process_table import identity, is_alive
from dsdoctor.yamlfile import FileError

Status = Literal["planned", "running", "done", "failed", "interrupted"]


class StageState(msgspec.Struct, frozen=True):
    """How far a stage got; `exit_codes` by host of its last attempt."""

    name: str
    folder: str
    status: Status = "planned"
    attempts: int = 0
    seconds: float = 0.0
    exit_codes: dict[str, int] = {}
    failure: str | None = None


class RunState(msgspec.Struct, frozen=True):
    """The state of a run as `state.json` has it. `fingerprint` tells whether a later launch is the same work."""

    run: str
    job: str
    fingerprint: str
    status: Status
    stages: tuple[StageState, ...]
    hosts: tuple[str, ...] = ()
    created: str = ""  # local time, ISO 8601
    detached: bool = False  # its guardians need no head
    failure: str | None = None  # of the run as a whole, in one sentence
    spools_on: tuple[str, ...] = ()  # hosts that keep what their guardians had to say
    schema: str = "dsdoctor.run/1"

    def stage(self, name: str) -> StageState:
        """The state of one stage."""
        return next(stage for stage in self.stages if stage.name == name)

    def with_stage(self, stage: StageState) -> RunState:
        """The state with one stage replaced."""
        stages = tuple(stage if each.name == stage.name else each for each in self.stages)
        return msgspec.structs.replace(self, stages=stages)


@dataclass(frozen=True)
class Holder:
    """The process that holds a run; `host` is None on this machine."""

    pid: int
    host: str | None = None


def _locked(file: IO[str], patience: float = 0.5) -> bool:
    """Take the lock of an open file, unless another process has it for longer than somebody's look at it takes."""
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            if time.monotonic() >= until:
                return False
            time.sleep(0.05)
        else:
            return True


class RunDirectory:
    """The directory of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """The run's name: the directory's."""
        return self.path.name

    def state(self) -> RunState:
        """The state of the run. Raises FileError when it cannot be read."""
        path = self.path / "state.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=RunState)
        except OSError as error:
            raise FileError(path, error.strerror or str(error)) from None
        except msgspec.DecodeError as error:
            raise FileError(path, f"not the state of a run: {error}") from None

    def save_state(self, state: RunState) -> None:
        """Replace the state."""
        self.write_json("state.json", msgspec.to_builtins(state))

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run, whole or not at all."""
        self.write_bytes(name, json.dumps(value, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace"))

    def write_bytes(self, name: str, content: bytes) -> None:
        """Write a file of the run, whole or not at all."""
        path = self.path / name
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise FileError(path, f"cannot be written: {error.strerror}") from None

    def read_json(self, name: str) -> Any:
        """What a JSON file of the run holds. Raises FileError."""
        path = self.path / name
        try:
            return json.loads(path.read_bytes())
        except OSError as error:
            raise FileError(path, error.strerror or str(error)) from None
        except ValueError as error:
            raise FileError(path, f"no JSON: {error}") from None

    def remove(self, name: str) -> None:
        """Take a file of the run away, if it is there."""
        with suppress(OSError):
            (self.path / name).unlink()

    @contextmanager
    def locked(self, inherited: int | None = None, *, handed_on: bool = False) -> Iterator[int]:
        """Hold the run for this process; gives the lock's descriptor.

        A child can go on with that as `inherited`; with `handed_on` this process leaves it to a child of its own.

        Raises:
            FileError: another process is carrying the run out.
        """
        path = self.path / "lock"
        try:
            opened = path.open("a+", encoding="ascii") if inherited is None else os.fdopen(inherited, "r+")
        except OSError as error:
            raise FileError(path, f"cannot be written: {error.strerror}") from None
        with opened as file:
            if not _locked(file):
                raise self._held(self.holder())
            try:
                file.seek(0)
                file.truncate()
                json.dump({**identity(os.getpid()), "host": os.uname().nodename}, file)
                file.flush()
            except OSError as error:
                raise FileError(path, f"cannot be written: {error.strerror}") from None
            try:
                yield file.fileno()
            finally:
                if not handed_on:  # a head may live on for a while and hold nothing
                    with suppress(OSError):
                        os.ftruncate(file.fileno(), 0)

    def refuse_when_held(self) -> None:
        """Raises FileError when another process is carrying the run out."""
        holder = self.holder()
        if holder is not None:
            raise self._held(holder)

    def _held(self, holder: Holder | None) -> FileError:
        who = "another process"
        if holder is not None:
            who = f"process {holder.pid}" + (f" on {holder.host}" if holder.host else "")
        return FileError(
            self.path,
            f"this run is being carried out by {who}. Follow it (dsdoctor attach {self.name}), wait for it, or stop it "
            f"(dsdoctor stop {self.name}); --fresh starts another run beside it",
        )

    def holder(self) -> Holder | None:
        """The process that carries the run out, when it is proven to be alive; on another machine, as it said."""
        try:
            said = json.loads((self.path / "lock").read_text(encoding="ascii"))
            here = said["host"] == os.uname().nodename
            if here and not is_alive(said):
                return None
            if not here and self._free():
                return None
            return Holder(int(said["pid"]), None if here else str(said["host"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _free(self) -> bool:
        """Whether nobody holds the lock, on whatever machine: network file systems ask their server."""
        with (self.path / "lock").open("r+", encoding="ascii") as file:
            return _locked(file, patience=0)

    def logs(self, folder: str) -> Path:
        """Where the logs of a stage are."""
        return self.path / "logs" / folder

    def set_aside(self, folder: str, attempt: int) -> None:
        """Keep the logs of an earlier attempt apart, so that a verdict is about the last one."""
        logs = self.logs(folder)
        aside = logs.with_name(f"{folder}.attempt{attempt}")
        if attempt and logs.exists() and not aside.exists():
            logs.rename(aside)


def fingerprint(job: str, profile: str | None, settings: dict[str, Any], program: str) -> str:
    """A digest of what a run computes: equal digests may be resumed into each other. Hosts do not count."""
    text = json.dumps([job, profile, settings, program], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def run_name(base: Path, job: str) -> str:
    """A name for a new run of a job that no directory below `base` has yet."""
    stamp = f"{job}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (stamp if not number else f"{stamp}-{number}" for number in range(10_000))
    return next(name for name in names if not (base / name).exists())


def new_run(path: Path) -> RunDirectory:
    """Make the directory of a new run. Raises FileError where that cannot be done, or another launch was quicker."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir()
    except FileExistsError:
        raise FileError(path, "another launch has just made this run's directory; start again") from None
    except OSError as error:
        raise FileError(path, f"the run's directory cannot be made: {error.strerror}") from None
    return RunDirectory(path)


def all_runs(base: Path) -> list[RunDirectory]:
    """The runs below a folder, the newest first; what is not a run is passed over."""
    found = [path.parent for path in base.glob("*/state.json")]
    return [RunDirectory(path) for path in sorted(found, key=_created, reverse=True)]


def _created(path: Path) -> tuple[str, str]:
    try:
        return RunDirectory(path).state().created, path.name
    except FileError:
        return "", path.name


def find_run(base: Path, given: str | None) -> RunDirectory:
    """The run of that name or path; without one the newest. Raises FileError, with the nearest name."""
    runs = all_runs(base)
    if given is None:
        if not runs:
            raise FileError(base, "there is no run in this folder. Give --runs, or a run's path")
        return runs[0]
    for path in (base / given, Path(given)):
        if (path / "state.json").is_file():
            return RunDirectory(path.absolute())
    if Path(given).is_dir():
        raise FileError(given, "is a folder, and no run's directory: there is no state.json in it")
    by_word = {word: run.name for run in reversed(runs) for word in (run.name, run.name.split("-20")[0])}
    close = difflib.get_close_matches(given, by_word, n=1)
    near = f"; did you mean {by_word[close[0]]}?" if close else ""
    raise FileError(given, f"there is no run of that name in {base}{near} (dsdoctor runs lists them)")


def newest(base: Path, job: str) -> RunDirectory | None:
    """The newest run of a job."""
    for run in all_runs(base):
        with suppress(FileError):
            if run.state().job == job:
                return run
    return None


def unfinished(base: Path, job: str) -> RunDirectory | None:
    """The newest run of a job, if it is not done."""
    run = newest(base, job)
    return None if run is None or run.state().status == "done" else run
