"""Bringing a stage's outputs back to the head: what is small; big files stay where they are, and that is told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dsdoctor.hosts.transport import Transport, TransportError
from dsdoctor.plan.model import HostPlan
from dsdoctor.run.sync.errors import SyncError
from dsdoctor.run.sync.rsync import Rsync, explain, shell_argv, target, unescaped

_TOO_BIG = re.compile(rb"^(.*) is over max-size$", re.MULTILINE)


@dataclass(frozen=True)
class Fetched:
    """What came of it: `problem` says what went wrong, `left` names the files that were too big."""

    problem: str | None = None
    left: tuple[str, ...] = ()

    def sentence(self, host: str, folder: str) -> str | None:
        """What stays on the host and where, for a person; None when all is here."""
        if self.problem is not None:
            return f"the outputs stay in {folder} on {host}: {self.problem}"
        if not self.left:
            return None
        more = f" and {len(self.left) - 3} more" if len(self.left) > 3 else ""
        return f"too big to be fetched, they stay in {folder} on {host}: {', '.join(self.left[:3])}{more}"


def fetch(source: HostPlan, transport: Transport, remote: str, local: Path, max_size: str = "50m") -> Fetched:
    """Bring a folder's files of at most `max_size` each (rsync(1), --max-size) back to the head."""
    try:
        rsync = Rsync(timeout=600, silence=60)
        local.mkdir(parents=True, exist_ok=True)
        argv = [*shell_argv(rsync.program, transport), "--timeout=60", f"--max-size={max_size}", "--info=skip1"]
        end = f"{target(transport)}:{remote.rstrip('/')}/"
    except (OSError, SyncError) as error:
        return Fetched(str(error))
    except TransportError as error:
        return Fetched(error.detail)
    done = rsync.run([*argv, "--", end, f"{local}/"])
    if done.code != 0:
        return Fetched(explain(done, remote, source.name, 60))
    return Fetched(left=tuple(unescaped(name) for name in _TOO_BIG.findall(done.said)))
