"""Which NCCL a host's torch asks for and which one it would load: what three checks compare."""

from __future__ import annotations

from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from dsdoctor.facts import FactUnavailable, HostFacts, NcclCopy, NcclFacts


@dataclass(frozen=True)
class Pin:
    """The NCCL wheel in torch's own metadata: "nvidia-nccl-cu12==2.18.1"."""

    package: str
    version: str

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.package}=={self.version}"


def pinned(host: HostFacts) -> Pin | None:
    """What the metadata of the job's torch pins; None when it names no NCCL (a CPU build, or NCCL linked in).

    Raises:
        FactUnavailable: torch could not be looked at, or its metadata cannot be read.
    """
    text = host.torch.nccl_requirement
    if not text:
        return None
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise FactUnavailable("torch", f"its NCCL requirement {text!r} cannot be read") from None
    versions = [spec.version for spec in requirement.specifier if spec.operator in ("==", "===")]
    if len(versions) != 1:
        raise FactUnavailable("torch", f"its NCCL requirement {text!r} names no single version")
    return Pin(requirement.name, versions[0])


def loaded(host: HostFacts) -> NcclCopy | None:
    """The copy that the job's torch would load, None when there is none.

    Raises:
        FactUnavailable: the copies were not looked for, which one is loaded could not be told, or it is a file that
            several packages own: any install may change it.
    """
    nccl = host.nccl
    if len(nccl.owners) > 1 and nccl.loaded in (None, nccl.wheel_file):
        raise FactUnavailable("nccl", "several packages own its file, and duplicate-nccl comes first")
    if nccl.loaded == nccl.wheel_file and written_over(nccl) is not None:
        raise FactUnavailable("nccl", "its package's file was written over, and duplicate-nccl comes first")
    if nccl.loaded is None:
        if nccl.copies:
            raise FactUnavailable("nccl", "which of the copies torch would load could not be told")
        return None
    copy = next((copy for copy in nccl.copies if nccl.loaded in (copy.path, copy.real_path)), None)
    if copy is None:
        raise FactUnavailable("nccl", f"{nccl.loaded} is loaded but was not read")
    return copy


def written_over(nccl: NcclFacts) -> NcclCopy | None:
    """The wheel's file, where it is not what its one owner brought: of another version, or for another CUDA.

    The file's own version has no post-release number, and the owner's name ends with the major version of CUDA.
    """
    copy = next((copy for copy in nccl.copies if nccl.wheel_file in (copy.path, copy.real_path)), None)
    if copy is None or len(nccl.owners) != 1:
        return None
    try:
        brought, seen = Version(nccl.owners[0].version), Version(copy.version or "")
    except InvalidVersion:
        return None
    cuda = nccl.owners[0].name.rpartition("-cu")[2]
    other_cuda = cuda.isdecimal() and copy.cuda is not None and copy.cuda.partition(".")[0] != cuda
    return copy if brought.release[:3] != seen.release[:3] or other_cuda else None


def version_of(copy: NcclCopy) -> Version:
    """The version in the bytes of a copy. Raises FactUnavailable when it is not there."""
    try:
        return Version(copy.version or "")
    except InvalidVersion:
        raise FactUnavailable("nccl", f"no version could be read from {copy.path}") from None
