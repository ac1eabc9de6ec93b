"""What is copied from one GPU to another arrives wrong, or not at all; tried for real."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dsdoctor.checks.engine import check
from dsdoctor.checks.remedy import as_root, on_host
from dsdoctor.checks.tried import cause_of, tried
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import DeepCopy, FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_TRANSLATED = ("DMA", "DMA-FQ")  # the types of an IOMMU group: Documentation/ABI/testing/sysfs-kernel-iommu_groups


@check(severity=Severity.ERROR, since="0.1", trial="deep")
def gpu_copy_fails(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """A copy between two GPUs of a host fails, hangs, or brings wrong data; tried only with `--deep`.

    ## Why it matters
    Where an IOMMU or PCIe's ACS stands between two cards, copies end without an error and what arrives is old memory,
    zeros mostly. NCCL goes the same way: the losses of the ranks part, become NaN, or the first collective hangs.

    ## How to fix it
    NCCL_P2P_DISABLE=1 on this host makes the job run, through the host's memory. For good: the IOMMU into pass-through
    or off (`iommu=pt`, VT-d and AMD-Vi in the BIOS), ACS off on the bridges between the cards.

    ## Source
    64 MiB copied each way between every two GPUs and compared number by number where they arrive; NCCL's user guide,
    "GPU Direct", on IOMMU and ACS.
    """
    deep = tried(host)
    if deep is None:
        return
    gpus = min(deep.torch.gpus or 0, entry.processes) if deep.torch is not None else 0
    told = {frozenset((copy.source, copy.target)) for copy in deep.copies}
    pairs = gpus * (gpus - 1) // 2
    if len(told) < pairs:
        yield gpu_copy_fails.skipped([host.name], f"{len(told)} of {pairs} pairs of GPUs were come to")
    wrong = [copy for copy in deep.copies if copy.error is None and copy.wrong]
    if wrong:
        yield _wrong(host, entry, wrong)
    for copy in deep.copies:
        if copy.error is not None:
            cause = cause_of([(host.name, None, [copy.error])], copy.error)
            yield gpu_copy_fails.finding(
                f"nothing can be copied from GPU {copy.source} to GPU {copy.target}: {cause.message}",
                evidence=[Evidence(f"GPU {copy.source} to {copy.target}: {copy.error}", host.name)],
                fix=[*cause.fix, _without_p2p()],
            )


def _wrong(host: HostFacts, entry: HostEntry, wrong: Sequence[DeepCopy]) -> Finding:
    first = wrong[0]
    others = f", and on {len(wrong) - 1} more ways between GPUs" if len(wrong) > 1 else ""
    zeros = ", nothing but zeros" if first.zeros == first.wrong else ""
    direct = all(copy.peer_access for copy in wrong)
    evidence = [Evidence(_told(copy), host.name) for copy in wrong]
    between = _between(host) if direct else []
    ways: list[Fix] = []
    if direct:
        ways = [_without_p2p(), *_between_fixes(host, entry)]
    else:
        ways = [Fix("Look at the cards: this copy goes through the host's memory, which peer-to-peer cannot spoil")]
        ways.append(Fix("See what the driver says", (on_host(entry, "nvidia-smi -q -d ECC,ROW_REMAPPER"),)))
    return gpu_copy_fails.finding(
        f"what is copied from GPU {first.source} to GPU {first.target} arrives wrong: {first.wrong or 0:,} of "
        f"{first.numbers:,} numbers{zeros}{others}",
        evidence=[*evidence, *(Evidence(text, host.name) for text in between)],
        fix=ways,
    )


def _told(copy: DeepCopy) -> str:
    way = "peer-to-peer" if copy.peer_access else "through the host's memory"
    return f"GPU {copy.source} to {copy.target}, {way}: {copy.wrong:,} of {copy.numbers:,} numbers wrong"


def _without_p2p() -> Fix:
    return Fix("Have NCCL go through the host's memory on this host", env={"NCCL_P2P_DISABLE": "1"})


def _between(host: HostFacts) -> list[str]:
    """What stands between the cards, as far as the host says."""
    try:
        pci = host.pci
    except FactUnavailable:
        return []
    kinds = sorted({gpu.iommu for gpu in pci.gpus if gpu.iommu in _TRANSLATED})
    told = [f"the IOMMU translates the addresses of the cards (group type {', '.join(kinds)})"] if kinds else []
    redirecting = [bridge.address for bridge in pci.bridges if bridge.acs]
    return told + ([f"ACS is on at the bridges {', '.join(redirecting[:6])}"] if redirecting else [])


def _between_fixes(host: HostFacts, entry: HostEntry) -> Iterator[Fix]:
    look = as_root(host, entry, "lspci -vvv | grep -i acsctl")
    yield Fix("For good: add iommu=pt to the kernel's command line, or switch VT-d and AMD-Vi off in the BIOS; reboot")
    yield Fix("Switch ACS off (in the BIOS, or with setpci) on bridges where this shows a + behind SrcValid", (look,))
