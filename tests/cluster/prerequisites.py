"""What the little cluster needs of the machine, and what happens to the tests when it is not there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache

import pytest

from tests.cluster.footprint import cgroup2_root

REQUIRE = "DSDOCTOR_REQUIRE_CLUSTER"

PACKAGES = {  # program -> the Debian package that has it
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "rsync": "rsync",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "/usr/sbin/sshd": "openssh-server",
    "unshare": "util-linux",
}

TRY_NAMESPACES = """
set -e
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
ip link add switch type bridge
ip link add port type veth peer name nic
"""


@cache
def missing_for_cluster() -> str:
    """Why the little cluster cannot be here, or an empty text."""
    if not sys.platform.startswith("linux"):
        return f"the little cluster needs Linux, this is {sys.platform}"
    if os.geteuid() != 0:
        return "the little cluster needs root (namespaces, mounts)"
    packages = sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None})
    if packages:
        return f"the little cluster needs the packages {' '.join(packages)}"
    try:
        trial = cgroup2_root() / f"dsdoctor-trial-{os.getpid()}"
        trial.mkdir()
        complete = (trial / "cgroup.kill").exists() and (trial / "cgroup.freeze").exists()
        trial.rmdir()
    except OSError as error:
        return f"the little cluster needs control groups: {error}"
    if not complete:
        return "the little cluster needs a kernel from 5.14 on (cgroup.kill)"
    tried = subprocess.run(
        ["unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork", "sh", "-c", TRY_NAMESPACES],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if tried.returncode != 0:
        return f"the little cluster needs namespaces, tmpfs, overlay, bridge and veth: {tried.stderr.strip()}"
    return ""


def skip_or_fail(reason: str) -> None:
    """Skip the test that asks when there is a reason; fail it where DSDOCTOR_REQUIRE_CLUSTER says it must run."""
    if not reason:
        return
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{reason} (and {REQUIRE}=1 does not let it be skipped)", pytrace=False)
    pytest.skip(reason)
