"""What is installed on a host against what a package or the job asks for: versions, markers, extras as pip has them.

Everything is evaluated for the host's interpreter and machine, never for the ones that this runs on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakKeyDictionary

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from dsdoctor.facts import HostFacts

# The packages that training is made of: what is wrong with one of them is more than a remark.
TRAINING = frozenset(
    {
        *("torch", "triton", "torchvision", "torchaudio", "numpy"),
        *("transformers", "tokenizers", "safetensors", "huggingface-hub", "sentencepiece", "protobuf"),
        *(
            "accelerate",
            "deepspeed",
            "pydantic",
            "pydantic-core",
            "peft",
            "trl",
            "bitsandbytes",
            "flash-attn",
            "xformers",
        ),
        *("datasets", "pyarrow", "pandas", "fsspec", "dill", "multiprocess", "evaluate", "liger-kernel"),
    }
)

# Of one thing under several names, any will do: (wanted, what also brings its module).
_STAND_INS = {
    "triton": ("pytorch-triton", "pytorch-triton-rocm", "triton-nightly"),
    "torch": ("torch-nightly",),
    "opencv-python": ("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "tensorflow": ("tensorflow-cpu", "tensorflow-gpu", "tf-nightly"),
    "psycopg2": ("psycopg2-binary",),
    "faiss-cpu": ("faiss-gpu", "faiss"),
}


@dataclass(frozen=True)
class Unmet:
    """A requirement that the installed packages do not meet. `installed` None: there is none of that name."""

    owner: str  # who asks: a package
    owner_version: str
    requirement: str  # without its marker: "fsspec[http]<=2024.6.1,>=2023.1.0"
    name: str
    installed: str | None
    extra: str = ""  # of the owner, for which it is wanted


@lru_cache(maxsize=16384)
def requirement(text: str) -> Requirement | None:
    """A requirement as pip reads it, None for a text that is none."""
    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


@lru_cache(maxsize=4096)
def version(text: str) -> Version | None:
    """A version, None for a text that is none."""
    try:
        return Version(text)
    except InvalidVersion:
        return None


@lru_cache(maxsize=16384)
def allows(specifier: str, installed: str) -> bool:
    """Whether a range of versions lets one in. What cannot be compared is let in: that is no finding.

    A preview counts as the release that it leads to as well: NVIDIA's containers have torch 2.6.0a0+….nv25.01.
    """
    found = version(installed)
    try:
        wanted = SpecifierSet(specifier)
    except InvalidSpecifier:
        return True
    if found is None or wanted.contains(found, prereleases=True):
        return True
    return found.is_prerelease and wanted.contains(found.base_version)


# A dozen checks ask for the same: it is worked out once a host.
_VERSIONS: WeakKeyDictionary[HostFacts, Mapping[str, str]] = WeakKeyDictionary()


def versions(host: HostFacts) -> Mapping[str, str]:
    """The version that `import` would take, by package. Raises FactUnavailable."""
    found = _VERSIONS.get(host)
    if found is None:
        # Of two with one name the first along the path counts; a dictionary keeps the last that it is given.
        found = {package.name: package.version for package in reversed(host.packages.distributions)}
        _VERSIONS[host] = found
    return found


def marker_environment(host: HostFacts) -> dict[str, str]:
    """What the markers of requirements are evaluated with (PEP 508), for a host. Raises FactUnavailable."""
    python, system = host.python, host.os
    return {
        "implementation_name": python.implementation.lower(),
        "implementation_version": python.version,
        "os_name": "posix",
        "platform_machine": system.machine,
        "platform_python_implementation": python.implementation,
        "platform_release": system.kernel,
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": python.version,
        "python_version": ".".join(python.version.split(".")[:2]),
        "sys_platform": "linux",
    }


def applies(wanted: Requirement, environment: Mapping[str, str], extra: str = "") -> bool:
    """Whether a requirement's marker holds. One that cannot be evaluated does not."""
    if wanted.marker is None:
        return True
    try:
        return wanted.marker.evaluate({**environment, "extra": extra})
    except ValueError:  # an undefined name or comparison, a version that is none: packaging derives all from it
        return False


def meets(wanted: Requirement, there: Mapping[str, str]) -> tuple[bool, str | None]:
    """Whether what is installed meets a requirement, and the version that was compared."""
    name = canonicalize_name(wanted.name)
    names = (name, *_STAND_INS.get(name, ()))
    installed = next((there[one] for one in names if one in there), None)
    if installed is None:
        return False, None
    return bool(wanted.url) or allows(str(wanted.specifier), installed), installed


def unmet(host: HostFacts) -> tuple[Unmet, ...]:
    """Every requirement of the installed packages that is not met, extras included where somebody asks for them.

    For a thousand hosts with the same packages it is worked out once. Raises FactUnavailable.
    """
    rows = tuple((name, asked.requires) for name, asked in host.requirements.packages.items() if asked.requires)
    environment = {**marker_environment(host), "platform_release": ""}  # no package asks for a kernel
    return _unmet(rows, tuple(versions(host).items()), tuple(environment.items()))


@lru_cache(maxsize=64)
def _unmet(
    rows: tuple[tuple[str, tuple[str, ...]], ...],
    there: tuple[tuple[str, str], ...],
    environment: tuple[tuple[str, str], ...],
) -> tuple[Unmet, ...]:
    installed, markers = dict(there), dict(environment)
    asked: dict[str, set[str]] = {name: {""} for name, _ in rows}
    for _ in range(3):  # an extra may ask for an extra
        for owner, lines in rows:
            for wanted, _ in _holding(lines, asked[owner], markers):
                if wanted.extras and (name := canonicalize_name(wanted.name)) in asked:
                    asked[name] |= {extra.lower() for extra in wanted.extras}
    found: list[Unmet] = []
    for owner, lines in rows:
        for wanted, extra in _holding(lines, asked[owner] | _OPTIONAL.get(owner, set()), markers):
            met, have = meets(wanted, installed)
            if met or (have is None and extra in _OPTIONAL.get(owner, ()) and extra not in asked[owner]):
                continue  # what only an optional part needs may be left out, but not be too old
            text = f"{canonicalize_name(wanted.name)}{_extras(wanted)}{wanted.specifier}"
            one = Unmet(owner, installed.get(owner, ""), text, canonicalize_name(wanted.name), have, extra)
            if not any(other.owner == owner and other.requirement == text for other in found):
                found.append(one)
    return tuple(found)


# So many missing packages are named in a sentence.
_NAMED = 4


def told(wanted: Iterable[tuple[str, str | None]]) -> str:
    """Requirements with what is there instead, as the rest of a sentence; what is missing comes last."""
    pairs = list(wanted)
    parts = [f"{text}, and {have} is installed" for text, have in pairs if have is not None]
    missing = [text for text, have in pairs if have is None]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        parts.append(f"{', '.join(missing[:_NAMED])}{more}, which {'are' if missing[1:] else 'is'} not installed")
    return "; ".join(parts)


# The parts of a package that come to life when the other package is there.
_OPTIONAL: dict[str, set[str]] = {"transformers": {"torch", "deepspeed", "accelerate"}, "accelerate": {"deepspeed"}}


def _holding(
    lines: Iterable[str], extras: Iterable[str], markers: Mapping[str, str]
) -> Iterator[tuple[Requirement, str]]:
    """The requirements whose markers hold, each with the extra that it is for."""
    for line in lines:
        wanted = requirement(line)
        if wanted is None:
            continue
        for extra in sorted(extras):
            if applies(wanted, markers, extra):
                yield wanted, extra if "extra" in str(wanted.marker or "") else ""
                break


def _extras(wanted: Requirement) -> str:
    return f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""
