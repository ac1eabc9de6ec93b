"""Switches send the traffic between GPUs up to the processor and back (ACS)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container, in_virtual_machine, variables
from dsdoctor.checks.p2p_paths import behind_switch, pcie_pairs
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts, PciBridge
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# Bits of the ACS control register that turn traffic between devices upwards: request redirect, completion redirect,
# upstream forwarding. Source: PCI Express Base Specification 7.7.8.3, linux/pci_regs.h.
_REDIRECT = 0x04 | 0x08 | 0x10


@check(severity=Severity.WARNING, since="0.1")
def acs_redirects_p2p(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """GPUs behind a PCI Express switch talk by way of the processor: ACS is on at the bridges above them.

    ## Why it matters
    Peer-to-peer at a fraction of the switch's speed, and with an IOMMU a hang: the case that NCCL's documentation
    names first where multi-GPU jobs stand still.

    ## How to fix it
    Switch ACS off at those bridges (until the next boot), or VT-d / AMD-Vi in the BIOS. In a virtual machine it must
    stay on.

    ## Source
    NCCL's documentation, "PCI Access Control Services (ACS)"; the ACS control register of each bridge, which root
    alone can read: without it the check is skipped.
    """
    pairs = [pair for pair in pcie_pairs(host, entry) if behind_switch(host, pair)]
    if not pairs or variables(host, entry, context).get("NCCL_P2P_DISABLE") == "1" or in_virtual_machine(host):
        return
    if not host.pci.registers:
        raise FactUnavailable("pci", "the bridges' ACS registers are shown to root alone")
    cards = {gpu.pci_bus_id for pair in pairs for gpu in pair}
    on = [bridge for bridge in _above(host, cards) if (bridge.acs or 0) & _REDIRECT]
    if not on:
        return
    names = ", ".join(bridge.address for bridge in on)
    yield acs_redirects_p2p.finding(
        f"ACS is on at {len(on)} bridge{'' if len(on) == 1 else 's'} above GPUs of the job ({names}): "
        "what they send each other goes through the processor",
        evidence=[Evidence(text=f"{bridge.address}: ACS control {bridge.acs:#06x}", source=host.name) for bridge in on],
        fix=_fixes(host, entry, on),
    )


def _above(host: HostFacts, cards: set[str]) -> Iterator[PciBridge]:
    """The bridges of switches above these cards; a root port is on the processor, where all would end anyway."""
    above: set[str] = set()
    for address in cards:
        card = host.pci.gpu(address)
        above.update(card.bridges if card else ())
    return (bridge for bridge in host.pci.bridges if bridge.address in above and not bridge.root_port)


def _fixes(host: HostFacts, entry: HostEntry, bridges: list[PciBridge]) -> Iterator[Fix]:
    if container(host):
        yield Fix("Have ACS switched off on the machine around this container")
    else:
        words = [f"setpci -s {shlex.quote(bridge.address)} ECAP_ACS+0x6.w=0000" for bridge in bridges]
        commands = tuple(as_root(host, entry, command) for command in words)
        yield Fix("Switch ACS off at these bridges, until the next boot", commands)
    yield Fix("If jobs hang until then: no peer-to-peer on this host", env={"NCCL_P2P_DISABLE": "1"})
