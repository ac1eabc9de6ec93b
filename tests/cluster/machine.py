"""A host's hardware, so to say: its disk, its cable, its power. PID 1 and the boot."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.footprint import Footprint, kill_group
from tests.cluster.switch import PREFIX_LENGTH, Cable, Switch

INIT = Path(__file__).with_name("init.sh")
BOOT_SECONDS = 20.0
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": "/bin/bash",
    "LANG": "C.UTF-8",
}


class HostDownError(RuntimeError):
    """The host is powered off, or it did not boot; then the message has its boot log."""


@dataclass(frozen=True)
class HostSpec:
    """How a host is to look. Sizes in MiB are limits, not reservations: disks and /dev/shm are tmpfs."""

    name: str
    nic: str = "eth0"
    disk_mib: int = 4096
    shm_mib: int = 8192
    files: Mapping[str, str] = field(default_factory=dict)  # absolute path -> text, there from the first boot on


class Machine:
    """One host's disk, cable and PID 1. A boot has three steps, so that several hosts boot at the same time."""

    def __init__(
        self, spec: HostSpec, address: str, number: int, switch: Switch, footprint: Footprint, shown: Sequence[str]
    ) -> None:
        self.spec = spec
        self.address = address
        self.group = footprint.group / spec.name
        self.cables = [Cable(f"port{number}", spec.nic, _mac(number, 0))]
        self._number = number
        self._switch = switch
        self._shown = tuple(shown)
        self._log = footprint.folder / f"{spec.name}.boot.log"
        self._init: subprocess.Popen[str] | None = None
        self._pid1: int | None = None
        self.group.mkdir()

    @property
    def is_on(self) -> bool:
        """Whether PID 1 runs."""
        return self._pid1 is not None and self._init is not None and self._init.poll() is None

    @property
    def pid1(self) -> int:
        """The process id, outside, of the host's PID 1.

        Raises:
            HostDownError: the host is powered off.
        """
        if not self.is_on or self._pid1 is None:
            raise HostDownError(f"{self.spec.name} is powered off")
        return self._pid1

    def install(self, files: Mapping[str, tuple[str, int]]) -> None:
        """Give the host a new disk with these files (path -> text and mode) on it. It must be powered off."""
        self._must_be_off()
        self._switch.new_disk(self.spec.name, self.spec.disk_mib)
        upper = self._switch.disks / self.spec.name / "upper"
        upper.mkdir()
        home = upper / "root"
        home.mkdir(mode=0o700)
        os.setxattr(home, "trusted.overlay.opaque", b"y")  # nothing of the machine's own home: keys, shell start-up
        if Path("/.dockerenv").exists():  # the machine may be a container; the host is not to look like one
            os.mknod(upper / ".dockerenv", stat.S_IFCHR, os.makedev(0, 0))  # how an overlay says "deleted"
        given = {path: (text, 0o644) for path, text in self.spec.files.items()}
        for path, (text, mode) in {**files, **given}.items():
            below = Path(path).parent.resolve() / Path(path).name  # /lib is a link to /usr/lib: it must stay one
            target = upper / str(below).lstrip("/")
            _make_parents(upper, target.parent)
            target.write_text(text, encoding="utf-8")
            target.chmod(mode)

    def switch_on(self) -> None:
        """Start PID 1, which waits for its cable: the first step of a boot, with :meth:`wait_started`."""
        self._must_be_off()
        disk, shared = (str(self._switch.folder / name) for name in (self.spec.name, "shared"))
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child"]
        argv = [
            *["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(self.group / "cgroup.procs")],
            *[*self._switch.enter, "unshare", *namespaces, "--propagation", "private", "bash", str(INIT)],
            *[self.spec.name, disk, shared, str(self.spec.shm_mib), self.spec.nic],
            *[f"{self.address}/{PREFIX_LENGTH}", *self._shown],
        ]
        pipe = subprocess.PIPE
        with self._log.open("w", encoding="utf-8") as log:
            self._init = subprocess.Popen(
                argv, stdin=pipe, stdout=pipe, stderr=log, env=ENVIRONMENT, text=True, start_new_session=True
            )

    def wait_started(self) -> None:
        """Wait for PID 1's process id; the network namespace is there then.

        Raises:
            HostDownError: it did not start.
        """
        self._pid1 = int(self._expect("pid1").split()[1])

    def wired(self) -> None:
        """Tell PID 1 that its cable has been laid: the second step, after :meth:`Switch.plug_in`."""
        assert self._init is not None
        assert self._init.stdin is not None
        self._init.stdin.write("wired\n")
        self._init.stdin.flush()

    def wait_ready(self) -> None:
        """Wait until sshd listens: the third step.

        Raises:
            HostDownError: it did not come up in time; the message has the boot log.
        """
        self._expect("ready")

    def power_off(self) -> None:
        """Take the power away: the cable first, so that no FIN or RST gets out, then every process at once."""
        if self._init is None:
            return
        with contextlib.suppress(RuntimeError):
            self._switch.set_port(self.cables[0].port, up=False)
        if self.is_on:
            # PID 1 takes its namespace with it, and its parent outside is left to reap it: no zombie stays behind on
            # machines whose own init does not reap. A frozen process dies of SIGKILL, but a frozen parent cannot wait.
            os.kill(self.pid1, signal.SIGKILL)
            self.set_frozen(False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._init.wait(timeout=5)
        kill_group(self.group, timeout=10)
        for stream in (self._init.stdin, self._init.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._init.wait(timeout=10)
        for cable in self.cables:
            self._switch.unplug(cable.port)
        del self.cables[1:]
        self._init = self._pid1 = None

    def set_frozen(self, frozen: bool) -> None:
        """Stop or continue every process of the host.

        Raises:
            RuntimeError: the kernel did not do it within 5 s.
        """
        (self.group / "cgroup.freeze").write_text("1" if frozen else "0")
        deadline = time.monotonic() + 5
        while f"frozen {int(frozen)}" not in (self.group / "cgroup.events").read_text(encoding="utf-8"):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.spec.name}: not {'frozen' if frozen else 'thawed'} within 5 s")
            time.sleep(0.002)

    def new_cable(self, nic: str) -> Cable:
        """One more cable for the host, named after the NIC at its end. It is not laid yet."""
        index = len(self.cables)
        self.cables.append(Cable(f"{self.cables[0].port}n{index}", nic, _mac(self._number, index)))
        return self.cables[-1]

    def _must_be_off(self) -> None:
        if self._init is not None:
            raise RuntimeError(f"{self.spec.name} is on: power it off first")

    def _expect(self, word: str) -> str:
        """The next line from PID 1, which must start with `word`."""
        assert self._init is not None
        assert self._init.stdout is not None
        readable, _, _ = select.select([self._init.stdout], [], [], BOOT_SECONDS)
        line = self._init.stdout.readline() if readable else ""
        if line.startswith(word):
            return line
        what = f"PID 1 ended before {word!r}" if readable else f"no {word!r} from PID 1 after {BOOT_SECONDS:g} s"
        log = self._log.read_text(encoding="utf-8", errors="replace")
        raise HostDownError(f"{self.spec.name} did not boot: {what}. Boot log:\n{log}")


def _mac(number: int, index: int) -> str:
    """A locally administered address that stays the same over a reboot, so that no neighbour remembers a wrong one."""
    return f"02:77:00:{index & 0xFF:02x}:{number >> 8 & 0xFF:02x}:{number & 0xFF:02x}"


def _make_parents(upper: Path, folder: Path) -> None:
    """Make a folder in the writable layer with the mode that it has on the machine: where both exist, this one wins."""
    for part in reversed([folder, *folder.parents]):
        if not part.is_relative_to(upper) or part.exists():
            continue
        part.mkdir()
        below = Path("/") / part.relative_to(upper)
        if below.is_dir():
            shutil.copymode(below, part)
