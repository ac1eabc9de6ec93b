"""Where failures happen: most in a sandbox, those of several hosts on the little cluster; and what they need for it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from tests.cluster.little_cluster import LittleCluster
from tests.cluster.prerequisites import missing_for_cluster
from tests.provoked.failure import Failure
from tests.provoked.memory_group import missing_for_memory_group
from tests.provoked.on_cluster import provoke_on
from tests.provoked.sandbox import Outcome, Provocation, enter, sandbox_folder

PROGRAMS = ("bash", "env", "ip", "setpriv", "unshare")


def happen(failure: Failure, cluster: LittleCluster | None = None) -> Outcome:
    """Let a failure happen, on the given cluster (to be reset afterwards) or on one of its own.

    Raises:
        NotProvokedError: it took longer than its limit.
    """
    if not failure.everywhere:
        return Provocation(failure).run()
    if cluster is not None:
        return provoke_on(cluster, failure)
    with LittleCluster() as own:
        return provoke_on(own, failure)


def missing_for(failure: Failure) -> str:
    """Why a failure cannot be provoked here, or an empty text."""
    ground = missing_for_cluster if failure.everywhere else missing_for_sandbox
    return next(filter(None, (ask() for ask in (ground, *(NEEDS[need] for need in failure.needs)))), "")


@cache
def missing_for_sandbox() -> str:
    """Why no sandbox can be here, or an empty text."""
    if not sys.platform.startswith("linux"):
        return f"the sandbox needs Linux, this is {sys.platform}"
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    if lacking:
        return f"the sandbox needs the programs {' '.join(lacking)} (Debian: util-linux, iproute2)"
    with sandbox_folder() as folder:
        tried = subprocess.run([*enter(folder, "1m"), "true"], capture_output=True, text=True, timeout=30, check=False)
    if tried.returncode != 0:
        return f"the sandbox needs namespaces, tmpfs and overlay: {tried.stderr.strip()}"
    return ""


def _root() -> str:
    return "" if os.geteuid() == 0 else "this failure needs root"


def _torch_without_cuda() -> str:
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        return "this failure needs torch"
    version = Path(found.origin).with_name("version.py").read_text(encoding="utf-8")
    return "" if re.search(r"^cuda\b.*= None$", version, re.MULTILINE) else "this failure needs a torch without CUDA"


def _program(name: str, package: str) -> str:
    return "" if shutil.which(name) else f"this failure needs {name} (Debian: {package})"


NEEDS: dict[str, Callable[[], str]] = {
    "root": _root,
    "memory cgroup": missing_for_memory_group,
    "torch without CUDA": _torch_without_cuda,
    "g++": partial(_program, "g++", "g++"),
    "nft": partial(_program, "nft", "nftables"),
    "pdsh": partial(_program, "pdsh", "pdsh"),
}
