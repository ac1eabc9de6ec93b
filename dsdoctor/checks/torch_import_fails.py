"""torch cannot be imported by the job's interpreter, tried for real."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import on_host, run_python
from dsdoctor.checks.tried import cause_of, tried
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity


@check(severity=Severity.ERROR, since="0.1", trial="deep")
def torch_import_fails(host: HostFacts, entry: HostEntry) -> Iterator[Finding]:
    """The job's interpreter cannot import torch on a host; tried only with `--deep`.

    ## Why it matters
    Whatever the versions say: a libtorch out of another build in front of it (PYTHONPATH, LD_LIBRARY_PATH), a wheel
    that was cut off, a library that the host lacks or a folder that hangs ends the job on this host before its first
    line, while the other hosts wait for it in silence.

    ## How to fix it
    What torch said is in the evidence. Mostly the environment is to be made anew from the same wheels as elsewhere.

    ## Source
    `import torch` in a process of its own, with the environment that the job's ranks would get.
    """
    deep = tried(host)
    if deep is None:
        return
    torch = deep.torch
    if torch is None:
        raise FactUnavailable("deep", f"the host was lost in the trial: {deep.lost or 'no answer'}")
    if torch.version is not None:
        return
    cause = cause_of([(host.name, None, torch.output)], torch.error or "it said nothing")
    ended = f" ({torch.error})" if torch.error and torch.error != cause.message else ""
    interpreter = _interpreter(host)
    yield torch_import_fails.finding(
        f"{interpreter} cannot import torch: {cause.message}{ended if cause.name is None else ''}",
        evidence=cause.evidence or [Evidence(torch.error or "no answer", host.name)],
        fix=[
            *cause.fix,
            Fix("See it happen on the host", (on_host(entry, run_python(host, "import torch")),)),
            *([] if cause.fix else [Fix("Install torch anew here, the build that the other hosts have")]),
        ],
    )


def _interpreter(host: HostFacts) -> str:
    try:
        return host.python.executable
    except FactUnavailable:
        return "the job's interpreter"
