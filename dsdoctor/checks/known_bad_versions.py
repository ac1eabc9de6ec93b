"""Releases are installed together that are known not to work together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dsdoctor.checks.context import JobContext, value_of
from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import allows, versions
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.checks.tables import BadSet, BadSetJob, known_bad
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.jobs import dsconfig
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def known_bad_versions(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """Releases are installed together that are known to fail together, though their own metadata allows it.

    ## Why it matters
    A DeepSpeed that imports a name which torch has taken away, a pyarrow built for NumPy 1 beside NumPy 2, a Trainer
    that passes an argument which accelerate no longer takes: pip installs them without a word, and each costs the time
    until somebody recognises the message. Some have no message at all: ZeRO stage 2 of DeepSpeed 0.17.6 to 0.18.2
    computes wrong gradients.

    ## How to fix it
    Install one of the releases that are named, on all hosts. What matters only to certain jobs (ZeRO stages, gradient
    accumulation, going on from a checkpoint) is said only of those.

    ## Source
    One table, dsdoctor/checks/data/known_bad.yaml; each row names the issue or the source, and how it was confirmed.
    """
    there = {**versions(host), "python": host.python.version}
    for row in known_bad():
        severity = _severity(row, context, host) if _holds(row.packages, there) else None
        if severity is None:
            continue
        named = [f"{name} {there[name]}" for name in row.packages]
        together = f"{', '.join(named[:-1])} with {named[-1]}" if named[1:] else named[0]
        yield known_bad_versions.finding(
            f"{together}: {row.effect}",
            severity=severity,
            evidence=[
                Evidence(text=", ".join(named), source=host.name),
                *(_reasons(row.job, context) if context and row.job else ()),
                Evidence(text=f"{row.name}: {', '.join(row.sources)}"),
            ],
            fix=[
                Fix(f"Install {' and '.join(wanted)}", (on_host(entry, install(host, *wanted)),))
                for wanted in row.fixes
            ],
        )


def _holds(packages: Mapping[str, str], there: Mapping[str, str]) -> bool:
    """Whether all packages of a row are installed in its ranges."""
    return all(name in there and allows(wanted, there[name]) for name, wanted in packages.items())


def _severity(row: BadSet, context: JobContext | None, host: HostFacts) -> Severity | None:
    """How bad a row is for this job on this host; None where it does not matter."""
    if row.job is None:
        return row.severity
    if context is None:
        return row.jobless
    return row.severity if _matters(row.job, context, host) else None


def _matters(wanted: BadSetJob, context: JobContext, host: HostFacts) -> bool:
    config = context.deepspeed
    if (wanted.deepspeed or wanted.zero_stages or wanted.config) and config is None:
        return False
    if wanted.trainer and not any(map(context.uses_trainer, context.stages)):
        return False
    if wanted.zero_stages and _config(context, "zero_optimization.stage") not in wanted.zero_stages:
        return False
    if wanted.accumulates and not any(_accumulation(context)):
        return False
    if wanted.weights and not _has_weights(host, wanted.weights):
        return False
    if wanted.fsdp2 and not _uses_fsdp2(context):
        return False
    return all(_config(context, dotted) == value for dotted, value in wanted.config.items())


def _config(context: JobContext, dotted: str) -> Any:
    return dsconfig.get(context.deepspeed, dotted) if context.deepspeed else None


def _accumulation(context: JobContext) -> Iterator[Evidence]:
    """Where the job asks for more than one micro-batch a step; a number in the config must equal the argument."""
    for stage in context.stages:
        value = value_of(stage, "gradient_accumulation_steps")
        if str(value).isdecimal() and int(str(value)) > 1:
            yield context.cite(f"gradient_accumulation_steps: {value} (stage {stage.name})")
    config, key = context.deepspeed, "gradient_accumulation_steps"
    value = _config(context, key)
    if config and isinstance(value, int) and value > 1:
        yield Evidence(text=f"{key}: {value}", source=config.path, line=dsconfig.line_of(config, key))


def _uses_fsdp2(context: JobContext) -> bool:
    """Whether the job's accelerate config asks for FSDP 2."""
    config = context.job.accelerate
    if config is None or config.value.get("distributed_type") != "FSDP":
        return False
    settings = config.value.get("fsdp_config")
    return isinstance(settings, dict) and str(settings.get("fsdp_version")) == "2"


def _has_weights(host: HostFacts, form: str) -> bool:
    """Whether a model of the job has its weights in a form; where that was not looked at, it has not."""
    try:
        return any(path.model is not None and path.model.weights == form for path in host.inputs.paths)
    except FactUnavailable:
        return False


def _reasons(wanted: BadSetJob, context: JobContext) -> Iterator[Evidence]:
    """What of the job makes a row matter."""
    config = context.deepspeed
    if config is None:
        return
    dotted = [*(["zero_optimization.stage"] if wanted.zero_stages else []), *wanted.config]
    for key in dotted:
        yield Evidence(text=f"{key}: {_config(context, key)}", source=config.path, line=dsconfig.line_of(config, key))
    if wanted.deepspeed and not dotted:
        yield context.cite(f"deepspeed: {config.path}")
    if wanted.accumulates:
        yield from _accumulation(context)
