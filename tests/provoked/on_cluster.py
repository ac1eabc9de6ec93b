"""Runs a failure on the little cluster: its script on the head, a folder that all hosts share, and what befalls."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import IO

from tests.cluster.host import ClusterHost
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.plant import plant_environment
from tests.provoked.failure import Befalls, Failure
from tests.provoked.sandbox import NotProvokedError, Outcome, environment, lay_out, sandbox_folder

JOB = "/shared/job"


def provoke_on(cluster: LittleCluster, failure: Failure) -> Outcome:
    """Let a failure happen on a cluster, which is the caller's to reset afterwards.

    Raises:
        NotProvokedError: it took longer than its limit; its script has been ended.
    """
    variables = environment("/root", "/tmp")
    with sandbox_folder() as folder:
        lay_out(failure, folder / "job")
        for path in (folder / "job").iterdir():
            cluster.head.write(f"{JOB}/{path.name}", path.read_bytes())
    for host in cluster.hosts:
        plant_environment(host, {"PATH": variables["PATH"], "PYTHONDONTWRITEBYTECODE": "1"})
    start = time.monotonic()
    process = cluster.head.popen(["bash", "-c", failure.run], env=variables, cwd=JOB)
    assert process.stdout is not None
    lines: list[str] = []
    reader = threading.Thread(target=_read, args=(process.stdout, lines, cluster, failure.befalls), daemon=True)
    reader.start()
    try:
        code = process.wait(failure.limit)
        reader.join(5)
    except subprocess.TimeoutExpired:
        raise NotProvokedError(f"{failure.name}: not at its end after {failure.limit:g} s:\n{''.join(lines)}") from None
    finally:
        process.end()
    return Outcome("".join(lines).encode(), code, time.monotonic() - start, Path(JOB))


def _read(stream: IO[str], lines: list[str], cluster: LittleCluster, event: Befalls | None) -> None:
    """Keep what is printed; when the text that an event waits for is there, let it happen."""
    for line in stream:
        lines.append(line)
        if event is not None and event.after in line:
            _befall(cluster[event.host], event)
            event = None


def _befall(host: ClusterHost, event: Befalls) -> None:
    {"poweroff": host.poweroff, "mute": host.mute, "freeze": host.freeze}[event.what]()
