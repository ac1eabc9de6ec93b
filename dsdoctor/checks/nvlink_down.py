"""NVLinks of a GPU are down that are up on the cards beside it."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import job_gpus
from dsdoctor.checks.remedy import as_root, on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import Gpu, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped


@check(severity=Severity.WARNING, since="0.1")
def nvlink_down(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """A GPU of the job has fewer NVLinks up than its sisters on the same host.

    ## Why it matters
    NCCL builds its rings through the narrowest place: all cards of the host, and all hosts, run at the speed of the
    card with the broken link, or NCCL goes around it through PCI Express. A link that falls out during a run ends the
    run (Xid 74).

    ## How to fix it
    Reset the cards or reboot; on hosts with NVSwitches see the fabric manager's log. Cards with a bridge: seat it
    anew. If it comes back, the card or the bridge is to be replaced.

    ## Source
    NVML's state of each link, compared among cards of one name on one host; how many are up on all of them is the
    machine's own affair. Cards joined in pairs by a bridge may have none.
    """
    gpus = [gpu for gpu in job_gpus(host, entry) if gpu.nvlinks is not None]
    for gpu in gpus:
        sisters = [other for other in gpus if other.name == gpu.name and other is not gpu]
        best = max(sisters, key=lambda other: other.nvlinks or 0, default=None)
        up = gpu.nvlinks or 0
        if best is None or up >= (best.nvlinks or 0) or (up == 0 and not _all_joined(gpu, sisters)):
            continue
        yield nvlink_down.finding(
            f"GPU {gpu.index} ({gpu.name}) has {up} NVLinks up, GPU {best.index} beside it has {best.nvlinks}",
            evidence=[
                Evidence(
                    text=f"GPU {card.index}: {card.nvlinks} of {card.nvlinks_total or '?'} NVLinks up", source=host.name
                )
                for card in (gpu, *sisters)
            ],
            fix=_fixes(host, entry, gpu),
        )


def _all_joined(gpu: Gpu, sisters: list[Gpu]) -> bool:
    """Whether a card without any link up should have some: its sisters hang on a switch, or all but it are joined.

    Bridges join cards in pairs, so of four cards two may have none by design; one alone may not, nor one of a switch.
    """
    if any(other.nvlinks_to_switch for other in sisters):
        return True
    return len(sisters) > 1 and all(other.nvlinks for other in sisters) and len(sisters) % 2 == 1


def _fixes(host: HostFacts, entry: HostEntry, gpu: Gpu) -> Iterator[Fix]:
    shown = (
        on_host(entry, f"nvidia-smi nvlink --status -i {gpu.index}"),
        on_host(entry, f"nvidia-smi nvlink --errorcounters -i {gpu.index}"),
        as_root(host, entry, "dmesg | grep -iE 'nvlink|xid'"),
    )
    yield Fix("See the links, their errors and what the kernel says", shown)
    yield Fix(
        "Reset the cards, or reboot; seat a bridge anew; have replaced what fails again",
        (as_root(host, entry, "reboot"),),
    )
