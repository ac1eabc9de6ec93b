"""The hosts would load different NCCL versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.nccl_pin import loaded, pinned, version_of
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def nccl_differs_between_hosts(cluster: Cluster) -> Iterator[Finding | Skipped]:
    """The hosts of one job would load different versions of NCCL.

    ## Why it matters
    The ranks exchange structures of NCCL's own when they meet, and these change with the version. What follows is an
    internal error, a truncated message or a hang. Environment variables may differ from host to host, the version of
    NCCL may not.

    ## How to fix it
    Install the same torch, and with it the same NCCL, on every host; then see that nothing else is loaded instead
    (nccl-differs-from-torch).

    ## Source
    NVIDIA's maintainer in nccl#286: "The NCCL version needs to match".
    """
    seen: dict[str, str] = {}
    for member in cluster.examined:
        try:
            version = _version(member.facts)
        except FactUnavailable as missing:
            yield nccl_differs_between_hosts.skipped([member.name], str(missing))
            continue
        if version:
            seen[member.name] = version
    if len(set(seen.values())) < 2:
        return
    common = Counter(seen.values()).most_common(1)[0][0]
    told = "; ".join(
        f"{version} on {', '.join(host for host in seen if seen[host] == version)}"
        for version in dict.fromkeys(seen.values())
    )
    strays = [member for member in cluster.examined if seen.get(member.name, common) != common]
    yield nccl_differs_between_hosts.finding(
        f"the hosts would load different NCCL versions ({told}); all must load the same",
        hosts=list(seen),
        evidence=[Evidence(text=f"NCCL {version}", source=host) for host, version in seen.items()],
        fix=[_fix(member, common) for member in strays],
    )


def _version(host: HostFacts | None) -> str | None:
    """The version the host would load, None where torch has no CUDA and NCCL is not used."""
    if host is None or host.torch.cuda is None:
        return None
    copy = loaded(host)
    return str(version_of(copy)) if copy else None


def _fix(member: Member, version: str) -> Fix:
    title = f"Give every host NCCL {version}, best by the same torch"
    host = member.facts
    if host is None:
        return Fix(title)
    try:
        pin = pinned(host)
    except FactUnavailable:
        pin = None
    if pin is None or pin.version == version:
        # The package is right or unknown: what is loaded instead of it is for nccl-differs-from-torch.
        return Fix(title)
    return Fix(title, (on_host(member.entry, install(host, f"{pin.package}=={version}", force=True)),))
