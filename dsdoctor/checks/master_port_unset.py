"""LLaMA-Factory over several hosts without a master port or address."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import calls, cited
from dsdoctor.jobs.script.model import Call
from dsdoctor.report.model import Finding, Fix, Severity

_EFFECTS = {
    "MASTER_PORT": "every host draws a port of its own and waits there",
    "MASTER_ADDR": "every host waits for the others at 127.0.0.1",
}


@check(severity=Severity.WARNING, since="0.1")
def master_port_unset(context: JobContext) -> Iterator[Finding]:
    """llamafactory-cli is started for several hosts, and the script sets no MASTER_PORT or no MASTER_ADDR.

    ## Why it matters
    It starts torchrun with its own choice for what is missing: a free port of this host, and 127.0.0.1. The hosts
    never meet, and nobody says why; after half an hour the rendezvous times out.

    ## How to fix it
    Set both, to the same values on all hosts: the first host's address, and a port that is free there.

    ## Source
    LLaMA-Factory, src/llamafactory/cli.py: without MASTER_PORT find_available_port(), in releases before it a number
    drawn from 20001 to 29999; without MASTER_ADDR 127.0.0.1. A caller may have exported them; the script does not show
    that.
    """
    for call in calls(context):
        if call.launcher != "llamafactory" or not _several(call):
            continue
        missing = [name for name in _EFFECTS if not _value(call, name)]
        if missing:
            yield master_port_unset.finding(
                f"{' and '.join(missing)} {'are' if missing[1:] else 'is'} not set, and NNODES is "
                f"{_value(call, 'NNODES')}: {', '.join(_EFFECTS[name] for name in missing)}",
                evidence=[cited(context, call.line)],
                fix=[
                    Fix("Set both on every host", ("export MASTER_ADDR=<the first host's address> MASTER_PORT=29500",))
                ],
            )
            return


def _several(call: Call) -> bool:
    hosts = _value(call, "NNODES")
    return hosts.isdecimal() and int(hosts) > 1


def _value(call: Call, name: str) -> str:
    held = call.command.variables.get(name)
    return str(held.value) if held is not None else ""
