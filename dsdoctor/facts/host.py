"""A host's snapshot, and its sections typed."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

import msgspec

from dsdoctor.facts.building import CompilerFacts, CudaFacts, ExtensionFacts
from dsdoctor.facts.deep import DeepFacts
from dsdoctor.facts.environment import EnvironmentFacts, SessionFacts
from dsdoctor.facts.gpu import DriverFacts, GpuFacts, KernelLogFacts, PciFacts
from dsdoctor.facts.inputs import InputFacts
from dsdoctor.facts.network import InfinibandFacts, NetworkFacts, PeerFacts
from dsdoctor.facts.python import (
    BinaryFacts,
    BitsandbytesFacts,
    ConfigKeyFacts,
    DeepspeedFacts,
    NcclFacts,
    PackageFacts,
    PythonFacts,
    RequirementFacts,
    TorchFacts,
)
from dsdoctor.facts.system import ContainerFacts, CpuFacts, DiskFacts, LimitFacts, MemoryFacts, OsFacts, ShmFacts

SCHEMA = "dsdoctor.facts/1"

T = TypeVar("T")


class FactUnavailable(Exception):  # noqa: N818 - a check that meets it is skipped, nothing has failed
    """A fact could not be learnt. Carries the section and the reason; the check that asked is skipped."""

    def __init__(self, section: str, reason: str) -> None:
        super().__init__(f"{section}: {reason}")
        self.section = section
        self.reason = reason


class Section(msgspec.Struct, frozen=True, omit_defaults=True):
    """One section of a probe's answer, as it came: a value or an error, and what it cost."""

    value: Any = None
    error: str | None = None
    seconds: float = 0.0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All that was learnt about one host, as stored: `--save-facts` writes it, `--facts` reads it."""

    schema: str = SCHEMA
    host: str
    origin: str = ""  # recorded on what, or composed from what
    probe_version: str = ""
    recorded_at: str = ""  # ISO 8601, UTC
    sections: dict[str, Section] = {}


class _Fact(Generic[T]):
    """A typed section of :class:`HostFacts`; reading it may raise :class:`FactUnavailable`."""

    def __init__(self, kind: type[T], gathered: bool = True) -> None:
        self.kind = kind
        self.gathered = gathered  # by every probe; others are there when they were asked for

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, host: None, owner: type) -> _Fact[T]: ...
    @overload
    def __get__(self, host: HostFacts, owner: type) -> T: ...
    def __get__(self, host: HostFacts | None, owner: type) -> _Fact[T] | T:
        if host is None:
            return self
        return host.read(self.name, self.kind)


class HostFacts:
    """The facts of one host. Attributes are sections; reading one that was not learnt raises FactUnavailable."""

    os = _Fact(OsFacts)
    python = _Fact(PythonFacts)
    packages = _Fact(PackageFacts)
    torch = _Fact(TorchFacts)
    nccl = _Fact(NcclFacts)
    gpu = _Fact(GpuFacts)
    driver = _Fact(DriverFacts)
    pci = _Fact(PciFacts)
    kernel_log = _Fact(KernelLogFacts)
    cuda = _Fact(CudaFacts)
    network = _Fact(NetworkFacts)
    infiniband = _Fact(InfinibandFacts)
    limits = _Fact(LimitFacts)
    shm = _Fact(ShmFacts)
    disk = _Fact(DiskFacts)
    memory = _Fact(MemoryFacts)
    cpu = _Fact(CpuFacts)
    environment = _Fact(EnvironmentFacts)
    container = _Fact(ContainerFacts)
    compilers = _Fact(CompilerFacts)
    bitsandbytes = _Fact(BitsandbytesFacts)
    requirements = _Fact(RequirementFacts)
    binaries = _Fact(BinaryFacts)
    deepspeed = _Fact(DeepspeedFacts)
    extensions = _Fact(ExtensionFacts)
    session = _Fact(SessionFacts)
    inputs = _Fact(InputFacts)
    peers = _Fact(PeerFacts, gathered=False)
    deep = _Fact(DeepFacts, gathered=False)
    config_keys = _Fact(ConfigKeyFacts, gathered=False)

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._typed: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The host's name as the hostfile has it."""
        return self.snapshot.host

    def read(self, section: str, kind: type[T]) -> T:
        """The typed value of a section.

        Raises:
            FactUnavailable: the section is missing, failed on the host, or has another shape than this version reads.
        """
        if section in self._typed:
            value: T = self._typed[section]
            return value
        raw = self.snapshot.sections.get(section)
        if raw is None:
            raise FactUnavailable(section, "the probe did not report it")
        if raw.error is not None:
            raise FactUnavailable(section, raw.error)
        try:
            value = msgspec.convert(raw.value, kind)
        except msgspec.ValidationError as error:
            raise FactUnavailable(section, f"not in the form this version reads: {error}") from None
        self._typed[section] = value
        return value

    @classmethod
    def sections(cls) -> tuple[str, ...]:
        """The names of the sections that every probe gathers, in the order of the class."""
        return tuple(name for name, value in vars(cls).items() if isinstance(value, _Fact) and value.gathered)
