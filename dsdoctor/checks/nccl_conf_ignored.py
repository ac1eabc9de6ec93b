"""What stands in NCCL's own file has no effect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from packaging.version import Version

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.nccl_use import nccl_version, uses_nccl
from dsdoctor.checks.rank_settings import ENVIRONMENT, nccl_files, setting
from dsdoctor.checks.remedy import where_set
from dsdoctor.checks.tables import values, variables
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import ConfigFile, FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STRIPS_CR = Version("2.30.3")  # the first that takes the \r of a Windows line end off
# Names that programs read before NCCL reads its file, or that NCCL itself read to find it.
_OF_OTHERS = re.compile(r"TORCH|PYTORCH|GLOO_|LD_|OMP_|CUDA_VISIBLE_DEVICES$|MASTER_|NCCL_CONF_FILE$")
# What is right on one host only: where the environment has another value, it is probably another host's.
_OF_THIS_HOST = frozenset({"NCCL_SOCKET_IFNAME", "NCCL_OOB_NET_IFNAME", "NCCL_IB_HCA", "NCCL_IB_GID_INDEX"})


@check(severity=Severity.WARNING, since="0.1")
def nccl_conf_ignored(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """A line of /etc/nccl.conf or ~/.nccl.conf does nothing: misread, for another program, or beaten by a variable.

    ## Why it matters
    These files are the place for what differs from host to host, and NCCL never says that it passed over a line. It
    takes NAME=value as it stands: `export NCCL_DEBUG=INFO` and `NCCL_DEBUG = INFO` set variables of other names. What
    the environment holds already is not overridden, so a launcher that exports one interface to all hosts beats the
    right one here.

    ## How to fix it
    One NAME=value a line, no blanks around the =, no quotes, no export. Variables of torch go into the environment of
    the job. Unset the exported variable where the file is to count.

    ## Source
    src/misc/param.cc of NVIDIA/nccl, v2.14.3 to v2.30.7: setenv(name, value, 0), $NCCL_CONF_FILE or else ~/.nccl.conf,
    then /etc/nccl.conf. Blanks, export, Windows line ends and the order: tried with 2.28.9.
    """
    with suppress(FactUnavailable):
        if not uses_nccl(host):
            return
    yield from _named_file(host, entry)
    for file in nccl_files(host):
        for message, advice in _unread(file, host):
            yield nccl_conf_ignored.finding(
                f"{file.path}: {message}",
                evidence=[Evidence(text=file.path, source=host.name)],
                fix=[Fix(f"{advice}, in {file.path}")],
            )
        if context is None or not context.planned:  # a plan's values are the ones that are wanted
            yield from _beaten(file, host, entry, context)


def _named_file(host: HostFacts, entry: HostEntry) -> Iterator[Finding]:
    """$NCCL_CONF_FILE that leads nowhere; ~/.nccl.conf is not read instead."""
    named = host.environment.variables.get("NCCL_CONF_FILE", "")
    if not named or any(file.path == named for file in nccl_files(host)):
        return
    reason = "NCCL does not expand ~" if named.startswith("~") else "there is no such file, or it may not be read"
    yield nccl_conf_ignored.finding(
        f"NCCL_CONF_FILE={named}: {reason}; ~/.nccl.conf is not read either",
        evidence=[Evidence(text=f"NCCL_CONF_FILE={named}, from {ENVIRONMENT}", source=host.name)],
        fix=[Fix("Name the file by its whole path, or unset it", (where_set(entry, "NCCL_CONF_FILE"),))],
    )


def _unread(file: ConfigFile, host: HostFacts) -> Iterator[tuple[str, str]]:
    """What is wrong with lines of a file, and what to do."""
    if file.bad_lines:
        lines = ", ".join(map(str, file.bad_lines[:10]))
        yield f"line {lines} has no = and is passed over", "Write NAME=value"
    nccl = nccl_version(host)
    for name, value in file.variables.items():
        plain = name.removeprefix("export ").strip()
        if not _NAME.fullmatch(name):
            yield f"the name is taken as it stands, {name!r}, which nothing reads", f"Write {plain}={value.strip()}"
        elif name in variables().renamed or name.startswith("TORCH") or _OF_OTHERS.match(name):
            where = "itself" if name == "NCCL_CONF_FILE" else "before NCCL has read this file"
            yield f"{name} is looked for {where}, so it does nothing here", f"Set {name} in the job's environment"
        elif value.endswith("\r") and name in values().text and not (nccl and nccl >= _STRIPS_CR):
            yield f"the lines end as on Windows, so {name} has a \\r at its end", "Take the \\r off (sed -i 's/\\r$//')"


def _beaten(file: ConfigFile, host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding]:
    for name, value in file.variables.items():
        got = setting(name, host, entry, context) if name.startswith("NCCL_") else None
        if got is None or got.source == file.path or got.value.removeprefix("=") == value.removeprefix("="):
            continue
        counts = got.value or "an empty value"
        yield nccl_conf_ignored.finding(
            f"{name}={value} in {file.path} does nothing: {got.source} has {counts}, which counts",
            severity=None if name in _OF_THIS_HOST else Severity.INFO,
            evidence=[Evidence(text=f"{name}={got.value}, from {got.source}", source=host.name)],
            fix=[
                Fix(
                    f"Unset {name} where the file is to count, or take it out of the file",
                    (where_set(entry, name),) if got.source == ENVIRONMENT else (),
                )
            ],
        )
