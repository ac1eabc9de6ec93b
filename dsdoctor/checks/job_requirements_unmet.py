"""A host does not have the packages that the job wants, or not in the wanted version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import applies, marker_environment, meets, requirement, told, versions
from dsdoctor.checks.job_pins_other_nccl import fights_torch
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.jobs.requirements import JobRequirement
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@dataclass(frozen=True)
class _Unmet:
    asked: JobRequirement
    wanted: Requirement
    installed: str | None


@check(severity=Severity.WARNING, since="0.1")
def job_requirements_unmet(host: HostFacts, entry: HostEntry, context: JobContext) -> Iterator[Finding | Skipped]:
    """A host lacks a package that the job wants, or has it in another version than the job is pinned to.

    ## Why it matters
    Pins are versions that were found to fit together: a numpy below 2, a datasets with its fsspec, the transformers
    that a trainer was written for (`Argument synced_gpus is not a valid argument of GenerationConfig`). One host that
    was set up by hand stops the whole job. What is not installed at all is an error where the job file asks for it,
    and so are torch and DeepSpeed where the job is started with them.

    ## How to fix it
    Install the job's requirements on that host, or correct the pins. `requirements:` in the job file names a
    requirements file or the lines themselves; without it a requirements.txt beside the code is read.

    ## Source
    The job file, and the metadata of what is installed; compared as pip does, with markers for the host's own Python.
    """
    there, markers = versions(host), marker_environment(host)
    found = list(_unmet(host, context, there, markers))
    absent = [one for one in found if one.installed is None and one.asked.declared]
    others = [one for one in found if one not in absent]
    for severity, ones in ((Severity.ERROR, absent), (Severity.WARNING, others)):
        if ones:
            words = [str(one.wanted).partition(";")[0].strip() for one in ones]
            yield job_requirements_unmet.finding(
                f"the job wants {told((_shown(one.wanted), one.installed) for one in ones)}",
                severity=severity,
                evidence=[Evidence(text=one.asked.text, source=one.asked.source, line=one.asked.line) for one in ones],
                fix=[Fix("Install what the job wants", (on_host(entry, install(host, *words)),))],
            )


def _unmet(
    host: HostFacts, context: JobContext, there: Mapping[str, str], markers: Mapping[str, str]
) -> Iterator[_Unmet]:
    seen: set[str] = set()
    for asked in (*context.job.requirements, *_implied(host, context)):
        wanted = requirement(asked.text)
        if wanted is None or not applies(wanted, markers):
            continue
        name = canonicalize_name(wanted.name)
        met, installed = meets(wanted, there)
        if met or name in seen or (name == "ninja" and _has_ninja(host)):
            continue
        if fights_torch(name, host) is not None:
            continue  # job-pins-other-nccl: it must not be installed
        seen.add(name)
        yield _Unmet(asked, wanted, installed)


def _implied(host: HostFacts, context: JobContext) -> Iterator[JobRequirement]:
    """What the way a job is started needs, whatever its files say."""
    try:
        has_torch = host.torch.version is not None
    except FactUnavailable:
        has_torch = True  # it may be there; the packages alone cannot tell for a torch built in place
    engine = context.job.job.engine
    if not has_torch and engine in ("torchrun", "deepspeed"):  # others may run what needs no torch
        yield JobRequirement("torch", context.job.source)
    if (context.deepspeed is not None or engine == "deepspeed") and not _has_deepspeed(host):
        yield JobRequirement("deepspeed", context.job.source)


def _has_deepspeed(host: HostFacts) -> bool:
    """A source tree on PYTHONPATH counts as well."""
    try:
        return host.deepspeed.version is not None
    except FactUnavailable:
        return False


def _has_ninja(host: HostFacts) -> bool:
    try:
        return host.compilers.tools.get("ninja") is not None
    except FactUnavailable:
        return False


def _shown(wanted: Requirement) -> str:
    return f"{canonicalize_name(wanted.name)}{wanted.specifier}"
