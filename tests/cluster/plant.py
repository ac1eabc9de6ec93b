"""Plants on a host what the tool is to find: the conditions of real failure reports. A reset takes them away again."""

from __future__ import annotations

import shlex
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tests.cluster.host import ClusterHost

SITE_PACKAGES = sysconfig.get_paths()["purelib"]
NCCL_FILE = "nvidia/nccl/lib/libnccl.so.2"
CLASSES = "/run/dsdoctor-test/class"

NCCL_SOURCE = """
const char version_text[] = "NCCL version {version}+cuda{cuda}";
int ncclGetVersion(int *version) {{ return *version = {code}, 0; }}
"""
MOUNT_CLASS = """
set -e
mountpoint -q /sys/class && exit
mkdir -p "$0/upper" "$0/work"
mount -t overlay overlay -o "lowerdir=/sys/class,upperdir=$0/upper,workdir=$0/work" /sys/class
"""


@cache
def nccl_library(version: str, cuda: str) -> bytes:
    """A libnccl.so.2 that has nothing of NCCL but its version, as text in its bytes and by ncclGetVersion.

    It is a real shared object, built by gcc (see `missing_for_fake_gpus`), since readers of the version look at
    sections of the file.
    """
    major, minor, patch = (int(part) for part in version.split("."))
    source = NCCL_SOURCE.format(version=version, cuda=cuda, code=major * 10000 + minor * 100 + patch)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "libnccl.so.2")
        flags = ["-shared", "-fPIC", "-Wl,-soname,libnccl.so.2", "-x", "c", "-"]
        subprocess.run(["gcc", "-o", target, *flags], input=source, text=True, check=True)
        return target.read_bytes()


def plant_nccl_wheel(host: ClusterHost, package: str, version: str, site_packages: str = SITE_PACKAGES) -> None:
    """Put the records of an NCCL wheel into an environment, not its file: what pip knows of it."""
    folder = f"{site_packages}/{package.replace('-', '_')}-{version}.dist-info"
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-manylinux1_x86_64\n",
        "INSTALLER": "pip\n",
    }
    record = [NCCL_FILE, *(f"{Path(folder).name}/{name}" for name in (*files, "RECORD"))]
    files["RECORD"] = "".join(f"{path},,\n" for path in record)
    for name, text in files.items():
        host.write(f"{folder}/{name}", text)


def plant_duplicate_nccl(host: ClusterHost, site_packages: str = SITE_PACKAGES) -> None:
    """Two wheels that own one libnccl.so.2: cu12 2.18.1 was installed first, cu11 2.14.3 wrote over its file."""
    plant_nccl_wheel(host, "nvidia-nccl-cu12", "2.18.1", site_packages)
    plant_nccl_wheel(host, "nvidia-nccl-cu11", "2.14.3", site_packages)
    host.write(f"{site_packages}/{NCCL_FILE}", nccl_library("2.14.3", "11.7"), mode=0o755)


def plant_environment(host: ClusterHost, variables: Mapping[str, str]) -> None:
    """Export variables the way users do, in ~/.bashrc: bash reads it for commands that come through ssh, too.

    (Debian, Ubuntu and Red Hat build bash so, SSH_SOURCE_BASHRC.) Later calls win over earlier ones.
    """
    lines = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    host.run(["sh", "-c", "cat >>/root/.bashrc"], given=lines)


def plant_loopback_name(host: ClusterHost) -> None:
    """Debian's default: the host's own name is 127.0.1.1 on itself, whatever its address is for others."""
    lines = [line for line in host.read("/etc/hosts").splitlines() if line.split()[1:] != [host.name]]
    host.write("/etc/hosts", "\n".join([lines[0], f"127.0.1.1 {host.name}", *lines[1:], ""]))


def plant_infiniband(host: ClusterHost, device: str = "mlx5_0", *, active: bool = True) -> None:
    """An InfiniBand device with one port as sysfs shows it; there is no fabric behind it. A reboot takes it away."""
    host.run(["sh", "-c", MOUNT_CLASS, CLASSES])
    port = f"/sys/class/infiniband/{device}/ports/1"
    host.write(f"{port}/state", "4: ACTIVE\n" if active else "1: DOWN\n")
    host.write(f"{port}/phys_state", "5: LinkUp\n" if active else "3: Disabled\n")
    host.write(f"{port}/rate", "100 Gb/sec (4X EDR)\n")
    host.write(f"{port}/link_layer", "InfiniBand\n")
