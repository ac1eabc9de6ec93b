"""How many ranks a job has: by the words of its script, else by the hosts that it is checked on."""

from __future__ import annotations

from dataclasses import dataclass

from dsdoctor.checks.context import JobContext
from dsdoctor.facts import FactUnavailable
from dsdoctor.jobs.job import StageSettings
from dsdoctor.jobs.script.model import Call
from dsdoctor.jobs.script.ranks import shape_of


@dataclass(frozen=True)
class Ranks:
    """The ranks by host, and in words where that is known from: `2 on each of 2 hosts`."""

    by_host: tuple[int, ...]
    because: str

    @property
    def total(self) -> int:
        """On all hosts together."""
        return sum(self.by_host)


def call_of(context: JobContext, stage: StageSettings) -> Call | None:
    """The call of the script that a stage was made of; None where the job is no script."""
    script = context.job.script
    return script.calls[stage.index - 1] if script is not None and stage.index <= len(script.calls) else None


def ranks_of(context: JobContext, stage: StageSettings) -> Ranks | None:
    """A stage's ranks; None where neither the script nor a hostfile nor GPUs tell."""
    call = call_of(context, stage)
    if call is not None:
        accelerate = context.job.accelerate.value if context.job.accelerate is not None else None
        hosts, each = shape_of(call, accelerate)
        if hosts is not None and each is not None:
            return Ranks((each,) * hosts, f"{each} on {'one host' if hosts == 1 else f'each of {hosts} hosts'}")
    members = tuple(context.cluster) if context.cluster is not None else ()
    if not members or not all(_is_meant(member.entry.line, member.facts) for member in members):
        return None
    if call is not None and call.option("--hostfile", "-H") is None and len(members) > 1:
        return None  # the script starts this host alone, the hosts of the check are others
    counts = tuple(member.entry.processes for member in members)
    told = ", ".join(f"{member.entry.processes} on {member.name}" for member in members[:4])
    return Ranks(counts, told + (f" and {len(members) - 4} more hosts" if len(members) > 4 else ""))


def _is_meant(line: int | None, facts: object) -> bool:
    """Whether a host's slots are the job's: a hostfile gives them, or the GPUs that it has."""
    if line is not None:
        return True
    try:
        return bool(facts is not None and facts.gpu.gpus)  # type: ignore[attr-defined]
    except FactUnavailable:
        return False
