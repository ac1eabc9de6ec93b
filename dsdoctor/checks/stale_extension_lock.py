"""A lock in torch's extension cache that no build holds."""

from __future__ import annotations

import json
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.extension_cache import folder_of, is_network, shared_with
from dsdoctor.checks.job_gpus import container
from dsdoctor.checks.remedy import on_host, run_python
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import ExtensionBuild, ExtensionFacts, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# Seconds. DeepSpeed's ops take 20 to 70 on two cores. Where a build may run out of the probe's sight (on another host,
# in another container) only a lock that no build lives as long as is called stale.
_A_MOMENT, _LONGER_THAN_ANY_BUILD = 60, 3600


@check(severity=Severity.ERROR, since="0.1")
def stale_extension_lock(
    host: HostFacts, entry: HostEntry, cluster: Cluster, context: JobContext | None
) -> Iterator[Finding | Skipped]:
    """A killed build left its lock in torch's cache of extensions, and no process builds there.

    ## Why it matters
    torch up to 2.13 guards the build of an op (cpu_adam, fused_adam …) with a file called `lock`, which is removed
    when the build ends and stays when it is killed. Every later start that needs the op waits for that file to go, for
    ever, and says nothing.

    ## How to fix it
    Remove that one file. The command does so only when no process has it open, as a build that runs would.

    ## Source
    FileBaton in torch/utils/file_baton.py, _jit_compile in torch/utils/cpp_extension.py; pytorch/pytorch#189245. Its
    main branch takes a lock of the kernel's instead since July 2026 (#190543), and leaves a file that means nothing:
    what a host has is told from its own cpp_extension.py.
    """
    facts = host.extensions
    if facts.lock_kind != "file" or folder_of(host, context, entry) != facts.folder:
        return
    for build in facts.builds:
        if not _is_stale(build, facts, host) or _is_held(build, host, cluster):
            continue
        age = _age(build.lock_age_seconds or 0)
        op = build.name.rpartition("/")[2]
        yield stale_extension_lock.finding(
            f"the lock of {op} in torch's extension cache is {age} old, and no process builds there: every start that "
            "needs the op waits for it without a word",
            severity=Severity.WARNING if context is not None and context.deepspeed is None else None,
            evidence=[Evidence(text=f"{build.path}/lock, {age} old, open in no process", source=host.name)],
            fix=[
                Fix(
                    "Remove it, unless a build holds it",
                    (on_host(entry, run_python(host, _removal(f"{build.path}/lock"))),),
                    safe=(build.lock_age_seconds or 0) >= _LONGER_THAN_ANY_BUILD,
                )
            ],
        )


def _is_stale(build: ExtensionBuild, facts: ExtensionFacts, host: HostFacts) -> bool:
    """Whether a lock is this environment's, and old enough to be nobody's."""
    if build.lock_age_seconds is None or build.lock_holders:
        return False
    if facts.environment is not None and not build.name.startswith(f"{facts.environment}/"):
        return False
    out_of_sight = is_network(facts.filesystem) or container(host) is not None
    return build.lock_age_seconds >= (_LONGER_THAN_ANY_BUILD if out_of_sight else _A_MOMENT)


def _is_held(build: ExtensionBuild, host: HostFacts, cluster: Cluster) -> bool:
    """Whether a process on another host that sees the same folder has the lock open."""
    return any(
        other.lock_holders and other.path == build.path
        for sharer in shared_with(host, cluster)
        for other in sharer.extensions.builds
    )


def _removal(path: str) -> str:
    """Python that removes a lock unless a process of this host has it open; its own listing opens no file."""
    return (
        f"import glob, os; lock = {json.dumps(path)}; "
        'held = [f for f in glob.glob("/proc/[0-9]*/fd/*") if os.path.exists(f) and os.path.samefile(f, lock)]; '
        'print("left alone, a build holds it:", held) if held else os.remove(lock)'
    )


def _age(seconds: float) -> str:
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            number = int(seconds // size)
            return f"{number} {unit}{'' if number == 1 else 's'}"
    return f"{int(seconds)} seconds"
