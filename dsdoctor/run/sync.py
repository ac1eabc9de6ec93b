"""Copying the code to the hosts: rsync through the job's own ssh, in parallel, once per file system, verified.

`--delete` is used only in a folder that carries dsdoctor's marker, and exclude patterns are anchored at the tree (an
absolute path in `--exclude` has no effect in rsync, which is how one of the seeds copied 30 GB too many).
"""

from __future__ import annotations

import re
import secrets
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dsdoctor.hosts.transport import Transport, TransportError
from dsdoctor.plan.model import HostPlan, LaunchPlan
from dsdoctor.run.on_host import HostAnswerError, ask, prepare, tokens

ALWAYS_EXCLUDED = (
    "/.dsdoctor-sync",
    "/.dsdoctor-tokens/",
    ".git/",
    "__pycache__/",
    "*.pyc",
    ".venv/",
    ".mypy_cache/",
    ".ruff_cache/",
    ".pytest_cache/",
)
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
    excludes = _excludes(plan)
    with ThreadPoolExecutor(max_workers=min(32, len(remote))) as pool:
        groups = _share_groups(remote, transports, pool)

        def copy(host: HostPlan) -> SyncError | None:
            try:
                _copy(rsync, plan.sync.source, host, transports[host.name], excludes, progress, timeout)
            except SyncError as error:
                return error
            return None

        errors = [error for error in pool.map(copy, [group[0] for group in groups]) if error]
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
    return [f"--exclude={pattern}" for pattern in (*ALWAYS_EXCLUDED, *plan.sync.exclude)]


def _share_groups(
    hosts: Sequence[HostPlan], transports: Mapping[str, Transport], pool: ThreadPoolExecutor
) -> list[list[HostPlan]]:
    """Prepare the folder on every host, and put hosts together that see each other's token in it."""
    own = {host.name: f"{host.node_rank}-{secrets.token_hex(8)}" for host in hosts}

    def make(host: HostPlan) -> SyncError | None:
        order = {"code_dir": host.code_dir, "run_dir": host.run_dir, "token": own[host.name]}
        try:
            answer = ask(transports[host.name], host.python, prepare, order)
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
    if len(hosts) == 1:
        return [[hosts[0]]]

    def look(host: HostPlan) -> list[str]:
        try:
            seen: list[str] = ask(transports[host.name], host.python, tokens, {"code_dir": host.code_dir})
        except (TransportError, HostAnswerError, subprocess.TimeoutExpired) as error:
            raise SyncError(host.name, f"the folder {host.code_dir} could not be read: {error}") from None
        return seen

    seen = dict(zip((host.name for host in hosts), pool.map(look, hosts), strict=True))

    def clear(host: HostPlan) -> None:
        order = {"code_dir": host.code_dir, "remove": [own[host.name]]}
        ask(transports[host.name], host.python, tokens, order)

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


def _copy(
    rsync: str,
    source: str,
    host: HostPlan,
    transport: Transport,
    excludes: list[str],
    progress: Progress,
    timeout: float,
) -> None:
    base = [*_rsync_argv(rsync, transport, host.name), "--delete", *excludes]
    ends = [f"{source.rstrip('/')}/", f"{_target(transport)}:{host.code_dir}/"]
    process = subprocess.Popen(
        [*base, "--info=progress2,stats2", *ends],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    copied = b""
    try:
        with process:
            for chunk in iter(lambda: process.stdout.read1(4096) if process.stdout else b"", b""):  # type: ignore[attr-defined]
                copied = (copied + chunk)[-4096:]
                found = PERCENT.findall(chunk)
                if found:
                    progress(host.name, int(found[-1]))
            errors = process.stderr.read()
            code = process.wait(timeout=timeout)
    except BaseException:
        process.kill()
        raise
    if code != 0:
        raise SyncError(host.name, _explain(code, errors, host))
    if b"Number of regular files transferred: 0" not in copied:
        _verify(base, ends, host, timeout)
    progress(host.name, 100)


def _verify(base: list[str], ends: list[str], host: HostPlan, timeout: float) -> None:
    """Compare by checksum what was copied with what is here."""
    checked = subprocess.run(
        [*base, "--checksum", "--dry-run", "--itemize-changes", *ends],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    differing = [line for line in checked.stdout.decode("utf-8", "replace").splitlines() if line[:2] in ("<f", "*d")]
    if checked.returncode != 0 or differing:
        what = differing[0].split(maxsplit=1)[-1] if differing else _explain(checked.returncode, checked.stderr, host)
        raise SyncError(host.name, f"the copy differs from this machine's after copying: {what}. Is it being changed?")


def fetch(source: HostPlan, transport: Transport, remote: str, local: Path, max_size: str = "50m") -> str | None:
    """Bring a folder's files of at most `max_size` each back to the head; returns what went wrong, or None."""
    rsync = shutil.which("rsync")
    if rsync is None:
        return "rsync is not installed on this machine"
    local.mkdir(parents=True, exist_ok=True)
    argv = [*_rsync_argv(rsync, transport, source.name), f"--max-size={max_size}"]
    done = subprocess.run(
        [*argv, f"{_target(transport)}:{remote.rstrip('/')}/", f"{local}/"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=600,
        check=False,
    )
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
