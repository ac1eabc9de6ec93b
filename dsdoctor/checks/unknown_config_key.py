"""Keys of a DeepSpeed config that DeepSpeed does not have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from packaging.version import InvalidVersion, Version

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.nearest import nearest
from dsdoctor.checks.tables import ConfigKeys, config_keys
from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

# Before it, fp16 and bf16 were read key by key, and others in them passed over.
_PRECISION_BLOCKS_ARE_CHECKED = Version("0.17.1")
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
    DeepSpeed 0.19.8: runtime/config.py, zero/config.py, precision_config.py and the monitors' config.py. Where another
    release is installed the message says so, and what only that table tells is no error.
    """
    config = context.deepspeed
    if config is None:
        return
    table = config_keys()
    releases = _releases(context)
    for number, (path, line) in enumerate(_strange(config, table)):
        if number == _MOST:
            return
        told = _judged(path, config, table, releases)
        if told is None:
            continue
        message, severity, fix = told
        yield unknown_config_key.finding(
            message,
            severity=severity,
            evidence=[Evidence(text=".".join(path), source=config.path, line=line), *_basis(table, releases)],
            fix=[Fix(fix)],
        )


def _strange(config: DeepSpeedConfig, table: ConfigKeys) -> Iterator[tuple[tuple[str, ...], int | None]]:
    """The keys that the table does not have in their block, with their lines.

    Passed over are comments among keys, and "auto" in a block that DeepSpeed reads with a schema: it drops such a key
    before it looks, and a Trainer stops at it, which auto-unresolved says.
    """
    for block in ("", *table.refused, *table.ignored):
        if block == "" and block in table.refused:
            continue
        value: Any = dsconfig.get(config, block) if block else config.value
        if not isinstance(value, dict):
            continue
        known = table.refused.get(block) or table.ignored.get(block) or frozenset()
        for key in value:
            if key not in known and not _is_remark(key) and not (block in table.refused and value[key] == "auto"):
                path = (*block.split("."), key) if block else (key,)
                yield path, dsconfig.line_of(config, ".".join(path))
    for dotted in table.old:
        if dsconfig.get(config, dotted) is not None:
            yield tuple(dotted.split(".")), dsconfig.line_of(config, dotted)


def _judged(
    path: tuple[str, ...], config: DeepSpeedConfig, table: ConfigKeys, releases: dict[str, Version]
) -> tuple[str, Severity, str] | None:
    """What to say of a key, how bad it is, and the mend; None where nothing is to be said."""
    block, key, dotted = ".".join(path[:-1]), path[-1], ".".join(path)
    if dotted in table.old:
        new = table.old[dotted]
        return f"{dotted} is an old name that DeepSpeed still takes; it is {new} now", Severity.INFO, f"Write {new}"
    if key in table.inner.get(block, ()):
        right = f"stage3_{key}"
        message = f"{dotted} is taken by DeepSpeed for {right}; transformers and accelerate look at that name alone"
        return message, Severity.INFO, f"Write {right}"
    if not block and key in table.removed:
        return _removed(key, table, releases)
    if not block and key in table.earlier:
        return None
    near = nearest(key, _known(block, table))
    hint = f"; did you mean {near}?" if near else ""
    mend = f"Write {near} instead of {key}" if near else f"Take {key} out"
    where = f"{block}.{key}" if block else key
    if _stops(block, table, releases):
        return f"{where} is no key of DeepSpeed, which stops there{hint}", _sure(table, releases), mend
    ignored = "and is passed over without a word"
    if block in ("fp16", "bf16") and not releases:
        ignored = "which stops there from 0.17.1 on, and passes it over before"
    severity = Severity.WARNING if near or block else Severity.INFO
    return f"{where} is no key of DeepSpeed, {ignored}{hint}", severity, mend


def _removed(key: str, table: ConfigKeys, releases: dict[str, Version]) -> tuple[str, Severity, str] | None:
    """What of the blocks that DeepSpeed has given up; releases before the table's may still read them."""
    if releases and max(releases.values()) < Version(table.version):
        return None
    severity = Severity.ERROR if releases else Severity.WARNING
    return f"{key} is refused by DeepSpeed {table.version}, which no longer has it", severity, f"Take {key} out"


def _known(block: str, table: ConfigKeys) -> frozenset[str]:
    return (table.refused.get(block) or table.ignored.get(block) or frozenset()) - {
        dotted.rpartition(".")[2] for dotted in table.old
    }


def _stops(block: str, table: ConfigKeys, releases: dict[str, Version]) -> bool:
    """Whether DeepSpeed refuses what it does not know in a block."""
    if block not in table.refused:
        return False
    if block not in ("fp16", "bf16"):
        return True
    return bool(releases) and max(releases.values()) >= _PRECISION_BLOCKS_ARE_CHECKED


def _sure(table: ConfigKeys, releases: dict[str, Version]) -> Severity:
    """A newer DeepSpeed than the table's may have more keys: then it is a warning."""
    newer = any(version > Version(table.version) for version in releases.values())
    return Severity.WARNING if newer else Severity.ERROR


def _basis(table: ConfigKeys, releases: dict[str, Version]) -> Iterator[Evidence]:
    others = sorted({str(version) for version in releases.values() if str(version) != table.version})
    if others:
        text = f"judged by the keys of DeepSpeed {table.version}; installed is {', '.join(others)}"
        yield Evidence(text=text)


def _releases(context: JobContext) -> dict[str, Version]:
    found = {}
    for host, text in context.versions("deepspeed").items():
        with suppress(InvalidVersion):
            found[host] = Version(text)
    return found


def _is_remark(key: str) -> bool:
    """What people write among keys as a comment: "_comment", "//", "#"."""
    return key.startswith(("_", "/", "#", "$")) or "comment" in key.lower()
