"""An IOMMU that translates addresses stands between GPUs that talk over PCI Express."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container, in_virtual_machine, variables
from dsdoctor.checks.p2p_paths import pcie_pairs
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_TRANSLATED = ("DMA", "DMA-FQ")  # the types of an IOMMU group: Documentation/ABI/testing/sysfs-kernel-iommu_groups


@check(severity=Severity.WARNING, since="0.1")
def iommu_translates_p2p(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """GPUs reach each other over PCI Express, and the IOMMU translates their addresses.

    ## Why it matters
    CUDA does not support peer-to-peer over PCI Express on a machine (not in a virtual one) whose IOMMU translates:
    copies come out wrong, or the first collective hangs, although the driver says that peer-to-peer works.

    ## How to fix it
    Put the IOMMU into pass-through (`iommu=pt` on the kernel's command line) or switch it off in the BIOS (VT-d,
    AMD-Vi), and reboot. Until then NCCL_P2P_DISABLE=1 on this host.

    ## Source
    CUDA C++ Programming Guide, "IOMMU on Linux"; /sys/kernel/iommu_groups. Pairs with NVLink do not go that way.
    """
    pairs = list(pcie_pairs(host, entry))
    if not pairs or variables(host, entry, context).get("NCCL_P2P_DISABLE") == "1" or in_virtual_machine(host):
        return
    cards = {gpu.index: host.pci.gpu(gpu.pci_bus_id) for pair in pairs for gpu in pair}
    types = {index: card.iommu if card else None for index, card in cards.items()}
    translated = [index for index, kind in types.items() if kind in _TRANSLATED]
    if not translated:
        if host.pci.iommu_groups and all(kind is None for kind in types.values()):
            raise FactUnavailable("pci", "this kernel does not say whether the IOMMU translates")
        return
    names = ", ".join(str(index) for index in translated)
    parameters = " ".join(host.pci.kernel_parameters) or "nothing about it"
    yield iommu_translates_p2p.finding(
        f"GPU {names}: the IOMMU translates the addresses of their peer-to-peer copies, which CUDA does not support",
        evidence=[
            *(
                Evidence(text=f"GPU {index}: IOMMU group of type {types[index]}", source=host.name)
                for index in translated
            ),
            Evidence(text=f"the kernel's command line has {parameters}", source=host.name),
        ],
        fix=_fixes(host, entry),
    )


def _fixes(host: HostFacts, entry: HostEntry) -> Iterator[Fix]:
    if container(host):
        yield Fix("Have iommu=pt put on the kernel's command line of the machine around this container")
    else:
        grub = r"""sed -i 's/^GRUB_CMDLINE_LINUX="/&iommu=pt /' /etc/default/grub"""
        make = "sh -c 'update-grub || grub2-mkconfig -o /boot/grub2/grub.cfg'"
        commands = tuple(as_root(host, entry, command) for command in (grub, make, "reboot"))
        yield Fix("Put the IOMMU into pass-through (or switch it off in the BIOS), and reboot", commands)
    yield Fix("Until then: no peer-to-peer on this host", env={"NCCL_P2P_DISABLE": "1"})
