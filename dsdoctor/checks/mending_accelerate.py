"""Mended copies of accelerate's YAML: what it says a second time beside the DeepSpeed config that it names.

accelerate stops at such a key. It is taken out, with its line, where the DeepSpeed config says the same; where the two
differ, which of them was meant is not known, and nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from dsdoctor import yamlfile
from dsdoctor.checks.accelerate_settings_ignored import named_twice
from dsdoctor.checks.certain import Proposal
from dsdoctor.checks.context import JobContext, is_true
from dsdoctor.checks.engine import Check, discover, run_these
from dsdoctor.checks.mending import Mended
from dsdoctor.cluster import Cluster
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.accelerate import TO_DEEPSPEED, AccelerateConfig, accelerate_config
from dsdoctor.jobs.edits import Edit
from dsdoctor.jobs.job import DeepSpeedConfig, ResolvedJob
from dsdoctor.report.model import Finding, Severity
from dsdoctor.yamlfile import FileError


def mended_accelerate(
    job: ResolvedJob, cluster: Cluster | None, read: Callable[[str], str], ignore: Sequence[str] = ()
) -> Iterator[Mended]:
    """The accelerate configs of a job from which something can be taken out for certain; `read` gives a file's text."""
    checks = [
        one for one in discover().values() if one.name not in ignore and any(k is JobContext for k, _ in one.wants)
    ]
    parts = {part.accelerate.path: part for part in (job.parts or (job,)) if part.accelerate is not None}
    for path, part in parts.items():
        try:
            before = read(path)
        except FileError:
            continue
        if part.accelerate is not None and part.deepspeed is not None and before == part.accelerate.text:
            mended = _mended(checks, part, cluster, (part.accelerate, part.deepspeed))
            if mended is not None:
                yield mended


def _mended(
    checks: Sequence[Check],
    part: ResolvedJob,
    cluster: Cluster | None,
    configs: tuple[AccelerateConfig, DeepSpeedConfig],
) -> Mended | None:
    there, deepspeed = configs
    made: list[Proposal] = []
    now = there
    for key in named_twice(there):
        if not _says_the_same(there, key, deepspeed):
            continue
        changed = _without(now, key)
        if changed is not None:
            now = changed
            because = f"{there.config_file} says the same, and accelerate stops at what stands in both"
            place = (key,) if key in there.value else ("deepspeed_config", key)
            made.append(Proposal((Edit(place, "remove"),), because))
    first = _found(checks, part, cluster)
    left = _found(checks, replace(part, accelerate=now), cluster)
    if not made or len(left) > len(first) or (len(left) == len(first) and left == first):
        return None
    cited = [tuple(one for one in each if any(e.source == there.path for e in one.evidence)) for each in (left, first)]
    return Mended(there.path, there.text, deepspeed, now.text, tuple(made), cited[0], cited[1])


def _found(checks: Sequence[Check], job: ResolvedJob, cluster: Cluster | None) -> list[Finding]:
    outcome = run_these(checks, cluster, job)
    return [finding for finding in outcome.findings if finding.severity is not Severity.INFO]


def _says_the_same(config: AccelerateConfig, key: str, deepspeed: DeepSpeedConfig) -> bool:
    """Whether the DeepSpeed config has what a key of accelerate's asks for."""
    if key == "mixed_precision":
        asked = str(config.value[key])
        on = {name: dsconfig.get(deepspeed, f"{name}.enabled") for name in ("fp16", "bf16")}
        if "auto" in on.values():
            return False
        return {name for name, value in on.items() if is_true(value)} == ({asked} if asked in on else set())
    dotted, value = TO_DEEPSPEED.get(key), config.deepspeed.get(key)
    if dotted is None:
        return False
    said: Any = dsconfig.get(deepspeed, dotted)
    return said == value or (said in (None, "none") and value in (None, "none"))


def _without(config: AccelerateConfig, key: str) -> AccelerateConfig | None:
    """The config without a key and its line, comments and order kept; None where that line is not its alone."""
    line = config.line_of(key)
    if line is None:
        return None
    lines = config.text.splitlines(keepends=True)
    text = "".join(lines[: line - 1] + lines[line:])
    try:
        value = yamlfile.parse(text, config.path)
    except FileError:
        return None
    wanted = {name: one for name, one in config.value.items() if name != key}
    block = wanted.get("deepspeed_config")
    if key not in config.value and isinstance(block, dict):
        wanted["deepspeed_config"] = {name: one for name, one in block.items() if name != key}
    return accelerate_config(value, text, config.path) if value == wanted else None
