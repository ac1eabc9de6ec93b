"""The deprecated package pynvml is installed."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import allows, versions
from dsdoctor.checks.remedy import install, on_host, uninstall
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.INFO, since="0.1")
def pynvml_deprecated(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """The package pynvml is installed, which is deprecated in favour of nvidia-ml-py.

    ## Why it matters
    torch prints `FutureWarning: The pynvml package is deprecated` on every rank. Before 12 it brings a module of its
    own, which hides the one of nvidia-ml-py where both are installed: programs then read cards by an NVML interface of
    years ago. Nothing fails by it.

    ## How to fix it
    Uninstall pynvml and install nvidia-ml-py; the module that is imported keeps its name.

    ## Source
    The files of pynvml 11.5.3 (a package `pynvml`), 12.0.0 and 13.0.1 (which only require nvidia-ml-py).
    """
    there = versions(host)
    found = there.get("pynvml")
    if found is None:
        return
    hides = allows("<12", found) and "nvidia-ml-py" in there
    effect = f"it hides nvidia-ml-py {there['nvidia-ml-py']}" if hides else "nvidia-ml-py has taken its place"
    command = f"{uninstall(host, ['pynvml'])} && {install(host, 'nvidia-ml-py', force=True)}"
    yield pynvml_deprecated.finding(
        f"pynvml {found} is installed, which is deprecated: {effect}",
        evidence=[
            Evidence(
                text=f"pynvml {found}, nvidia-ml-py {there.get('nvidia-ml-py', 'not installed')}", source=host.name
            )
        ],
        fix=[Fix("Put nvidia-ml-py in its place", (on_host(entry, command),))],
    )
