"""64 hosts looked at: `dsdoctor check` beside `pdsh` that runs the same probe on them, connections cold and kept.

The hosts are 64 loopback addresses of four real sshd, so all probes share this machine's cores; what differs is how
the hosts are reached. pdsh finds the probe on the hosts' disk, dsdoctor sends it. `DSDOCTOR_BENCH_HOSTS` takes another
number.
"""

from __future__ import annotations

import base64
import contextlib
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

from dsdoctor.hosts.gather import gather, probe_pack
from dsdoctor.hosts.hostfile import load_hostfile
from dsdoctor.hosts.sent import BOOT
from dsdoctor.hosts.transport import Transport, TransportKind

RUNS = 3
LISTENING = 16  # addresses that one sshd takes at most


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
    with tempfile.TemporaryDirectory(prefix="dsdoctor-bench-") as name:
        folder = Path(name)
        with reachable(folder, count) as (config, addresses):
            return _table(_timed(folder, config, addresses), count)


def _timed(folder: Path, config: Path, addresses: list[str]) -> dict[str, list[float]]:
    (folder / "probe").write_bytes(probe_pack())
    (folder / "hostfile").write_text("".join(f"{each} slots=1 python={sys.executable}\n" for each in addresses))
    asked = {"targets": addresses, "paths": [], "timeout": 58.0}
    packed = base64.b64encode(json.dumps(asked).encode()).decode()
    pdsh = ["pdsh", "-S", "-R", "ssh", "-f", str(len(addresses)), "-w", ",".join(addresses)]
    pdsh.append(f"{shlex.join([sys.executable, '-u', '-c', BOOT, packed])} < {folder}/probe | wc -c")
    environment = {
        **os.environ,
        "PDSH_SSH_ARGS_APPEND": f"-F {config} -o BatchMode=yes",
        "DSDOCTOR_SSH_CONFIG": str(config),
    }
    check = [sys.executable, "-m", "dsdoctor", "check", "--hostfile", str(folder / "hostfile"), "--format", "json"]
    commands: dict[str, Callable[[], float]] = {
        "pdsh, the same probe": lambda: _run(pdsh, environment),
        "dsdoctor check, cold": lambda: _run(check, environment),
        "dsdoctor check --transport openssh, cold": lambda: _run([*check, "--transport", "openssh"], environment),
        "dsdoctor check --transport paramiko, cold": lambda: _run([*check, "--transport", "paramiko"], environment),
    }
    seconds: dict[str, list[float]] = {each: [] for each in commands}
    for _ in range(RUNS):
        for each, command in commands.items():
            seconds[each].append(command())
    for kind in ("openssh", "paramiko"):
        seconds[f"the probe over kept connections ({kind})"] = _kept(folder, config, asked, kind)
    return seconds


def _run(argv: list[str], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    taken = time.perf_counter() - began
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{argv[:3]} ended with {done.returncode}: {done.stderr[-500:].decode(errors='replace')}")
    return taken


def _kept(folder: Path, config: Path, asked: dict[str, object], kind: TransportKind) -> list[float]:
    """Gather over connections that an earlier gathering has left open."""
    entries = load_hostfile(folder / "hostfile").entries
    transports: dict[str, Transport] = {}
    seconds = []
    try:
        for number in range(RUNS + 1):
            began = time.perf_counter()
            members = gather(entries, config=asked, kind=kind, config_file=config, transports=transports)
            if not all(member.reach.ok for member in members):
                raise RuntimeError(next(member.reach.detail for member in members if not member.reach.ok))
            if number:
                seconds.append(time.perf_counter() - began)
    finally:
        for transport in transports.values():
            transport.close()
    return seconds


def _table(seconds: dict[str, list[float]], count: int) -> str:
    base = statistics.median(next(iter(seconds.values())))
    lines = [f"| {count} hosts | median s | fastest | slowest | × pdsh |", "|---|---|---|---|---|"]
    for name, taken in seconds.items():
        middle = statistics.median(taken)
        lines.append(f"| {name} | {middle:.2f} | {min(taken):.2f} | {max(taken):.2f} | {middle / base:.2f} |")
    return "\n".join(lines)
