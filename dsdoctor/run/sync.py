"""Copying the code to the hosts: rsync through the job's own ssh, in parallel, once per file system, verified.

`--delete` is used only in a folder that carries dsdoctor's marker, and exclude patterns are anchored at the tree (an
absolute path in `--exclude` has no effect in rsync, which is how one of the seeds copied 30 GB too many).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dsdoctor.hosts.transport import Transport, TransportError
from dsdoctor.plan.model import HostPlan, LaunchPlan
from dsdoctor.run.on_host import HostAnswerError, ask, prepare, tokens

PERCENT = re.compile(rb"(\d{1,3})%")

Progress = Callable[[str, int], None]  # host, percent


class SyncError(Exception):
    """A host could not be given the code: names the host, what happened there, and the mend."""

    def __init__(self, host: str, message: str) -> None:
        super().__init__(f"{host}: {message}")
        self.host = host


def sync(
    plan: LaunchPlan,
    transports: Mapping[str, Transport],
    progress: Progress = lambda host, percent: None,
    timeout: float = 3600,
) -> dict[str, str]:
    """Copy the code to every host that is not this machine; returns for each how it got it.

    Hosts that see one another's folder (a shared home) are given the code once. Afterwards a checksum comparison proves
    that host and head hold the same files.

    Raises:
        SyncError: the first host, in the plan's order, where it did not work; the others were still finished.
    """
    remote = [host for host in plan.hosts if not host.local]
    if not remote:
        return {}
    rsync = shutil.which("rsync")
    if rsync is None:
        raise SyncError("this machine", "rsync is not installed. apt-get install rsync (or dnf install rsync)")
    copies = Copies(rsync, plan.sync.source, _excludes(plan), progress, timeout)
    with ThreadPoolExecutor(max_workers=min(32, len(remote))) as pool:
        try:
            groups = _share_groups(remote, transports, plan.setup, pool)
            results = pool.map(lambda host: copies.copy(host, transports[host.name]), [group[0] for group in groups])
            errors = [error for error in results if error]
        except KeyboardInterrupt:  # the pool waits for its threads, and they for rsync and the hosts
            copies.stop()
            for host in remote:
                transports[host.name].close()
            raise
    if errors:
        raise errors[0]
    how = {}
    for group in groups:
        how[group[0].name] = "copied"
        for host in group[1:]:
            how[host.name] = f"shares the folder of {group[0].name}"
            progress(host.name, 100)
    return how


def _excludes(plan: LaunchPlan) -> list[str]:
    source = str(Path(plan.sync.source).resolve())
    for pattern in plan.sync.exclude:
        if pattern.startswith(source):
            inside = pattern[len(source) :] or "/"
            raise SyncError(
                "this machine",
                f"sync.exclude: {pattern} is an absolute path, which rsync would take from the top of the copied tree, "
                f"where there is no such file. Write {inside}",
            )
    return [f"--exclude={pattern}" for pattern in plan.sync.exclude]


def _share_groups(
    hosts: Sequence[HostPlan], transports: Mapping[str, Transport], setup: Sequence[str], pool: ThreadPoolExecutor
) -> list[list[HostPlan]]:
    """Prepare the folder on every host, and put hosts together that see each other's token in it."""
    alone = len(hosts) == 1
    own = {host.name: "" if alone else f"{host.node_rank}-{secrets.token_hex(8)}" for host in hosts}

    def make(host: HostPlan) -> SyncError | None:
        order = {"code_dir": host.code_dir, "run_dir": host.run_dir, "token": own[host.name]}
        try:
            answer = ask(transports[host.name], host.python, prepare, order, setup)
        except (TransportError, HostAnswerError, subprocess.TimeoutExpired) as error:
            return SyncError(host.name, f"the folder {host.code_dir} could not be made: {error}")
        if answer.get("error") == "foreign":
            return SyncError(
                host.name,
                f"{host.code_dir} holds files that dsdoctor did not put there, and is left alone. Move them away, or "
                f"give another folder: workdir= in the hostfile",
            )
        return SyncError(host.name, answer["error"]) if answer.get("error") else None

    errors = [error for error in pool.map(make, hosts) if error]
    if errors:
        raise errors[0]
    if alone:
        return [[hosts[0]]]

    def look(host: HostPlan) -> list[str]:
        try:
            seen: list[str] = ask(transports[host.name], host.python, tokens, {"code_dir": host.code_dir}, setup)
        except (TransportError, HostAnswerError, subprocess.TimeoutExpired) as error:
            raise SyncError(host.name, f"the folder {host.code_dir} could not be read: {error}") from None
        return seen

    seen = dict(zip((host.name for host in hosts), pool.map(look, hosts), strict=True))

    def clear(host: HostPlan) -> None:
        order = {"code_dir": host.code_dir, "remove": [own[host.name]]}
        with contextlib.suppress(TransportError, HostAnswerError, subprocess.TimeoutExpired):
            ask(transports[host.name], host.python, tokens, order, setup)

    groups: list[list[HostPlan]] = []
    for host in hosts:
        for group in groups:
            if own[group[0].name] in seen[host.name]:
                group.append(host)
                break
        else:
            groups.append([host])
    list(pool.map(clear, hosts))
    return groups


class Copies:
    """The copies of one sync; several hosts at once, each from a thread of its own."""

    def __init__(self, rsync: str, source: str, excludes: list[str], progress: Progress, timeout: float) -> None:
        self._rsync = rsync
        self._source = f"{source.rstrip('/')}/"
        self._excludes = excludes
        self._progress = progress
        self._timeout = timeout
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def copy(self, host: HostPlan, transport: Transport) -> SyncError | None:
        """Copy to one host and compare; what went wrong is returned, so that the other hosts' copies are finished."""
        try:
            base = [*_rsync_argv(self._rsync, transport, host.name), "--delete", *self._excludes]
            ends = [self._source, f"{_target(transport)}:{host.code_dir}/"]
            said, errors, code = self._run([*base, "--info=progress2,stats2", *ends], host)
            if code != 0:
                return SyncError(host.name, _explain(code, errors, host))
            if b"Number of regular files transferred: 0" not in said:
                return self._compare(base, ends, host)
        except SyncError as error:
            return error
        except TransportError as error:
            return SyncError(host.name, error.detail)
        except subprocess.TimeoutExpired:
            return SyncError(host.name, f"copying took longer than {self._timeout:.0f} s and was given up")
        self._progress(host.name, 100)
        return None

    def stop(self) -> None:
        """End what is under way."""
        self._stopped = True
        for process in list(self._running):
            _end(process)

    def _compare(self, base: list[str], ends: list[str], host: HostPlan) -> SyncError | None:
        """Hold what was copied against what is here, by checksum."""
        said, errors, code = self._run([*base, "--checksum", "--dry-run", "--itemize-changes", *ends], host)
        differing = [line for line in said.decode("utf-8", "replace").splitlines() if line[:2] in ("<f", "*d")]
        if code != 0 or differing:
            what = differing[0].split(maxsplit=1)[-1] if differing else _explain(code, errors, host)
            return SyncError(host.name, f"the copy differs from this machine's files: {what}. Is it being changed?")
        self._progress(host.name, 100)
        return None

    def _run(self, argv: list[str], host: HostPlan) -> tuple[bytes, bytes, int]:
        """Run an rsync to its end: the last of what it said, its errors, its exit code."""
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True)
        self._running.add(process)
        if self._stopped:
            _end(process)
        timer = threading.Timer(self._timeout, _end, (process,))
        began = time.monotonic()
        timer.start()
        said = b""
        with process:
            assert process.stdout is not None
            assert process.stderr is not None
            errors: list[bytes] = []
            reader = threading.Thread(target=lambda stream: errors.append(stream.read()), args=(process.stderr,))
            reader.start()
            while chunk := os.read(process.stdout.fileno(), 4096):
                said = (said + chunk)[-65536:]
                percents = PERCENT.findall(chunk)
                if percents:
                    self._progress(host.name, min(99, int(percents[-1])))
            reader.join()
            code = process.wait()
        timer.cancel()
        self._running.discard(process)
        if code < 0 and time.monotonic() - began >= self._timeout:
            raise subprocess.TimeoutExpired(argv, self._timeout)
        return said, b"".join(errors), code


def _end(process: subprocess.Popen[bytes]) -> None:
    """End an rsync with the ssh that it started: they are a session of their own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def fetch(source: HostPlan, transport: Transport, remote: str, local: Path, max_size: str = "50m") -> str | None:
    """Bring a folder's files of at most `max_size` each back to the head; returns what went wrong, or None."""
    rsync = shutil.which("rsync")
    if rsync is None:
        return "rsync is not installed on this machine"
    try:
        local.mkdir(parents=True, exist_ok=True)
        argv = [*_rsync_argv(rsync, transport, source.name), f"--max-size={max_size}"]
    except (OSError, SyncError, TransportError) as error:
        return str(error)
    try:
        done = subprocess.run(
            [*argv, f"{_target(transport)}:{remote.rstrip('/')}/", f"{local}/"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=600,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "copying them took longer than 600 s"
    return None if done.returncode == 0 else _explain(done.returncode, done.stderr, source)


def _rsync_argv(rsync: str, transport: Transport, host: str) -> list[str]:
    shell = transport.rsync_shell()
    if shell is None:
        raise SyncError(host, "files cannot be copied over this transport; an ssh client on this machine is needed")
    # -s: paths are not read by the other side's shell
    return [rsync, "-a", "-s", "-e", shlex.join(shell[0])]


def _target(transport: Transport) -> str:
    shell = transport.rsync_shell()
    return shell[1] if shell else ""


def _explain(code: int, errors: bytes, host: HostPlan) -> str:
    """What rsync's exit code and messages mean (rsync(1), EXIT VALUES), with the mend."""
    text = errors.decode("utf-8", "replace").strip()
    lines = [line for line in text.splitlines() if line.strip()]
    detail = next((line for line in lines if "rsync error" not in line), lines[-1] if lines else f"exit code {code}")
    if "No space left" in text:
        return f"no space left for {host.code_dir}: {detail}"
    if code in (12, 127) and ("not found" in text or "No such file" in text):
        return f"rsync is not installed there. apt-get install rsync (or dnf install rsync) on {host.name}"
    if code == 255:
        return f"the connection was lost while copying: {detail}"
    return f"rsync ended with code {code}: {detail}"
