"""64 hosts looked at: `dsdoctor check` beside `pdsh` that runs the same probe on them, connections cold and kept.

The hosts are 64 loopback addresses of four real sshd, so all probes share this machine's cores; what differs is how
the hosts are reached. pdsh finds the probe on the hosts' disk, dsdoctor sends it; both bring the answers home. The
CPU is that of all processes together, the servers' and the probes' too. `DSDOCTOR_BENCH_HOSTS` takes another number.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import getpass
import json
import os
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dsdoctor.hosts.gather import END, gather, probe_pack
from dsdoctor.hosts.hostfile import load_hostfile
from dsdoctor.hosts.sent import BOOT
from dsdoctor.hosts.transport import Transport, TransportKind

RUNS = 3
LISTENING = 16  # addresses that one sshd takes at most
SUBREAPER = 36  # of prctl(2), PR_SET_CHILD_SUBREAPER: an ssh that goes into the background stays below this process
Timed = tuple[float, float]  # seconds, and CPU seconds of all


@contextlib.contextmanager
def reachable(folder: Path, count: int) -> Iterator[tuple[Path, list[str]]]:
    """An sshd at so many loopback addresses; gives the ssh settings that reach it, and the addresses."""
    addresses = [f"127.0.4.{number}" for number in range(1, count + 1)]
    with socket.socket() as probe:
        probe.bind((addresses[0], 0))
        port = probe.getsockname()[1]
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text("".join(f"[{address}]:{port} {key}\n" for address in addresses))
    (folder / "config").write_text(
        f"Host *\n  Port {port}\n  User {getpass.getuser()}\n  UserKnownHostsFile {folder}/known_hosts\n"
        f"  GlobalKnownHostsFile /dev/null\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    program = str(shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin"))
    servers = []
    try:
        for start in range(0, count, LISTENING):
            mine = addresses[start : start + LISTENING]
            servers.append(
                subprocess.Popen([program, "-D", "-f", _sshd_config(folder, mine, port), "-E", f"{folder}/log"])
            )
            _until_it_answers(mine[-1], port)
        yield folder / "config", addresses
    finally:
        for server in servers:
            server.terminate()
            server.wait(10)


def _sshd_config(folder: Path, addresses: list[str], port: int) -> str:
    path = folder / f"sshd_config_{addresses[0]}"
    listen = "".join(f"ListenAddress {address}:{port}\n" for address in addresses)
    path.write_text(
        f"{listen}HostKey {folder}/host\nPidFile none\nAuthorizedKeysFile {folder}/user.pub\nStrictModes no\n"
        "PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 1000\n"
        f"MaxSessions 100\nSetEnv HOME={folder}\n"
    )
    return str(path)


def _until_it_answers(address: str, port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection((address, port), 1) as probe:
            if probe.recv(4) == b"SSH-":
                return
        time.sleep(0.05)
    raise RuntimeError("sshd did not start; its log is in the temporary folder")


def main() -> str:
    """Time all in turn, three times each."""
    missing = [name for name in ("pdsh", "ssh", "ssh-keygen") if shutil.which(name) is None]
    if missing or shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
        return f"not run: {', '.join(missing) or 'sshd'} is not installed (apt-get install openssh-server pdsh)."
    count = int(os.environ.get("DSDOCTOR_BENCH_HOSTS", "64"))
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    with tempfile.TemporaryDirectory(prefix="dsdoctor-bench-") as name:
        folder = Path(name)
        with reachable(folder, count) as (config, addresses):
            return _table(_timed(folder, config, addresses), count)


def _timed(folder: Path, config: Path, addresses: list[str]) -> dict[str, list[Timed]]:
    (folder / "probe").write_bytes(probe_pack())
    (folder / "hostfile").write_text("".join(f"{each} slots=1 python={sys.executable}\n" for each in addresses))
    asked = {"targets": addresses, "paths": [], "timeout": 58.0}
    packed = base64.b64encode(json.dumps(asked).encode()).decode()
    pdsh = ["pdsh", "-S", "-R", "ssh", "-f", str(len(addresses)), "-w", ",".join(addresses)]
    pdsh.append(f"{shlex.join([sys.executable, '-u', '-c', BOOT, packed])} < {folder}/probe")
    environment = {
        **os.environ,
        "PDSH_SSH_ARGS_APPEND": f"-F {config} -o BatchMode=yes",
        "DSDOCTOR_SSH_CONFIG": str(config),
    }
    check = [sys.executable, "-m", "dsdoctor", "check", "--hostfile", str(folder / "hostfile"), "--format", "json"]
    commands: dict[str, Callable[[], Timed]] = {
        "pdsh, the same probe": lambda: _run(pdsh, environment, len(addresses)),
        "dsdoctor check, cold": lambda: _run(check, environment),
        "dsdoctor check --transport openssh, cold": lambda: _run([*check, "--transport", "openssh"], environment),
        "dsdoctor check --transport paramiko, cold": lambda: _run([*check, "--transport", "paramiko"], environment),
    }
    seconds: dict[str, list[Timed]] = {each: [] for each in commands}
    for _ in range(RUNS):
        for each, command in commands.items():
            seconds[each].append(command())
    for kind in ("openssh", "paramiko"):
        seconds[f"the probe over kept connections ({kind})"] = _kept(folder, config, asked, kind)
    return seconds


def _run(argv: list[str], environment: dict[str, str], answers: int = 0) -> Timed:
    began, spent = time.perf_counter(), _cpu_seconds()
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    taken = time.perf_counter() - began, _cpu_seconds() - spent
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{argv[:3]} ended with {done.returncode}: {done.stderr[-500:].decode(errors='replace')}")
    if answers and done.stdout.count(END) != answers:
        raise RuntimeError(f"{argv[0]} brought {done.stdout.count(END)} answers of {answers}")
    return taken


def _cpu_seconds() -> float:
    """What this process and all below it have taken, those that ended and were waited for included."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = path.read_text(errors="replace").rpartition(")")[2].split()
            parents[int(path.parent.name)], ticks[int(path.parent.name)] = int(words[1]), sum(map(int, words[11:15]))
    tree = new = {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new}
        tree = tree | new
    return sum(ticks.get(pid, 0) for pid in tree) / os.sysconf("SC_CLK_TCK")


def _kept(folder: Path, config: Path, asked: dict[str, object], kind: TransportKind) -> list[Timed]:
    """Gather over connections that an earlier gathering has left open."""
    entries = load_hostfile(folder / "hostfile").entries
    transports: dict[str, Transport] = {}
    seconds = []
    try:
        for number in range(RUNS + 1):
            began, spent = time.perf_counter(), _cpu_seconds()
            members = gather(entries, config=asked, kind=kind, config_file=config, transports=transports)
            if not all(member.reach.ok for member in members):
                raise RuntimeError(next(member.reach.detail for member in members if not member.reach.ok))
            if number:
                seconds.append((time.perf_counter() - began, _cpu_seconds() - spent))
    finally:
        for transport in transports.values():
            transport.close()
    return seconds


def _table(seconds: dict[str, list[Timed]], count: int) -> str:
    lines = [f"| {count} hosts | median s | fastest | slowest | × pdsh | CPU ms a host | × pdsh |", "|" + "---|" * 7]
    base: Timed | None = None
    for name, rows in seconds.items():
        taken, spent = zip(*rows, strict=True)
        middle = statistics.median(taken), statistics.median(spent)
        base = base or middle
        lines.append(
            f"| {name} | {middle[0]:.2f} | {min(taken):.2f} | {max(taken):.2f} | {middle[0] / base[0]:.2f}"
            f" | {middle[1] * 1000 / count:.0f} | {middle[1] / base[1]:.2f} |"
        )
    return "\n".join(lines)
