"""Little room is left where the job writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from dsdoctor.checks.amounts import GIB, MIB, amount
from dsdoctor.checks.context import JobContext, is_true, plain
from dsdoctor.checks.disk_full import is_full
from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import on_host
from dsdoctor.checks.volumes import Volume, places, volumes
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_WANTED = {"temporary files": 256 * MIB}
_OTHERWISE = GIB
_FEW_INODES = 10_000


@check(severity=Severity.WARNING, since="0.1")
def low_disk(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """A file system that the job writes to has little room or few inodes left, or none for one copy of its model.

    ## Why it matters
    The run ends with "No space left on device" when it writes its first checkpoint. With all of an optimizer's states a
    checkpoint is several times as large as the model.

    ## How to fix it
    Make room, or let output_dir and the caches (HF_HOME, TMPDIR) point to another file system.

    ## Source
    statvfs(3); the sizes of the model's own files. 1 GiB is wanted, 256 MiB for temporary files, and 10,000 inodes.
    """
    for volume in volumes(host):
        if is_full(volume):
            continue
        wanted, why = _wanted(volume, host, context)
        few = volume.inodes_free is not None and volume.inodes_free < _FEW_INODES
        if volume.free_bytes >= wanted and not few:
            continue
        what = f"{amount(volume.free_bytes)} are free, {amount(wanted)} are wanted{why}"
        if few and volume.free_bytes >= wanted:
            what = f"{volume.inodes_free} inodes are free, {_FEW_INODES} are wanted"
        source = f" ({volume.source})" if volume.source else ""
        yield low_disk.finding(
            f"little room in the file system of {places(volume.paths)}: {what}",
            evidence=[
                Evidence(text=f"free: {volume.free_bytes} of {volume.total_bytes} bytes{source}", source=host.name)
            ],
            fix=[
                Fix(
                    "Make room: the caches are the first place to look",
                    (on_host(entry, "du -sh ~/.cache/* | sort -h"),),
                ),
                Fix("Point output_dir:, HF_HOME and TMPDIR of the job to another file system"),
            ],
        )


def _wanted(volume: Volume, host: HostFacts, context: JobContext | None) -> tuple[int, str]:
    """How many bytes should be free, and the reason where it is a special one."""
    least = max((_WANTED.get(role, _OTHERWISE) for role in volume.roles), default=_OTHERWISE)
    if context is None or "output" not in volume.roles or _trains_an_adapter(context):
        return least, ""
    with suppress(FactUnavailable):
        models = [found.model.weights_bytes for found in host.inputs.paths if found.model is not None]
        if max(models, default=0) > least:
            return max(models), " for one copy of the model"
    return least, ""


def _trains_an_adapter(context: JobContext) -> bool:
    """Whether the job looks like one that saves an adapter, not the whole model."""
    for stage in context.stages:
        for name, value in stage.args.items():
            key = plain(name).lower()
            if ("lora" in key or "peft" in key or "adapter" in key) and value is not None and not _is_no(value):
                return True
            if key in ("finetuning_type", "method", "tuner") and "lora" in str(value).lower():
                return True
    return False


def _is_no(value: object) -> bool:
    return (
        isinstance(value, bool | str) and not is_true(value) and str(value).lower() in ("false", "no", "none", "0", "")
    )
