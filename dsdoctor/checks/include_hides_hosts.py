"""--include localhost beside a hostfile."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import calls, cited
from dsdoctor.report.model import Finding, Fix, Severity

_LOCAL = re.compile(r"(?:localhost|127\.0\.0\.1)(?::[\d,]*)?")


@check(severity=Severity.WARNING, since="0.1")
def include_hides_hosts(context: JobContext) -> Iterator[Finding]:
    """DeepSpeed is given a hostfile and an --include that names localhost alone.

    ## Why it matters
    --include chooses among the hosts of the hostfile. Where localhost is one of its lines, the other hosts stay idle
    and nobody says so; where it is not, DeepSpeed stops: "Hostname 'localhost' not found in hostfile".

    ## How to fix it
    Name the hosts by the hostfile's names (`--include "host1:0,1@host2:0,1"`), or leave one of the two options out.

    ## Source
    DeepSpeed, launcher/runner.py, parse_resource_filter, 0.9 to 0.19.8.
    """
    for call in calls(context):
        include, hostfile = call.option("--include", "-i"), call.option("--hostfile", "-H")
        if call.launcher != "deepspeed" or include is None or hostfile is None:
            continue
        hosts = include.text.split("@")
        if include.known and all(map(_LOCAL.fullmatch, hosts)):
            yield include_hides_hosts.finding(
                f"--include {include.text} leaves only this host of the hostfile {hostfile.text}, and stops DeepSpeed "
                "where the hostfile has no line for localhost",
                evidence=[cited(context, line) for line in dict.fromkeys((include.line, hostfile.line))],
                fix=[
                    Fix("Leave --include out to use all hosts of the hostfile, or name them as the hostfile does"),
                    Fix("To use this host alone, leave --hostfile out"),
                ],
            )
