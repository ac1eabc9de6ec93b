"""A package with compiled parts cannot be imported, tried for real."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import install, on_host, uninstall
from dsdoctor.checks.tried import cause_of, tried
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity


@check(severity=Severity.ERROR, since="0.1", trial="deep")
def native_import_fails(host: HostFacts, entry: HostEntry) -> Iterator[Finding]:
    """flash-attn, bitsandbytes, xformers or DeepSpeed is installed and cannot be imported; tried only with `--deep`.

    ## Why it matters
    Their compiled parts fit one torch, one CUDA and one C++ ABI. After an upgrade of torch the import ends in
    `undefined symbol`. transformers and peft import what they find installed: a package that the job does not even use
    can end it.

    ## How to fix it
    Install it anew for the torch that is there, or uninstall what is not needed.

    ## Source
    Each package that the job asks for (without a job: each that is installed) imported in a process of its own.
    """
    deep = tried(host)
    for found in deep.imports if deep is not None else ():
        if found.error is None:
            continue
        cause = cause_of([(host.name, None, found.output)], found.error)
        wanted = [Evidence(f"the job asks for it: {found.wanted_by}")] if found.wanted_by else []
        anew = Fix("Install it anew for this torch", (on_host(entry, install(host, found.package)),))
        ways = list(cause.fix) or [anew]
        if not wanted:
            away = on_host(entry, uninstall(host, [found.package]))
            ways.append(Fix("Uninstall it, where nothing needs it", (away,)))
        yield native_import_fails.finding(
            f"{found.package} is installed and cannot be imported: {cause.message}",
            severity=Severity.ERROR if wanted else Severity.WARNING,
            evidence=[*wanted, *(cause.evidence or (Evidence(found.error, host.name),))],
            fix=ways,
        )
