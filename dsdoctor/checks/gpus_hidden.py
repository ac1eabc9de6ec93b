"""CUDA_VISIBLE_DEVICES hides GPUs that the job's ranks want."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import job_gpus, variables
from dsdoctor.checks.remedy import on_host
from dsdoctor.checks.visible_devices import first_stranger, visible
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_NAME = "CUDA_VISIBLE_DEVICES"


@check(severity=Severity.ERROR, since="0.1")
def gpus_hidden(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """CUDA_VISIBLE_DEVICES is set on the host, or by the job, and shows fewer GPUs than ranks are to run there.

    ## Why it matters
    The rank whose GPU is hidden stops with "invalid device ordinal", or two ranks take one card; the other hosts wait.
    A number that names no card is worse than a missing one: CUDA ignores it and everything behind it, without a word.

    ## How to fix it
    Unset it where it is set - often in ~/.bashrc, for an experiment of long ago - and pick cards with --include or
    slots=.

    ## Source
    The environment of a non-interactive session; CUDA's and torch's reading of the variable. DeepSpeed's launcher and
    `dsdoctor launch` with fewer slots than GPUs set it themselves: then it is a warning.
    """
    settings = variables(host, entry, context)
    if _NAME not in settings or not job_gpus(host, entry):
        return
    value = settings[_NAME]
    cards = host.gpu.gpus
    if value.startswith("GPU-") and not all(gpu.uuid for gpu in cards):
        raise FactUnavailable("gpu", "not every card says its UUID")
    seen = visible(value, [gpu.uuid for gpu in cards])
    if seen is None:
        return  # instances of divided cards: mig-enabled
    stranger = first_stranger(value, [gpu.uuid for gpu in cards])
    if len(seen) >= entry.processes and stranger is None:
        return
    ranks = f"{entry.processes} rank{' is' if entry.processes == 1 else 's are'} to run there"
    reason = f"{stranger} names no GPU, so it and what follows is ignored; " if stranger else ""
    shown = f"shows {len(seen)} of {len(cards)} GPUs"
    replaced = len(seen) >= entry.processes or _replaced(host, entry, context)
    yield gpus_hidden.finding(
        f"{_NAME}={value}: {reason}it {shown}, and {ranks}",
        severity=Severity.WARNING if replaced else None,
        evidence=[
            Evidence(text=f"{_NAME}={value}", source=_source(host, context)),
            *(Evidence(text=f"GPU {gpu.index}: {gpu.name} {gpu.uuid}", source=host.name) for gpu in cards),
        ],
        fix=_fixes(host, entry, context),
    )


def _replaced(host: HostFacts, entry: HostEntry, context: JobContext | None) -> bool:
    """Whether nothing may come of it: a plan sets the variable itself for a part of the cards, or nothing is planned.

    Without hostfile and job the number of ranks is only what this machine would have.
    """
    if context is None and entry.local and entry.line is None:
        return True
    if context is not None and (context.planned or _NAME in context.variables(entry, host)):
        return False
    return entry.devices is not None or entry.slots < len(host.gpu.gpus)


def _source(host: HostFacts, context: JobContext | None) -> str:
    from_job = context is not None and not context.planned and _NAME not in host.environment.variables
    return context.job.source if context is not None and from_job else host.name


def _fixes(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Fix]:
    if context is not None and not context.planned and _NAME in context.job.env:
        yield Fix(f"Take {_NAME} out of env: in {context.job.source}; slots= and --include pick the cards")
        return
    files = [file.path for file in host.environment.shell_files if _NAME in file.variables]
    where = f"in {', '.join(files)}" if files else "in the shell's start files or the session's settings"
    command = on_host(entry, f"grep -n {_NAME} ~/.bashrc ~/.profile ~/.bash_profile /etc/environment /etc/profile.d/*")
    yield Fix(f"Take the line out {where}", () if files else (command,))
