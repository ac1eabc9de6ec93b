"""DeepSpeed's launcher cannot read its .deepspeed_env, or makes something else of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.rank_settings import deepspeed_files
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import ConfigFile, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXPORT = re.compile(r"export\s+")


@check(severity=Severity.ERROR, since="0.1")
def ds_env_file_invalid(
    host: HostFacts, entry: HostEntry, cluster: Cluster, context: JobContext | None
) -> Iterator[Finding | Skipped]:
    """A .deepspeed_env has a line that DeepSpeed's launcher stops at, or that keeps every host from starting.

    ## Why it matters
    The launcher splits each line at its first = and knows neither blank lines nor comments: a line without = ends it
    with `ValueError: not enough values to unpack`. A comment that holds a = becomes `export # …;` before the command
    that is run on each host: the shell takes all that follows for a comment, nothing is started, and the exit code is
    0.

    ## How to fix it
    Leave NAME=value lines alone in the file. `dsdoctor launch` passes over such lines, and says so.

    ## Source
    launcher/runner.py and launcher/multinode_runner.py of DeepSpeed 0.19.8: $DS_ENV_FILE or .deepspeed_env, at home and
    in the folder the launcher is started in; read only for more than one host.
    """
    launches = entry.local or entry.name == cluster.master.name  # the file is read where the launcher is started
    if len(cluster) < 2 or not launches or (context is not None and context.planned):
        return
    for file in deepspeed_files(host):
        for message, severity in _problems(file):
            yield ds_env_file_invalid.finding(
                f"{file.path}: {message}",
                severity=severity,
                evidence=[Evidence(text=file.path, source=host.name)],
                fix=[_fix(entry, file)],
            )


def _problems(file: ConfigFile) -> Iterator[tuple[str, Severity]]:
    if file.bad_lines:
        lines = ", ".join(map(str, file.bad_lines[:10])) + (" …" if len(file.bad_lines) > 10 else "")
        message = f"line {lines} has no =, at which DeepSpeed's launcher stops (a blank line counts, too)"
        yield message, Severity.ERROR
    comments = [name for name in file.variables if name.startswith("#")]
    if comments:
        message = f"{comments[0]}=… is no comment to DeepSpeed's launcher: it comments out the command of every host"
        yield message, Severity.ERROR
    odd = [name for name in file.variables if name not in comments and not _NAME.fullmatch(_EXPORT.sub("", name))]
    if odd:
        yield f"{odd[0]!r} is no name of a variable; the shell of each host complains of it", Severity.WARNING


def _fix(entry: HostEntry, file: ConfigFile) -> Fix:
    keep = f'sed -i -n -E "/^ *[A-Za-z_][A-Za-z0-9_]* *=/p" {shlex.quote(file.path)}'
    return Fix("Keep the lines of the form NAME=value alone", (on_host(entry, keep),))
