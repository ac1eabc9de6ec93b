"""Memory that is set aside as huge pages is lost to the job."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.amounts import GIB, amount
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container
from dsdoctor.checks.remedy import as_root, on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts, MemoryFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# Shares of the host's memory. What libfabric's installer sets aside for EFA (220 MB a core) stays far below the first.
_TOLD, _MUCH = 0.1, 0.25


@check(severity=Severity.WARNING, since="0.1")
def memory_in_huge_pages(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """A large part of the host's memory is set aside as huge pages, which the job's programs do not get.

    ## Why it matters
    `free` and MemTotal count it as the host's, and torch, DeepSpeed and the page cache cannot have it, used or not: a
    model that should fit is killed while it is loaded, offloaded states do not fit, data are read from the disk again
    in every epoch. It is what a database, virtual machines or DPDK on the same host were given, or a setting that
    outlived them. (Transparent huge pages are another thing: they take nothing away.)

    ## How to fix it
    Give the pages back where nobody needs them, now and in the setting that asks for them at boot.

    ## Source
    Hugetlb, HugePages_Total and HugePages_Free of /proc/meminfo; hugetlbpage.rst of the Linux kernel: "pages that are
    used as huge pages are reserved inside the kernel and cannot be used for other purposes".
    """
    memory = host.memory
    if memory.total_bytes <= 0 or memory.hugetlb_bytes < max(GIB, _TOLD * memory.total_bytes):
        return
    yield memory_in_huge_pages.finding(
        f"{amount(memory.hugetlb_bytes)} of the host's {amount(memory.total_bytes)} are set aside as huge pages; "
        f"{amount(memory.ordinary_bytes)} are left for the job and everything else",
        severity=None if memory.hugetlb_bytes >= _MUCH * memory.total_bytes else Severity.INFO,
        evidence=[Evidence(text=f"/proc/meminfo: {amount(memory.hugetlb_bytes)} in huge pages", source=host.name)],
        fix=_fixes(host, entry, memory),
    )


def _fixes(host: HostFacts, entry: HostEntry, memory: MemoryFacts) -> Iterator[Fix]:
    if container(host):
        yield Fix("Only from outside of the container: the pool belongs to the machine (vm.nr_hugepages)")
        return
    used = memory.hugetlb_bytes - (memory.hugetlb_free_bytes or 0)
    if memory.hugetlb_free_bytes is None or used > 0:
        pools = "/sys/kernel/mm/hugepages/*/"
        look = on_host(entry, f"grep -s . {pools}nr_hugepages {pools}free_hugepages")
        yield Fix(f"Ask who uses them: {amount(used)} are in use", (look,))
    yield Fix("Give back those that nobody uses", (as_root(host, entry, "sysctl -w vm.nr_hugepages=0"),))
    where = on_host(entry, "grep -rns hugepages /etc/sysctl.conf /etc/sysctl.d /etc/default/grub /proc/cmdline")
    yield Fix("See what sets them aside at boot", (where,))
