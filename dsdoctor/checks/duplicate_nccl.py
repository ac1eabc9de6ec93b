"""Several packages own the one libnccl.so.2 of the job's environment, or its owner has lost it."""

from __future__ import annotations

from collections.abc import Iterator

from packaging.requirements import Requirement

from dsdoctor.checks.engine import check
from dsdoctor.checks.nccl_pin import pinned, written_over
from dsdoctor.checks.remedy import install, on_host, run_python, uninstall
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts, Package
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# Printed by the job's interpreter: what to install with --force-reinstall --no-deps.
_ASK_TORCH = "import importlib.metadata as m; print(*[r for r in m.requires('torch') if 'nccl' in r])"


@check(severity=Severity.ERROR, since="0.1")
def duplicate_nccl(host: HostFacts, entry: HostEntry) -> Iterator[Finding | Skipped]:
    """More than one package owns libnccl.so.2 in the job's environment, or its owner's file is gone or another one.

    ## Why it matters
    nvidia-nccl-cu11, -cu12 and -cu13 all install the same file, nvidia/nccl/lib/libnccl.so.2: the one written last
    wins, whatever its version. torch then loads an NCCL that it was not built for: `ncclInvalidArgument … Invalid
    config blocking attribute value -2147483648`, undefined symbols, hangs. pip sees nothing wrong with it.

    ## How to fix it
    Uninstalling one of them deletes the file for the others too, and `pip check` still says that all is well. So:
    uninstall every owner, then install the one that torch asks for. Both commands belong together. Where one owner is
    left and its file is gone, or was written over by something that is not listed any more, install that one again.

    ## Source
    The wheels nvidia-nccl-cu11 2.14.3, -cu12 2.18.1 and -cu13 2.29.7, installed and uninstalled in turn; vllm#1726,
    pytorch#186591.
    """
    nccl = host.nccl
    over = written_over(nccl)
    if not nccl.owners or (len(nccl.owners) == 1 and nccl.wheel_file_exists and over is None):
        return
    names = " and ".join(f"{owner.name} {owner.version}" for owner in nccl.owners)
    copy = next((copy for copy in nccl.copies if nccl.wheel_file in (copy.path, copy.real_path)), None)
    wheel_file = nccl.wheel_file or "nvidia/nccl/lib/libnccl.so.2"
    if over is not None:
        is_now = f"NCCL {over.version}" + (f" for CUDA {over.cuda}" if over.cuda else "")
        message = f"{names} owns libnccl.so.2, but the file is {is_now}: something else was written over it"
        seen = f"{wheel_file}: {is_now}"
    elif len({owner.location for owner in nccl.owners}) == len(nccl.owners) > 1:
        message = f"{names} are installed in different places; one is wanted, the one torch asks for"
        seen = "; ".join(f"{owner.name} {owner.version} in {owner.location}" for owner in nccl.owners)
    elif nccl.wheel_file_exists:
        is_now = f"the file is NCCL {copy.version}" if copy and copy.version else "the file's version is unknown"
        message = f"{names} own the same libnccl.so.2 ({is_now}); one owner is wanted, the one torch asks for"
        seen = f"{wheel_file}: {is_now}"
    else:
        verb = "lists" if len(nccl.owners) == 1 else "list"
        message = f"{names} {verb} libnccl.so.2 among the installed files, but the file is gone: torch cannot load it"
        seen = f"{wheel_file} does not exist"
    needed = _needed(host)
    yield duplicate_nccl.finding(
        message,
        severity=None if needed else Severity.WARNING,
        evidence=[Evidence(text=seen, source=host.name)],
        fix=[_fix(host, entry, nccl.owners, needed)],
    )


def _needed(host: HostFacts) -> str | None:
    """The requirement to install afterwards; None for a torch that asks for no NCCL wheel and so loads none."""
    try:
        pin = pinned(host)
    except FactUnavailable:
        return _ASK_TORCH
    return pin.requirement if pin else None


def _fix(host: HostFacts, entry: HostEntry, owners: tuple[Package, ...], needed: str | None) -> Fix:
    # A name twice is installed twice (user site and environment), and each uninstall takes one of them away.
    names = [owner.name for owner in owners]
    again = [name for place, name in enumerate(names) if name in names[:place]]
    rounds = [list(dict.fromkeys(names)), *([again] if again else [])]
    commands = [uninstall(host, round_) for round_ in rounds]
    if needed is None:
        return Fix("Uninstall every owner: this torch asks for none", (on_host(entry, " && ".join(commands)),))
    title = "Uninstall every owner, then install the one that torch asks for"
    if needed is _ASK_TORCH:
        title += " (its metadata could not be read from here; the last command prints it)"
        return Fix(title, (on_host(entry, " && ".join(commands)), on_host(entry, run_python(host, needed))))
    reinstall = install(host, needed, force=True)
    if names == [
        Requirement(needed).name
    ]:  # its file is gone or another one, and pip fetches before it takes anything away
        return Fix("Install it once more", (on_host(entry, reinstall),), safe=True)
    return Fix(title, (on_host(entry, " && ".join([*commands, reinstall])),))
