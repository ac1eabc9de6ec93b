"""Something else is in the memory of a GPU that the job will use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container, job_gpus
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, Gpu, GpuProcess, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# A process with less is a desktop's, a monitor's, or a CUDA context that was just made (some 300 to 500 MiB are usual
# for one). A display server and its windows may take 2 GiB. Both are rules of thumb.
_CONTEXT_MIB, _UNNAMED_MIB, _DISPLAY_MIB = 256, 1024, 2048
_FULL = 0.9  # of a card: what is left does not hold a CUDA context, NCCL's buffers and a model


@check(severity=Severity.WARNING, since="0.1")
def gpu_busy(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """Another program is in the memory of a GPU that the job will use.

    ## Why it matters
    The rank runs out of memory at a batch size that fits on the other cards, or it waits its turn and every other rank
    waits for it. Often it is what an earlier run left behind when its launcher was killed.

    ## How to fix it
    End your own leftovers; ask the owner of the others, or take another card.

    ## Source
    NVML: compute processes, memory in use without what the driver reserves. Programs of a display, and others below
    256 MiB, are not counted.
    """
    for gpu in job_gpus(host, entry):
        named = [process for process in gpu.processes if _counts(process)]
        used = gpu.memory_used_mib or 0
        limit = max(_DISPLAY_MIB, (gpu.memory_mib or 0) // 5) if gpu.display else _UNNAMED_MIB
        limit = max(limit, (gpu.memory_mib or 0) // 20)
        if not named and used <= limit:
            continue
        full = bool(gpu.memory_mib) and used >= _FULL * (gpu.memory_mib or 0)
        of = f"{used} of {gpu.memory_mib} MiB" if gpu.memory_mib else f"{used} MiB"
        yield gpu_busy.finding(
            f"GPU {gpu.index} ({gpu.name}) is in use by {_who(named, host)}: {of} are taken, none is wanted",
            severity=Severity.ERROR if full else None,
            evidence=[
                Evidence(text=f"memory in use on GPU {gpu.index}: {of}", source=host.name),
                *(Evidence(text=_shown(process), source=host.name) for process in named),
            ],
            fix=_fixes(host, entry, gpu, named),
        )


def _counts(process: GpuProcess) -> bool:
    return process.memory_mib is None or process.memory_mib >= _CONTEXT_MIB


def _who(processes: list[GpuProcess], host: HostFacts) -> str:
    if not processes:
        return "something that is not seen from here"
    mine = sum(_ours(process, host) for process in processes)
    pids = ", ".join(str(process.pid) for process in processes)
    owner = " (your own)" if mine == len(processes) else f" ({mine} of them your own)" if mine else ""
    return f"process {pids}{owner}"


def _ours(process: GpuProcess, host: HostFacts) -> bool:
    try:
        return bool(process.user) and process.user == host.os.user
    except FactUnavailable:
        return False


def _shown(process: GpuProcess) -> str:
    memory = "" if process.memory_mib is None else f", {process.memory_mib} MiB"
    age = "" if process.age_seconds is None else f", started {_span(process.age_seconds)} ago"
    owner = process.user or "a user that is not seen from here"
    return f"process {process.pid} {process.command or '(no name)'} of {owner}{memory}{age}"


def _span(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} seconds"


def _fixes(host: HostFacts, entry: HostEntry, gpu: Gpu, processes: Iterable[GpuProcess]) -> Iterator[Fix]:
    own = " ".join(str(process.pid) for process in processes if _ours(process, host))
    others = sorted({process.user for process in processes if process.user and not _ours(process, host)})
    if own:
        shown = on_host(entry, f"ps -o pid,etime,args -p {own.replace(' ', ',')}")
        yield Fix("See what they are, and end them if they are left over", (shown, on_host(entry, f"kill {own}")))
    if others:
        yield Fix(f"Ask {', '.join(others)}, or take other cards")
    if not own and not others:
        where = "outside this container" if container(host) else "as root"
        yield Fix(f"Look for the processes {where}", (on_host(entry, "nvidia-smi"),))
    yield Fix(f"Leave the card out: --exclude {entry.name}:{gpu.index}")
