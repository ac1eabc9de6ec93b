"""A package is installed twice, and the copy that is imported is not the environment's."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import TRAINING
from dsdoctor.checks.remedy import on_host, uninstall
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts, Package
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def package_shadowed(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """Another release of a package in the user's own site-packages hides the one of the job's environment.

    ## Why it matters
    `pip install --user`, or pip of another environment without write access, leaves packages below ~/.local, and these
    come first in every environment of that Python version. The environment then looks right in `conda list` and is not
    what runs; on another host, without that ~/.local, the same environment behaves differently. Two releases in one
    folder, after an installation that was cut off, are as bad: which one's metadata is read is chance.

    ## How to fix it
    Uninstall the copy below ~/.local, or start the job with PYTHONNOUSERSITE=1.

    ## Source
    The distributions along the interpreter's sys.path; the `site` module's documentation.
    """
    first: dict[str, Package] = {}
    hidden: dict[str, list[Package]] = {}
    for package in host.packages.distributions:
        if package.name in TRAINING:
            if package.name not in first:
                first[package.name] = package
            elif package.version != first[package.name].version:
                hidden.setdefault(package.name, []).append(package)
    user = host.python.user_site if host.python.user_site_enabled else None
    of_user = {name: others[0] for name, others in hidden.items() if user and first[name].location == user}
    if of_user:
        told = ", ".join(f"{name} {first[name].version} (not {other.version})" for name, other in of_user.items())
        yield package_shadowed.finding(
            f"packages below the user's site-packages hide those of the environment: {told}",
            evidence=[_seen(host, first[name], other) for name, other in of_user.items()],
            fix=[
                # pip takes the copy that is first in the path, which is the user's.
                Fix("Start the job without the user's packages", env={"PYTHONNOUSERSITE": "1"}),
                Fix("Uninstall them there", (on_host(entry, uninstall(host, of_user)),)),
            ],
        )
    for name, others in hidden.items():
        twice = [other for other in others if other.location == first[name].location]
        if twice:
            yield package_shadowed.finding(
                f"two releases of {name} are installed in one folder: {first[name].version} and {twice[0].version}",
                evidence=[_seen(host, first[name], twice[0])],
                fix=[Fix(f"Uninstall {name} until pip knows it no more, then install it again")],
            )


def _seen(host: HostFacts, taken: Package, other: Package) -> Evidence:
    text = f"{taken.name} {taken.version} in {taken.location}; {other.version} in {other.location}"
    return Evidence(text=text, source=host.name)
