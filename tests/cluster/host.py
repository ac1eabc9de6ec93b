"""One host of the little cluster: what runs there, what lies on its disk, and what can befall it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from tests.cluster import fakegpu
from tests.cluster.machine import ENVIRONMENT, Machine
from tests.cluster.processes import HostProcess, ProcessInside, pid_inside, processes_of, run_inside
from tests.cluster.switch import Switch


class ClusterHost:
    """One host, made and booted by :class:`~tests.cluster.little_cluster.LittleCluster`."""

    def __init__(self, machine: Machine, switch: Switch) -> None:
        self.machine = machine
        self.name = machine.spec.name
        self.nic = machine.spec.nic
        self.address = machine.address
        self._switch = switch
        self._port = machine.cables[0].port
        self._started: list[HostProcess] = []

    @property
    def is_up(self) -> bool:
        """Whether the host has power."""
        return self.machine.is_on

    @property
    def pid1(self) -> int:
        """The process id, outside, of the host's PID 1; raises HostDownError."""
        return self.machine.pid1

    # --- commands

    def run(
        self,
        argv: Sequence[str],
        *,
        check: bool = True,
        timeout: float = 60.0,
        env: Mapping[str, str] | None = None,
        cwd: str = "/root",
        given: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside the host to its end, as root, with a small clean environment and `env` on top.

        `given` is its standard input.

        Raises:
            CommandFailedError: `check`, and the exit code is not 0.
            subprocess.TimeoutExpired: it took longer than `timeout` seconds; its process group has been killed.
            HostDownError: the host is powered off.
        """
        pipe = subprocess.PIPE
        process = self._start(argv, env, cwd, stdin=pipe, stdout=pipe, stderr=pipe)
        return run_inside(self.name, process, given, timeout, check)

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/root",
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] = subprocess.STDOUT,
    ) -> HostProcess:
        """Start a command inside the host. It is ended when the host is powered off or the cluster goes down."""
        process = self._start(argv, env, cwd, stdin=stdin, stdout=stdout, stderr=stderr)
        self._started.append(process)
        return process

    def ssh(
        self, host: str | ClusterHost, command: str, *, check: bool = True, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on another host through ssh, as a user on this host would."""
        name = host if isinstance(host, str) else host.name
        return self.run(["ssh", "-o", "BatchMode=yes", name, command], check=check, timeout=timeout)

    def python(self, code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run Python code inside the host with the interpreter and packages of the tests; options as for `run`."""
        return self.run([sys.executable, "-c", code, *arguments], **options)

    def ps(self, containing: str = "") -> list[ProcessInside]:
        """The host's processes but for PID 1, sshd included; or those with a text in their command line."""
        return [process for process in processes_of(self.pid1) if containing in " ".join(process.argv)]

    def kill(self, pid: int, sig: int = signal.SIGKILL) -> None:
        """Send a signal to a process by its id inside the host."""
        self.run(["kill", f"-{int(sig)}", str(pid)])

    def wait_for_start(self, containing: str, timeout: float = 15.0) -> list[ProcessInside]:
        """Wait until a process has a text in its command line; returns those that have it.

        Raises:
            AssertionError: none has; all are listed.
        """
        deadline = time.monotonic() + timeout
        while not (found := self.ps(containing)):
            if time.monotonic() > deadline:
                running = [str(process) for process in self.ps()]
                raise AssertionError(f"{self.name}: no {containing!r} after {timeout:g} s among {running}")
            time.sleep(0.02)
        return found

    def wait_for_end(self, containing: str, timeout: float = 15.0) -> float:
        """Wait until no process has a text in its command line; returns the seconds it took.

        Raises:
            AssertionError: some are still there after `timeout` seconds; they are listed.
        """
        start = time.monotonic()
        while left := self.ps(containing):
            if time.monotonic() - start > timeout:
                raise AssertionError(f"{self.name}: still running after {timeout:g} s: {[str(p) for p in left]}")
            time.sleep(0.05)
        return time.monotonic() - start

    # --- files

    def write(self, path: str, content: str | bytes, *, mode: int = 0o644) -> None:
        """Write a file on the host's own disk; folders on the way are made."""
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
        with tempfile.TemporaryFile() as source:
            source.write(content.encode() if isinstance(content, str) else content)
            source.seek(0)
            argv = ["sh", "-c", script, "write", path, f"{mode:o}"]
            process = self._start(argv, None, "/", stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            run_inside(self.name, process, None, 30, True)

    def read(self, path: str) -> str:
        """The text of a file as the host sees it; raises CommandFailedError when there is none."""
        return self.read_bytes(path).decode("utf-8", "replace")

    def read_bytes(self, path: str) -> bytes:
        """The bytes of a file as the host sees it; raises CommandFailedError when there is none."""
        with tempfile.TemporaryFile() as target:
            process = self._start(["cat", path], None, "/", stdout=target, stderr=subprocess.PIPE)
            run_inside(self.name, process, None, 30, True)
            target.seek(0)
            return target.read()

    def exists(self, path: str) -> bool:
        """Whether the host has something at that path."""
        return self.run(["test", "-e", path], check=False).returncode == 0

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all that is in it; nothing happens when it is not there."""
        self.run(["rm", "-rf", "--", path])

    # --- what can befall a host

    def cut(self) -> None:
        """Pull the cable on the switch's side: the host loses its carrier.

        Others get "No route to host" once they ask for its hardware address again: at once after
        :meth:`forget_neighbours` on them, else within seconds, and until then nothing.
        """
        self._switch.set_port(self._port, up=False)

    def mute(self) -> None:
        """Drop every IP packet from and to the host without a word; the carrier stays and ARP is answered."""
        self._switch.drop_packets(self._port)

    def heal(self) -> None:
        """Undo :meth:`cut` and :meth:`mute`."""
        self._switch.pass_packets(self._port)
        if self.is_up:
            self._switch.set_port(self._port, up=True)

    def freeze(self) -> None:
        """Stop every process of the host at once, those that `run` starts too; the network stays up."""
        self.machine.set_frozen(True)

    def thaw(self) -> None:
        """Undo :meth:`freeze`."""
        self.machine.set_frozen(False)

    def poweroff(self) -> None:
        """Take the power away: every process ends at once and nobody is told. Nothing happens when it is off."""
        self.machine.power_off()
        for process in self._started:
            process.wait(timeout=10)

    def end_processes(self) -> None:
        """End what :meth:`popen` started here and close the pipes to it."""
        for process in self._started:
            process.end()
        self._started.clear()

    def boot(self) -> None:
        """Switch the powered-off host on again: same disk, same address, fresh processes; raises HostDownError."""
        self.machine.switch_on()
        self.machine.wait_started()
        self._switch.plug_in([(self.machine.cables[0], self.pid1)])
        self.machine.wired()
        self.machine.wait_ready()

    def sshd_stop(self) -> None:
        """Stop the ssh daemon; open sessions stay."""
        self.run(["sh", "-c", "kill $(cat /run/sshd.pid); while [ -e /run/sshd.pid ]; do sleep 0.01; done"], timeout=10)

    def sshd_start(self) -> None:
        """Start the ssh daemon again."""
        self.run(["/usr/sbin/sshd", "-f", "/etc/ssh/sshd_config", "-E", "/var/log/sshd.log"])
        self.run(["sh", "-c", "until [ -s /run/sshd.pid ]; do sleep 0.01; done"], timeout=10)

    def forget_neighbours(self) -> None:
        """Empty the host's own table of hardware addresses."""
        self.run(["ip", "neighbour", "flush", "all"])

    def set_nofile(self, soft: int) -> None:
        """Set the soft limit of open files of every ssh session that begins from now on (sshd's children)."""
        listener = int(self.read("/run/sshd.pid"))
        pids = (self.machine.group / "cgroup.procs").read_text(encoding="utf-8").split()
        outside = next(int(pid) for pid in pids if pid_inside(int(pid)) == listener)
        hard = resource.prlimit(outside, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(outside, resource.RLIMIT_NOFILE, (soft, max(soft, hard)))

    def set_shm(self, mib: int) -> None:
        """Change the size of /dev/shm."""
        self.run(["mount", "-o", f"remount,size={mib}m", "/dev/shm"])

    def fill_disk(self, free_mib: int = 0) -> None:
        """Let the disk behind / have this much room left, without using memory for it."""
        disk = os.statvfs(self._switch.disks / self.name)
        used_kib = (disk.f_blocks - disk.f_bfree) * disk.f_frsize // 1024
        self._switch.resize_disk(self.name, used_kib + free_mib * 1024)

    def free_disk(self) -> None:
        """Undo :meth:`fill_disk`."""
        self._switch.resize_disk(self.name, self.machine.spec.disk_mib * 1024)

    def install_fake_gpus(self, profile: str, more: Mapping[int, Sequence[str]] | None = None) -> None:
        """Make the host look as if it had GPUs, for :mod:`tests.cluster.fakegpu` says how far; gone after a reset.

        `profile` is one of `fakegpu.PROFILES`; `more` adds lines to single GPUs: `{1: ["lost 1"]}`. Reboots take the
        kernel's side (/proc, /sys) away and leave the library.
        """
        fakegpu.install(self, profile, more)

    def remove_fake_gpus(self) -> None:
        """Undo :meth:`install_fake_gpus`, whether it was called or not."""
        fakegpu.remove(self)

    def add_nic(self, name: str, address: str | None = None, *, up: bool = True) -> None:
        """Put another NIC into the host, with a cable to the same switch; `address` as 192.0.2.7/24.

        It goes with the next power-off.
        """
        self._switch.plug_in([(self.machine.new_cable(name), self.pid1)])
        if address is not None:
            self.run(["ip", "address", "add", address, "dev", name])
        if up:
            self.run(["ip", "link", "set", name, "up"])

    def _start(
        self, argv: Sequence[str], env: Mapping[str, str] | None, cwd: str, **streams: int | IO[bytes]
    ) -> HostProcess:
        return HostProcess(self.pid1, self.machine.group, argv, {**ENVIRONMENT, **(env or {})}, cwd, **streams)

    def __repr__(self) -> str:
        return f"<{self.name} {self.address} {self.nic} {'up' if self.is_up else 'off'}>"
