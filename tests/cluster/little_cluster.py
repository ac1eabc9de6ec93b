"""A real little cluster on one machine: a head and hosts, each with its own network stack, NIC name, disk, process
table, hostname, /tmp, /dev/shm and sshd.

No container engine and no kernel module beyond veth, bridge, overlay and tmpfs. Nothing is put on the machine's own
network: the switch is a bridge in a namespace, no host has a default route. The machine's files are seen through an
overlay, so the working tree and its virtual environment are there at their own paths, and whatever a host writes stays
on that host. `/shared` is the same folder on all hosts: the cluster's network file system.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.cluster.footprint import Footprint, erase_leftovers
from tests.cluster.host import ClusterHost
from tests.cluster.machine import HostSpec, Machine
from tests.cluster.switch import NETWORK, Switch
from tests.cluster.system_files import SshKey, host_files, known_hosts, names_file

REPOSITORY = Path(__file__).resolve().parents[2]
HEAD = HostSpec("head", nic="eth0")
TWO_HOSTS = (HostSpec("node0", nic="bond0"), HostSpec("node1", nic="eno1"))


class LittleCluster:
    """A head and some hosts. Use it as a context manager: it is up inside, and gone afterwards, whatever happened."""

    def __init__(self, hosts: Sequence[HostSpec] = TWO_HOSTS, *, head: HostSpec = HEAD, keep: Iterable[Path] = ()):
        """Describe a cluster.

        Args:
            hosts: the hosts beside the head; node0 gets 10.77.0.10, and so on.
            head: the head, 10.77.0.1.
            keep: directories of the machine that every host sees though they lie below /tmp, /run or the home
                (overlays: what a host writes there stays on that host).
        """
        if len(hosts) > 245:
            raise ValueError(f"{len(hosts)} hosts: 10.77.0.0/24 has room for 245")
        self._specs = (head, *hosts)
        self._addresses = [f"{NETWORK}.1", *(f"{NETWORK}.{10 + index}" for index in range(len(hosts)))]
        self._shown = [str(path) for path in hidden_directories([REPOSITORY, sys.prefix, sys.base_prefix, *keep])]
        self._footprint: Footprint | None = None
        self._switch: Switch | None = None
        self._files: dict[str, dict[str, tuple[str, int]]] = {}
        self._by_name: dict[str, ClusterHost] = {}

    @property
    def head(self) -> ClusterHost:
        """The host that commands are given on."""
        return self._by_name[self._specs[0].name]

    @property
    def hosts(self) -> tuple[ClusterHost, ...]:
        """The hosts beside the head, in their order."""
        return tuple(self._by_name[spec.name] for spec in self._specs[1:])

    def __getitem__(self, name: str) -> ClusterHost:
        """The host of that name, the head included."""
        return self._by_name[name]

    def up(self) -> None:
        """Bring the cluster up; when that fails half-way, what was there of it is taken down again."""
        if self._footprint is not None:
            raise RuntimeError("the cluster is already up")
        erase_leftovers()
        try:
            self._footprint = Footprint.make()
            self._switch = Switch(self._footprint)
            keys = make_keys([spec.name for spec in self._specs])
            self._files = self._system_files(keys)
            for number, (spec, address) in enumerate(zip(self._specs, self._addresses, strict=True)):
                machine = Machine(spec, address, number, self._switch, self._footprint, self._shown)
                self._by_name[spec.name] = ClusterHost(machine, self._switch)
            self._install_and_boot(self._by_name.values())
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Take the cluster down: no process, mount, link, namespace or folder of it is left.

        Raises:
            StillRunningError: something did not go.
        """
        if self._footprint is None:
            return
        with ExitStack() as steps:  # last in, first out; every step is taken though another fails
            steps.callback(self._footprint.erase)
            if self._switch is not None:
                steps.callback(self._switch.close)
            for host in self._by_name.values():
                steps.callback(host.end_processes)
                steps.callback(host.poweroff)
        self._by_name.clear()
        self._footprint = self._switch = None

    def reset(self) -> None:
        """Put every host back to its first boot: new disks, fresh processes, whole cables, an empty /shared."""
        assert self._switch is not None
        for host in self._by_name.values():
            host.poweroff()
            host.end_processes()
            host.heal()
        self._switch.clear_shared()
        self._install_and_boot(self._by_name.values())

    def _install_and_boot(self, hosts: Iterable[ClusterHost]) -> None:
        assert self._switch is not None
        machines = [host.machine for host in hosts]
        for machine in machines:
            machine.install(self._files[machine.spec.name])
            machine.switch_on()
        for machine in machines:
            machine.wait_started()
        self._switch.plug_in([(machine.cables[0], machine.pid1) for machine in machines])
        for machine in machines:
            machine.wired()
        for machine in machines:
            machine.wait_ready()

    def _system_files(self, keys: dict[str, SshKey]) -> dict[str, dict[str, tuple[str, int]]]:
        addresses = {spec.name: address for spec, address in zip(self._specs, self._addresses, strict=True)}
        shared = (keys["user"], known_hosts(addresses, keys), names_file(addresses))
        return {spec.name: host_files(spec.name, keys[spec.name], *shared) for spec in self._specs}

    def __enter__(self) -> LittleCluster:
        """Bring it up."""
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Take it down."""
        self.down()


def make_keys(names: Sequence[str]) -> dict[str, SshKey]:
    """A new ssh key for every host and one for the user, made at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        making = [
            subprocess.Popen(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{name}", "-f", f"{folder}/{name}"]
            )
            for name in (*names, "user")
        ]
        failed = [process.args for process in making if process.wait() != 0]
        if failed:
            raise RuntimeError(f"ssh-keygen failed: {failed}")
        return {
            name: SshKey(Path(folder, name).read_text(), Path(folder, f"{name}.pub").read_text())
            for name in (*names, "user")
        }


def hidden_directories(wanted: Iterable[Path | str]) -> list[Path]:
    """Of the wanted directories those that an overlay of / would not show: on other mounts, below /tmp, in the home.

    Raises:
        ValueError: one is no directory, or its name has a character that mount options cannot carry.
    """
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    elsewhere = [Path(mount) for mount in mounts if mount != "/"] + [Path(p) for p in ("/tmp", "/run", "/root", "/dev")]
    hidden: list[Path] = []
    for path in sorted({Path(path).resolve() for path in wanted}):
        if not path.is_dir() or set(str(path)) & set(",:\\\n"):
            raise ValueError(
                f"cannot be shown inside a host: {path} (it must be a directory without , : \\ in its name)"
            )
        if not any(path.is_relative_to(place) for place in elsewhere):
            continue
        if not any(path.is_relative_to(parent) for parent in hidden):
            hidden.append(path)
    return hidden
