"""The kernel's log has errors of NVIDIA's driver about a GPU."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks import tables
from dsdoctor.checks.engine import check
from dsdoctor.checks.job_gpus import container, wanted
from dsdoctor.checks.remedy import as_root
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, Gpu, HostFacts, Xid
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_OLD_SECONDS = 7 * 86400.0  # an older one is a thing to know of, and was probably looked after

# What NVIDIA's catalogue has as the immediate action, in words. `{index}` is the card's number.
_ACTIONS = {
    "reset": ("Reset the card while nothing runs on it", "nvidia-smi --gpu-reset -i {index}"),
    "memory": (
        "See its memory errors, and reset the card",
        "nvidia-smi -q -i {index} -d ECC,ROW_REMAPPER",
    ),
    "nvlink": ("See the links' state and errors", "nvidia-smi nvlink --errorcounters -i {index}"),
    "reboot": ("Switch the host off and on again; look at the card's power cables, riser and heat", None),
    "power": ("Connect the card's power cables, each of its own", None),
}


@check(severity=Severity.WARNING, since="0.1")
def gpu_xid(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """The kernel's log since the boot has an Xid of a GPU of the job that speaks of hardware or driver.

    ## Why it matters
    A card that fell off the bus once, lost a link or met broken memory does it again under load, hours into the run:
    the hangs that end with "the server had to be rebooted". The log says so before the job is started.

    ## How to fix it
    What NVIDIA's catalogue says for the number: reset the card, restart the host, look at power and bridges. The same
    number again and again: have the card replaced.

    ## Source
    The kernel's log (many hosts show it to root and the group adm only; then the check is skipped); NVIDIA's Xid
    catalogue. Numbers that a program causes (13, 31, 43, 45) are not counted.
    """
    if not host.gpu.gpus and not host.driver.pci_gpus:
        return
    log = host.kernel_log
    if not log.source:
        raise FactUnavailable("kernel_log", f"it cannot be read ({log.detail or 'no reason given'})")
    known = tables.xids()
    places = {_short(gpu.pci_bus_id): gpu for gpu in host.gpu.gpus if gpu.pci_bus_id}
    for xid in log.xids:
        meaning = known.get(xid.code)
        gpu = places.get(_short(xid.address))
        if meaning is None or (gpu is not None and not wanted(entry, gpu.index)):
            continue
        where = f"GPU {gpu.index} ({gpu.name})" if gpu else f"a GPU at {xid.address} that NVML does not list"
        old = xid.last_seconds_ago is not None and xid.last_seconds_ago > _OLD_SECONDS
        yield gpu_xid.finding(
            f"{where}: {meaning.what} (Xid {xid.code}{_times(xid)})",
            severity=Severity.INFO if old else None,
            evidence=[Evidence(text=f"{log.source}: Xid {xid.code} of {xid.address}: {xid.text}", source=host.name)],
            fix=_fixes(host, entry, gpu, meaning.action),
        )


def _times(xid: Xid) -> str:
    often = "" if xid.count == 1 else f", {xid.count} times"
    if xid.last_seconds_ago is None:
        return often
    for size, unit in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if xid.last_seconds_ago >= 2 * size:
            return f"{often}, last {int(xid.last_seconds_ago // size)} {unit} ago"
    return f"{often}, last just now"


def _fixes(host: HostFacts, entry: HostEntry, gpu: Gpu | None, action: str) -> Iterator[Fix]:
    if container(host):
        yield Fix("Tell whoever runs the machine around this container: the card is to be looked at there")
        return
    title, command = _ACTIONS[action]
    if command is None or gpu is None:
        yield Fix(title)
    else:
        yield Fix(title, (as_root(host, entry, command.format(index=gpu.index)),))
    yield Fix("See all that the driver said", (as_root(host, entry, "dmesg -T | grep -iE 'nvrm|xid'"),))
    if gpu is not None:
        yield Fix(f"Leave the card out until then: --exclude {entry.name}:{gpu.index}")


def _short(address: str) -> str:
    """`0000:3b:00` of `0000:3b:00`, `0000:3B:00.0` and `00000000:3B:00.0`."""
    domain, _, rest = address.lower().partition(":")
    return f"{domain[-4:]}:{rest.partition('.')[0]}"
