"""Installed packages do not have what their own metadata asks for."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.installed import TRAINING, Unmet, allows, told, unmet
from dsdoctor.checks.remedy import install, on_host
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# What transformers compares at its own import and stops for: dependency_versions_check.py of 4.28.0, 4.34.0 … 4.57.1
# and 5.23.0 (which leaves requests out). The second line came between 4.29.2 and 4.34.0.
_AT_IMPORT = frozenset({"tqdm", "regex", "requests", "packaging", "filelock", "numpy", "tokenizers"})
_AT_IMPORT_SINCE_4_34 = frozenset({"huggingface-hub", "safetensors", "accelerate", "pyyaml"})

# Unmet requirements of packages that training does without are counted, and this many of them named.
_NAMED = 5


@check(severity=Severity.WARNING, since="0.1")
def broken_requirements(host: HostFacts, entry: HostEntry, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """A package that training needs does not have what its own metadata asks for, in the version that it asks for.

    ## Why it matters
    pip prints such a conflict once, at the end of an installation, and goes on. It shows up later as an ImportError in
    the middle of somebody else's module, as an attribute that is not there, or as an extension that is silently left
    out (xformers built for another torch). transformers compares some of them at its import and stops there: that is
    an error. Packages that training does not use are counted in one remark.

    ## How to fix it
    Install what is asked for; pip then names what else disagrees. Where two packages exclude each other, one of them
    has to move: an environment of its own for the job is the way out.

    ## Source
    Requires-Dist in the metadata of what is installed, with markers and extras evaluated for the job's own interpreter
    (PEP 508), as `pip check` does without extras; transformers, dependency_versions_check.py.
    """
    broken = [one for one in unmet(host) if not _left_to_others(host, one)]
    for owner in dict.fromkeys(one.owner for one in broken if one.owner in TRAINING):
        mine = [one for one in broken if one.owner == owner]
        severe = [one for one in mine if _stops(host, one, context)]
        yield broken_requirements.finding(
            f"{owner} {mine[0].owner_version} wants {told((one.requirement, one.installed) for one in mine)}",
            severity=Severity.ERROR if severe else Severity.WARNING,
            evidence=[Evidence(text=_cited(one), source=host.name) for one in mine],
            fix=[
                Fix(
                    f"Install what {owner} wants; pip names what else then disagrees",
                    (on_host(entry, install(host, *(one.requirement for one in mine))),),
                )
            ],
        )
    others = [one for one in broken if one.owner not in TRAINING]
    if others:
        named = ", ".join(f"{one.owner} wants {one.requirement}" for one in others[:_NAMED])
        more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
        yield broken_requirements.finding(
            f"packages that training does without lack what they ask for: {named}{more}",
            severity=Severity.INFO,
            evidence=[Evidence(text=_cited(one), source=host.name) for one in others[:_NAMED]],
        )


def _cited(one: Unmet) -> str:
    extra = f" (for {one.extra})" if one.extra else ""
    return (
        f"{one.owner} {one.owner_version}: Requires-Dist: {one.requirement}{extra}; {one.installed or 'not'} installed"
    )


def _stops(host: HostFacts, one: Unmet, context: JobContext | None) -> bool:
    """Whether transformers will not be imported, or not find its torch, because of it."""
    if one.owner != "transformers":
        return False
    names = _AT_IMPORT | (_AT_IMPORT_SINCE_4_34 if allows(">=4.34", one.owner_version) else frozenset())
    if one.name in names:
        return True
    # "Disabling PyTorch because PyTorch >= 2.1 is required" (import_utils.py, 4.57.1; not in 4.51.3).
    return one.name == "torch" and one.installed is not None and allows(">=4.57", one.owner_version)


def _left_to_others(host: HostFacts, one: Unmet) -> bool:
    """What another check says better, or what is there under another name."""
    if one.name.startswith("nvidia-nccl"):
        return True  # duplicate-nccl and nccl-differs-from-torch
    if one.name == "ninja" and one.installed is None:
        return _has_ninja(host)
    if one.name == "torch" and one.installed is not None:
        try:  # its compiled part was compared with torch itself: built-for-another-torch
            return any(module.package == one.owner and module.checked for module in host.binaries.modules)
        except FactUnavailable:
            return False
    return False


def _has_ninja(host: HostFacts) -> bool:
    """Whether ninja is there as a program: conda has it without a Python distribution."""
    try:
        return host.compilers.tools.get("ninja") is not None
    except FactUnavailable:
        return False
