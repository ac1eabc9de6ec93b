"""The hosts would run the job with different Pythons."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.majority import strays, told
from dsdoctor.cluster import Cluster
from dsdoctor.facts import FactUnavailable
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def python_differs(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """The hosts of one job would run it with different Pythons.

    ## Why it matters
    It mostly means that one host takes another interpreter than you think: the system's instead of the environment's,
    because a non-interactive session has another PATH. Then the packages differ as well. Even with the same packages,
    ranks of different Pythons cannot read all of each other's pickled objects, and keep caches apart.

    ## How to fix it
    Name the interpreter by its path: `python:` in the job file for all hosts, `python=` in the hostfile for one.

    ## Source
    sys.version_info of the interpreter that the job would get on each host. Patch releases may differ.
    """
    seen: dict[str, str] = {}
    paths: dict[str, str] = {}
    for member in cluster.examined:
        try:
            python = member.facts.python if member.facts else None
        except FactUnavailable as missing:
            yield python_differs.skipped([member.name], str(missing))
            continue
        if python is not None:
            other = "" if python.implementation == "CPython" else f"{python.implementation} "
            seen[member.name] = other + ".".join(python.version.split(".")[:2])
            paths[member.name] = f"{python.executable} is {other}{python.version}"
    if len(set(seen.values())) < 2:
        return
    yield python_differs.finding(
        f"the hosts would run the job with different Pythons: {told(seen)}",
        hosts=strays(seen),
        evidence=[Evidence(text=path, source=host) for host, path in paths.items()],
        fix=[Fix("Name the interpreter by its path: python: in the job file, or python= in the host's line")],
    )
