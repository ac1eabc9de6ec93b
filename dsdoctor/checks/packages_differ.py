"""The hosts have different releases of a package that all ranks must agree on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dsdoctor.checks import installed
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import version
from dsdoctor.checks.majority import common, strays, told
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO


@dataclass(frozen=True)
class _Weight:
    """How bad it is that a package's release differs, by the part of it that does, or that it is not everywhere."""

    major: Severity | None
    minor: Severity | None
    patch: Severity | None
    absent: Severity | None


# What a package decides for all ranks together. torch: the store, the collectives and NCCL; deepspeed: in which order
# gradients are bucketed and exchanged; the others: how the model, its adapters and the data are made. Of what is not
# here, and of patches where nothing stands, a difference does no harm.
_WEIGHTS = {
    "torch": _Weight(_ERROR, _ERROR, _WARNING, _ERROR),
    "deepspeed": _Weight(_ERROR, _ERROR, _WARNING, _WARNING),
    "transformers": _Weight(_WARNING, _WARNING, _INFO, _WARNING),
    "accelerate": _Weight(_WARNING, _WARNING, _INFO, _WARNING),
    "peft": _Weight(_WARNING, _WARNING, _INFO, _WARNING),
    "trl": _Weight(_WARNING, _WARNING, _INFO, _WARNING),
    "tokenizers": _Weight(_WARNING, _WARNING, None, _WARNING),
    "datasets": _Weight(_WARNING, _WARNING, _INFO, _WARNING),
    "numpy": _Weight(_WARNING, None, None, _WARNING),
    "triton": _Weight(_WARNING, _INFO, None, None),
    "bitsandbytes": _Weight(_WARNING, _WARNING, _INFO, _INFO),
    "flash-attn": _Weight(_WARNING, _WARNING, _INFO, _INFO),
    "xformers": _Weight(_WARNING, _WARNING, _INFO, _INFO),
    "liger-kernel": _Weight(_WARNING, _WARNING, _INFO, _INFO),
}
_NONE = "none"


@check(severity=Severity.WARNING, since="0.1")
def packages_differ(cluster: Cluster, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """The hosts of one job have different releases of torch, DeepSpeed, transformers or another package that counts.

    ## Why it matters
    All ranks run one program and must do the same things in the same order: the same collectives, the same buckets,
    the same model. Another torch or DeepSpeed on one host ends in a hang or an internal error, minutes into the run and
    on the hosts that are right; another transformers or peft trains a slightly different model there, without a word.

    ## How to fix it
    Install the same releases on every host, best from one file that all share (`pip freeze` of a host that is right).
    Differences that do no harm, as of numpy's minor version, are not reported.

    ## Source
    DESIGN of torch.distributed and DeepSpeed: ranks exchange what their own release lays out; Primus compares the
    hosts of a job in the same way ("drift").
    """
    there: dict[str, Mapping[str, str]] = {}
    for member in cluster.examined:
        try:
            there[member.name] = _versions(member.facts) if member.facts else {}
        except FactUnavailable as missing:
            yield packages_differ.skipped([member.name], str(missing))
    if len(there) < 2:
        return
    for name, weight in _WEIGHTS.items():
        seen = {host: found.get(name, _NONE) for host, found in there.items()}
        severity = _severity(name, seen, weight, context)
        if severity is None:
            continue
        usual = common(seen)
        yield packages_differ.finding(
            f"{name} differs between the hosts: {told(seen)}",
            severity=severity,
            hosts=strays(seen),
            evidence=[Evidence(text=f"{name}: {found}", source=host) for host, found in _examples(seen)],
            fix=[_fix(name, usual, seen, cluster)],
        )


def _versions(host: HostFacts) -> Mapping[str, str]:
    """What is installed; of torch with its build for a CUDA, which wheels of the package index do not name."""
    found = installed.versions(host)
    try:
        torch = host.torch.version
    except FactUnavailable:
        torch = None
    return {**found, "torch": torch} if torch else found


def _severity(name: str, seen: Mapping[str, str], weight: _Weight, context: JobContext | None) -> Severity | None:
    """How bad the difference is; None where there is none that counts."""
    found: list[Severity | None] = []
    present = sorted({value for value in seen.values() if value != _NONE})
    if not present:
        return None
    if len(present) < len(set(seen.values())):
        needed = name == "deepspeed" and context is not None and context.deepspeed is not None
        found.append(_ERROR if needed else weight.absent)
    found += [_between(present[0], other, weight) for other in present[1:]]
    worst = max((severity for severity in found if severity), key=lambda severity: severity.rank, default=None)
    if name == "deepspeed" and context is not None and context.deepspeed is None and worst is _ERROR:
        return _INFO  # it is installed, and this job does without
    return worst


def _between(one: str, other: str, weight: _Weight) -> Severity | None:
    """How bad it is to have both of two releases."""
    first, second = version(one), version(other)
    if first is None or second is None:
        return weight.patch
    if first.major != second.major:
        return weight.major
    if first.minor != second.minor:
        return weight.minor
    return weight.patch


def _examples(seen: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """One host of each kind, in the hostfile's order."""
    shown: set[str] = set()
    for host, value in seen.items():
        if value not in shown:
            shown.add(value)
            yield host, value


def _fix(name: str, usual: str | None, seen: Mapping[str, str], cluster: Cluster) -> Fix:
    if usual is None:
        return Fix(f"Install the same {name} on every host")
    if usual == _NONE:
        return Fix(f"Install the same {name} on every host, or uninstall it where it is")
    members = [member for member in cluster.examined if seen.get(member.name, usual) != usual]
    commands = tuple(on_host(member.entry, _install(member, name, usual)) for member in members)
    return Fix(f"Install {name} {usual}, as the other hosts have it", commands)


def _install(member: Member, name: str, wanted: str) -> str:
    """The command for one release; builds of torch for a certain CUDA come from torch's own index."""
    if member.facts is None:
        return f"python -m pip install {name}=={wanted}"
    release, _, build = wanted.partition("+")
    if name != "torch" or not build:
        return install(member.facts, f"{name}=={release}")
    return install(member.facts, f"{name}=={release}", "--index-url", f"https://download.pytorch.org/whl/{build}")
