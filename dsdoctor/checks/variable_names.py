"""Whether NCCL, torch or gloo read a variable of a given name, on a host with given versions of them."""

from __future__ import annotations

from contextlib import suppress

from packaging.version import InvalidVersion, Version

from dsdoctor.checks.nccl_use import nccl_version
from dsdoctor.checks.nearest import nearest
from dsdoctor.checks.tables import variables
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Severity

# The first release after the flight recorder's variables got names of their own (pytorch#152563, May 2025).
_FR_NAMES = Version("2.8")

Judgement = tuple[str, str | None, Severity]  # what is wrong with the name, the right one, how bad it is


def judge(name: str, host: HostFacts | None) -> Judgement | None:
    """What is wrong with a variable's name on a host (None: on any), or None when nothing is."""
    table = variables()
    torch, nccl = _torch(host), nccl_version(host)
    if name in table.renamed:
        new, since = table.renamed[name]
        if host is None or torch is None or torch < Version(since):
            return None
        return f"{name} is an old name, which torch still takes with a warning; it is {new} now", new, Severity.INFO
    old = next((old for old, (new, _) in table.renamed.items() if new == name and old.startswith("NCCL_")), None)
    if old and torch and torch < Version("2.2"):
        return f"{name} is not read by torch {torch}, which knows it as {old}", old, Severity.WARNING
    if name.startswith("TORCH_FR_") and torch and torch < _FR_NAMES:
        old = next((old for old, (new, _) in table.renamed.items() if new == name), None)
        knows = f", which knows it as {old}" if old else ""
        return f"{name} is not read by torch {torch}{knows}", old, Severity.WARNING
    if name in table.nccl:
        return _by_version(name, nccl)
    if name in table.torch or name in table.not_read or name.startswith(table.plugins):
        return None
    if not name.startswith(("NCCL_", "GLOO_", "TORCH_")):
        return None
    meant = nearest(name, {*table.nccl, *table.torch, *table.renamed})
    if meant:
        return f"{name} is read by nothing; did you mean {meant}?", meant, Severity.WARNING
    if not name.startswith("NCCL_") or _is_rocm(host):  # torch and gloo have names besides those in the table
        return None
    return f"{name} is not known to NCCL up to {table.newest}, nor to torch", None, Severity.WARNING


def _by_version(name: str, nccl: Version | None) -> Judgement | None:
    since, last = variables().nccl[name]
    if nccl is None:
        return None
    if last and nccl > Version(last):
        return f"{name} has no effect: NCCL {nccl} no longer reads it ({last} was the last)", None, Severity.WARNING
    if nccl < Version(since):
        return f"{name} has no effect: NCCL {nccl} does not read it yet ({since} was the first)", None, Severity.INFO
    return None


def _torch(host: HostFacts | None) -> Version | None:
    with suppress(FactUnavailable, InvalidVersion):
        return Version((host.torch.version or "").split("+")[0]) if host else None
    return None


def _is_rocm(host: HostFacts | None) -> bool:
    """Whether the host's torch is for AMD: its library reads NCCL_ names of its own."""
    with suppress(FactUnavailable):
        return bool(host and host.torch.hip)
    return False
