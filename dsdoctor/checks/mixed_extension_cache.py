"""Hosts of different kinds that build extensions in one folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.extension_cache import DEPENDS_ON, folder_of, is_network
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def mixed_extension_cache(cluster: Cluster, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """Hosts that differ in CPU, GPU or C library share one folder in which torch builds extensions.

    ## Why it matters
    DeepSpeed's ops are compiled for the very host that builds them (-march=native, the compute capability of its
    GPUs), and a shared home hands the result to all. The others die of "Illegal instruction", of "no kernel image is
    available for execution on the device", or of "version `GLIBC_2.34' not found".

    ## How to fix it
    Let every host build in a folder of its own.

    ## Source
    cpu_arch and compute_capability_args in DeepSpeed's op_builder/builder.py; _get_build_directory in torch's
    cpp_extension.py.
    """
    if context is not None and context.deepspeed is None:
        return
    groups: dict[tuple[str, str, str | None], list[Member]] = {}
    for member in cluster.examined if len(cluster) > 1 else ():
        assert member.facts is not None
        try:
            facts = member.facts.extensions
            folder = folder_of(member.facts, context, member.entry)
        except FactUnavailable as missing:
            yield mixed_extension_cache.skipped([member.name], str(missing))
            continue
        if is_network(facts.filesystem) and folder == facts.folder:
            groups.setdefault((facts.source, folder, facts.environment), []).append(member)
    for (_, folder, _), members in groups.items():
        differences = list(_differences(members))
        if len(members) > 1 and differences:
            yield mixed_extension_cache.finding(
                f"these hosts build extensions in one folder, {folder}, and differ in "
                + " and in ".join(what for what, _ in differences),
                hosts=[member.name for member in members],
                severity=Severity.ERROR if _is_built_native(members) and context is not None else None,
                evidence=[evidence for _, found in differences for evidence in found],
                fix=[_own_folder(members[0])],
            )


def _differences(members: list[Member]) -> Iterator[tuple[str, list[Evidence]]]:
    """What the hosts differ in that a build depends on, each with the hosts' values."""
    for what, value_of in DEPENDS_ON.items():
        values: dict[str, frozenset[str]] = {}
        for member in members:
            assert member.facts is not None
            with suppress(FactUnavailable):
                values[member.name] = value_of(member.facts)
        if len(set(values.values())) > 1:
            everywhere = frozenset.intersection(*values.values())
            yield what, [_said(name, value - everywhere, what) for name, value in values.items()]


def _said(host: str, own: frozenset[str], what: str) -> Evidence:
    shown = sorted(own)
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    text = ", ".join(shown[:8]) + more if shown else "nothing that the others have not"
    return Evidence(text=f"{what}: {text}", source=host)


def _is_built_native(members: list[Member]) -> bool:
    """Whether an op that was compiled for one host alone lies there already."""
    for member in members:
        assert member.facts is not None
        facts = member.facts.extensions
        below = f"{facts.environment}/" if facts.environment else ""
        if any(build.built and build.native and build.name.startswith(below) for build in facts.builds):
            return True
    return False


def _own_folder(member: Member) -> Fix:
    user = "all"
    with suppress(FactUnavailable):
        if member.facts is not None and re.fullmatch(r"[\w.-]+", member.facts.os.user):
            user = member.facts.os.user
    return Fix(
        "Let each host build on a disk of its own: add to env: of the job file",
        env={"TORCH_EXTENSIONS_DIR": f"/tmp/torch_extensions-{user}"},  # noqa: S108 - a path on the hosts
    )
