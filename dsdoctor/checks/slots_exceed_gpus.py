"""The hostfile gives a host more slots than it has GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.ERROR, since="0.1")
def slots_exceed_gpus(host: HostFacts, entry: HostEntry, cluster: Cluster) -> Iterator[Finding | Skipped]:
    """More ranks are to run on a host than it has GPUs, or one of them is to use a GPU that is not there.

    ## Why it matters
    Every rank takes the GPU of its local rank. A rank without one stops with `invalid device ordinal`, or two ranks
    share a card and NCCL stops with `Duplicate GPU detected`; the other hosts wait for them.

    ## How to fix it
    Make `slots=` of the host's line equal to its GPUs, or pick the GPUs with --include.

    ## Source
    DeepSpeed's documentation, "Resource Configuration (multi-node)"; NCCL, init.cc, for the message.
    """
    gpu = host.gpu
    if gpu.status not in ("ok", "no-library", "driver-not-loaded"):
        raise FactUnavailable("gpu", gpu.detail or gpu.status)
    if any(card.mig for card in gpu.gpus):
        raise FactUnavailable("gpu", "MIG is on, and its instances are not counted here")
    wanted = entry.devices if entry.devices is not None else tuple(range(entry.slots))
    there = {card.index for card in gpu.gpus}
    missing = [index for index in wanted if index not in there]
    if not missing:
        return
    if not there and not _gpus_are_meant(host, cluster):
        return
    have = f"the host has {len(there)} GPU{'' if len(there) == 1 else 's'}" if there else "no GPU is seen there"
    names = ", ".join(str(index) for index in missing)
    where = f"line {entry.line} of the hostfile" if entry.line else "the hostfile"
    yield slots_exceed_gpus.finding(
        f"{len(wanted)} ranks are to run on the host and {have}: GPU {names} is wanted and not there",
        evidence=[
            Evidence(text=f"slots={entry.slots}", source="hostfile", line=entry.line),
            *(Evidence(text=f"GPU {card.index}: {card.name}", source=host.name) for card in gpu.gpus),
        ],
        fix=[Fix(f"Set slots={len(there)} for {entry.name} in {where}")] if there else [],
    )


def _gpus_are_meant(host: HostFacts, cluster: Cluster) -> bool:
    """Whether a host where no GPU is seen should have some: another host has, and this one's driver is no suspect.

    A cluster without any GPU trains on its CPUs, and slots count processes. Where the card is there and its driver
    is not, driver-not-loaded says so.
    """
    try:
        if host.driver.pci_gpus and not host.driver.loaded:
            return False
    except FactUnavailable:
        pass
    return any(member.facts is not host and _has_gpus(member.facts) for member in cluster.examined)


def _has_gpus(host: HostFacts | None) -> bool:
    try:
        return host is not None and bool(host.gpu.gpus)
    except FactUnavailable:
        return False
