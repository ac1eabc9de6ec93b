"""A master port that no machine has."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.script_lines import calls, cited
from dsdoctor.jobs.script.model import Call, Word
from dsdoctor.report.model import Finding, Fix, Severity

_OPTIONS = ("--master_port", "--master-port", "--main_process_port", "--main-process-port")
_ENDPOINT = ("--rdzv_endpoint", "--rdzv-endpoint")
_LARGEST = 65535


@check(severity=Severity.ERROR, since="0.1")
def port_out_of_range(context: JobContext) -> Iterator[Finding]:
    """The master port is larger than 65535.

    ## Why it matters
    No rank can listen on it or connect to it: "OverflowError: getsockaddrarg: port must be 0-65535", or a connection
    that is refused until the timeout. One digit too many is the usual cause.

    ## How to fix it
    Write a port between 1024 and 32767, or leave the option out.

    ## Source
    tcp(7): a port has 16 bits.
    """
    told = set()
    for call in calls(context):
        for word, port in _ports(call):
            if int(port) > _LARGEST and (port, word.line) not in told:
                told.add((port, word.line))
                yield port_out_of_range.finding(
                    f"the master port is {port}; the largest there is is {_LARGEST}",
                    evidence=[cited(context, word.line)],
                    fix=[Fix("Write one between 1024 and 32767, as 29500")],
                )


def _ports(call: Call) -> Iterator[tuple[Word, str]]:
    """The ports that a call names in digits, each with the word that says it."""
    held = call.command.variables.get("MASTER_PORT")
    endpoint = call.option(*_ENDPOINT)
    found = [call.option(*_OPTIONS), Word(held.value, held.line) if held is not None else None, endpoint]
    for word in found:
        if word is None or not word.known:
            continue
        port = word.text.rpartition(":")[2]
        if port.isascii() and port.isdigit() and len(port) < 20:
            yield word, port
