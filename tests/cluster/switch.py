"""The switch of a little cluster: a bridge in a network namespace of its own, and the disks in a mount namespace.

Both belong to one small process whose standard input is a pipe from the tests: when the tests' process ends, however
it ends, so do the switch, every link and every disk.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.footprint import Footprint

NETWORK = "10.77.0"  # inside the cluster's own namespaces only; the machine never sees or routes it
PREFIX_LENGTH = 24

HOLD = """
set -e
echo $$ >"$0/cgroup.procs"
mount -t tmpfs -o mode=755,size=4g tmpfs "$1"
mkdir "$1/shared"
ip -batch - <<LINKS
link set lo up
link add switch type bridge forward_delay 0
link set switch up
LINKS
echo ready
read -r _
"""


@dataclass(frozen=True)
class Cable:
    """A link from a port of the switch to a NIC of a host."""

    port: str
    nic: str
    mac: str


class Switch:
    """The bridge and the disks of one cluster."""

    def __init__(self, footprint: Footprint) -> None:
        self.folder = footprint.folder
        group = footprint.group / "switch"
        group.mkdir()
        self._log = (footprint.folder / "switch.log").open("w", encoding="utf-8")
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", HOLD, str(group), str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests: they take the cluster down in order
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            self.close()
            log = (footprint.folder / "switch.log").read_text(encoding="utf-8")
            raise RuntimeError(f"the switch did not start (exit code {self._holder.returncode}): {log}")

    @property
    def disks(self) -> Path:
        """The folder of the disks, as it is reached from outside their mount namespace."""
        return Path(f"/proc/{self._holder.pid}/root{self.folder}")

    @property
    def enter(self) -> list[str]:
        """What to put before a command to run it beside the switch (its mount namespace, not its network)."""
        return ["nsenter", "-m", "-t", str(self._holder.pid), "--"]

    def new_disk(self, name: str, mib: int) -> None:
        """Give a host an empty disk: a tmpfs of its own. An older disk of that name is thrown away."""
        folder = self.folder / name
        script = 'mkdir -p "$1"; ! mountpoint -q "$1" || umount "$1"; mount -t tmpfs -o "mode=755,size=$2m" tmpfs "$1"'
        self._run([*self.enter, "sh", "-ec", script, "new-disk", str(folder), str(mib)])

    def resize_disk(self, name: str, kib: int) -> None:
        """Change how much a disk holds; refused by the kernel below what it holds now."""
        self._run([*self.enter, "mount", "-o", f"remount,size={kib}k", str(self.folder / name)])

    def clear_shared(self) -> None:
        """Empty the folder that is /shared on every host."""
        script = 'rm -rf "$1" && mkdir "$1"'
        self._run([*self.enter, "sh", "-ec", script, "clear", str(self.folder / "shared")])

    def plug_in(self, cables: Sequence[tuple[Cable, int]]) -> None:
        """Lay cables to hosts, each given with a process id in the host's network namespace."""
        lines = []
        for cable, pid in cables:
            lines += [
                f"link add {cable.port} type veth peer name {cable.nic} address {cable.mac} netns {pid}",
                f"link set {cable.port} master switch up",
            ]
        self._links(*lines)

    def unplug(self, port: str) -> None:
        """Take a cable away for good; nothing happens when it went with its host."""
        self._run([*self._network, "ip", "link", "delete", port], check=False)

    def set_port(self, port: str, up: bool) -> None:
        """Switch a port off (the host loses its carrier) or on."""
        self._links(f"link set {port} {'up' if up else 'down'}")

    def drop_packets(self, port: str) -> None:
        """Drop every IP packet from and to a port; the carrier stays and ARP is answered: a black hole."""
        rules = "\n".join(f'{way} "{port}" ether type {{ ip, ip6 }} drop' for way in ("iifname", "oifname"))
        table = f"table bridge {port} {{\nchain forward {{\ntype filter hook forward priority 0\n{rules}\n}}\n}}\n"
        self._run([*self._network, "nft", "-f", "-"], given=table)

    def pass_packets(self, port: str) -> None:
        """Undo :meth:`drop_packets`, whether it was called or not."""
        table = f"table bridge {port}"
        self._run([*self._network, "nft", "-f", "-"], given=f"add {table}\ndelete {table}\n")

    def close(self) -> None:
        """End the holder; links and disks go with it once the hosts are gone."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._log.close()
        try:
            self._holder.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._holder.kill()
            self._holder.wait()

    @property
    def _network(self) -> list[str]:
        return ["nsenter", "-n", "-t", str(self._holder.pid), "--"]

    def _links(self, *lines: str) -> None:
        self._run([*self._network, "ip", "-batch", "-"], given="".join(f"{line}\n" for line in lines))

    def _run(self, argv: Sequence[str], given: str = "", check: bool = True) -> None:
        result = subprocess.run(argv, input=given, capture_output=True, text=True, timeout=30, check=False)
        if check and result.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)} <<< {given!r}: {result.stderr.strip()}")
