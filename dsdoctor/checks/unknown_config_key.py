"""Keys of a DeepSpeed config that DeepSpeed does not have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dsdoctor.checks.config_keys import Basis, bases
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.nearest import nearest
from dsdoctor.checks.tables import config_keys
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

_MOST = 20  # findings of one config


@check(severity=Severity.ERROR, since="0.1")
def unknown_config_key(context: JobContext) -> Iterator[Finding]:
    """The DeepSpeed config has a key that DeepSpeed does not know, at the top or inside of a block.

    ## Why it matters
    In zero_optimization and its offload blocks, in fp16 and bf16 (from 0.17.1 on) and in the monitors' blocks it stops
    the start: "Extra inputs are not permitted". Everywhere else it is passed over without a word, and the setting that
    was meant has its default.

    ## How to fix it
    Write the key as DeepSpeed has it, or take it out.

    ## Source
    The sources of the DeepSpeed on the hosts, which are read there and not run. Where there is none, or they cannot be
    read: those of 0.19.8. The message says which.
    """
    config = context.deepspeed
    if config is None:
        return
    for basis in bases(context):
        number = 0
        for path, line in _strange(config, basis):
            told = _judged(path, basis)
            if told is None or number == _MOST:
                continue
            number += 1
            message, severity, fix = told
            yield unknown_config_key.finding(
                message,
                severity=severity,
                hosts=basis.hosts,
                evidence=[Evidence(text=".".join(path), source=config.path, line=line), *basis.evidence()],
                fix=[Fix(fix)],
            )


def _strange(config: DeepSpeedConfig, basis: Basis) -> Iterator[tuple[tuple[str, ...], int | None]]:
    """The keys that are not known in their block, with their lines.

    Passed over are comments among keys, and "auto" in a block that DeepSpeed reads with a schema: it drops such a key
    before it looks, and a Trainer stops at it, which auto-unresolved says.
    """
    refused, ignored = basis.keys.refused, basis.keys.ignored
    for block in dict.fromkeys(("", *refused, *ignored)):
        value: Any = dsconfig.get(config, block) if block else config.value
        if not isinstance(value, dict):
            continue
        for key in value:
            if not basis.has(block, key) and not _is_remark(key) and not (block in refused and value[key] == "auto"):
                path = (*block.split("."), key) if block else (key,)
                yield path, dsconfig.line_of(config, ".".join(path))
    for dotted in basis.keys.old:
        if dsconfig.get(config, dotted) is not None:
            yield tuple(dotted.split(".")), dsconfig.line_of(config, dotted)


def _judged(path: tuple[str, ...], basis: Basis) -> tuple[str, Severity, str] | None:
    """What to say of a key, how bad it is, and the mend; None where nothing is to be said."""
    keys, release = basis.keys, f"DeepSpeed {basis.keys.version}"
    block, key, dotted = ".".join(path[:-1]), path[-1], ".".join(path)
    if dotted in keys.old:
        new = keys.old[dotted]
        return f"{dotted} is an old name that DeepSpeed still takes; it is {new} now", Severity.INFO, f"Write {new}"
    if key in keys.inner.get(block, ()):
        right = f"stage3_{key}" if block == "zero_optimization" else key
        message = f"{dotted} is taken by DeepSpeed for {right}; transformers and accelerate look at that name alone"
        return message, Severity.INFO, f"Write {right}"
    if dotted in keys.removed:
        if basis.older:
            return None  # it may still be read there
        severity = Severity.ERROR if basis.own else Severity.WARNING
        return f"{dotted} is refused by {release}, which no longer has it", severity, f"Take {key} out"
    if not block and key in config_keys().earlier and not basis.own:
        return None
    near = nearest(key, _known(block, basis))
    hint = f"; did you mean {near}?" if near else _hint_of_release(block, key, basis)
    mend = f"Write {near} instead of {key}" if near else f"Take {key} out"
    if basis.refuses(block):
        severity = Severity.WARNING if basis.newer else Severity.ERROR
        return f"{dotted} is no key of {release}, which stops there{hint}", severity, mend
    ignored = "and is passed over without a word"
    if block in keys.refused and not basis.releases:
        ignored = "which stops there from 0.17.1 on, and passes it over before"
    severity = Severity.WARNING if near or block or hint else Severity.INFO
    return f"{dotted} is no key of {release}, {ignored}{hint}", severity, mend


def _known(block: str, basis: Basis) -> frozenset[str]:
    known = basis.keys.refused.get(block) or basis.keys.ignored.get(block) or frozenset()
    return known - {dotted.rpartition(".")[2] for dotted in basis.keys.old}


def _hint_of_release(block: str, key: str, basis: Basis) -> str:
    """That another release has the key, where the table's does."""
    table = config_keys().keys
    known = table.refused.get(block, frozenset()) | table.ignored.get(block, frozenset())
    return f"; DeepSpeed {table.version} has it" if key in known and basis.keys is not table else ""


def _is_remark(key: str) -> bool:
    """What people write among keys as a comment: "_comment", "//", "#"."""
    return key.startswith(("_", "/", "#", "$")) or "comment" in key.lower()
