"""What every rank gets for the launcher's own sake: by what its processes are known, and how a hang is looked into."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from dsdoctor.plan.model import MARK, EnvVar, HostPlan

PIPE = "TORCH_NCCL_DEBUG_INFO_PIPE_FILE"
# torch 2.13 reads both names, older ones the second alone (facts of the variable of the buffer's size, too).
DUMPS = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")


def with_own_variables(host: HostPlan, env: Mapping[str, EnvVar]) -> dict[str, EnvVar]:
    """A host's environment with the variables of the run itself; what a person has set there stays."""
    own = {variable.name: variable for variable in (*_mark(host), *_recorder(host, env))}
    return {**env, **own}


def _mark(host: HostPlan) -> Iterator[EnvVar]:
    because = "a process that outlives its guardian is known by it, and ended by dsdoctor stop and by the next launch"
    yield EnvVar(MARK, host.run_dir, because)


def _recorder(host: HostPlan, env: Mapping[str, EnvVar]) -> Iterator[EnvVar]:
    """Where NCCL's flight recorder is written, and the pipe by which a run that stands still is asked for it.

    Without the first torch writes all runs of a user into one file a rank, in ~/.cache/torch. torch makes the pipe as
    its name with the rank and `.pipe` behind it, and ends a training where that cannot be done (DumpPipe in
    ProcessGroupNCCL.hpp, torch 2.13): hence in /tmp, where every rank may make one, whatever file system the run's
    directory is on; and with a name that no other user's run has.
    """
    if "TORCH_NCCL_DUMP_ON_TIMEOUT" not in env:
        return
    if not any(name in env for name in DUMPS):
        name = DUMPS[0] if "TORCH_FR_BUFFER_SIZE" in env else DUMPS[1]
        yield EnvVar(name, f"{host.run_dir}/recorder/rank", "each run's flight recorder is kept with the run")
    if PIPE not in env:
        run = hashlib.sha256(host.run_dir.encode("utf-8", "surrogateescape")).hexdigest()[:12]
        because = "when the run stands still, the flight recorder is asked for through it, and nothing is ended"
        yield EnvVar(PIPE, f"/tmp/dsdoctor-{run}-rank", because)  # noqa: S108 - see above
