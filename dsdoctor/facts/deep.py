"""What the deep trial saw."""

from __future__ import annotations

import msgspec


class DeepStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step of the deep trial that was begun, and what it cost. `error` says how it ended where that was not well."""

    name: str  # torch | gpus | copies | host all-reduce | import NAME | job all-reduce
    seconds: float = 0.0
    error: str | None = None


class DeepTorch(msgspec.Struct, frozen=True, kw_only=True):
    """torch as it was imported by the job's interpreter. `gpus` None: it was not asked, or did not come back."""

    version: str | None = None  # None: it could not be imported
    cuda: str | None = None
    path: str = ""
    nccl: str | None = None  # of the library that is loaded, as it says itself
    gpus: int | None = None  # that torch sees
    gpu_error: str | None = None  # why it sees none
    visible_devices: str | None = None  # CUDA_VISIBLE_DEVICES as the ranks would have it
    import_seconds: float | None = None
    error: str | None = None
    output: tuple[str, ...] = ()  # what was printed, where it failed


class DeepGpu(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU on which memory was filled and read back, and matrices were multiplied.

    `products` are the wrong numbers of a product by precision, out of 1,048,576; None where it was not come to.
    """

    index: int  # as nvidia-smi numbers it
    name: str = ""
    free_bytes: int | None = None
    total_bytes: int | None = None
    filled_bytes: int | None = None
    wrong: int | None = None  # 64-bit numbers that were read back otherwise than they were written
    products: dict[str, int | None] = {}
    seconds: float = 0.0
    error: str | None = None


class DeepCopy(msgspec.Struct, frozen=True, kw_only=True):
    """A copy from one GPU to another, compared number by number. With an `error` the figures mean nothing."""

    source: int
    target: int
    peer_access: bool | None = None  # CUDA lets the target reach the source's memory
    numbers: int = 0
    wrong: int | None = None
    first_wrong: int | None = None  # the place of the first wrong one
    zeros: int | None = None  # of the wrong ones: nothing has arrived
    gigabytes_per_second: float | None = None
    error: str | None = None


class DeepImport(msgspec.Struct, frozen=True, kw_only=True):
    """A package with compiled parts that was imported."""

    package: str  # as pip names it
    wanted_by: str | None = None  # what of the job asks for it; None: no job was given
    version: str | None = None
    error: str | None = None
    output: tuple[str, ...] = ()


class DeepSum(msgspec.Struct, frozen=True, kw_only=True):
    """An all-reduce of so many bytes: seconds for one, and how many of its sums were wrong."""

    bytes: int
    seconds: float
    wrong: int = 0


class DeepRank(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank saw, as far as it came: started, imported, joined, adding, done."""

    rank: int
    local_rank: int = 0
    host: str = ""  # as the rank's own host calls itself
    device: str = ""  # the GPU's name; empty for a rank on the processor
    interface: str = ""  # GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME as the rank has it
    at: str = ""
    seconds: float = 0.0  # from its start to this point
    adding: int | None = None  # bytes of the all-reduce that it was in
    too_long: int | None = None  # bytes of the one that was left out, because it would have taken too long
    sums: tuple[DeepSum, ...] = ()


class DeepOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank (None: torchrun itself) printed: its first and last lines."""

    rank: int | None = None
    lines: tuple[str, ...] = ()


class DeepCollective(msgspec.Struct, frozen=True, kw_only=True):
    """An all-reduce through torchrun as this host saw it, over its own ranks or over all of the job's."""

    scope: str  # host | job
    backend: str = ""  # nccl | gloo
    world_size: int = 0
    hosts: tuple[str, ...] = ()
    address: str = ""  # where the ranks met
    ranks: tuple[DeepRank, ...] = ()  # of this host
    expected: tuple[int, ...] = ()  # the ranks that this host should have
    seconds: float = 0.0
    error: str | None = None  # how it ended here, where that was not well
    first: bool = False  # this host was the first at which it went wrong
    not_tried: str | None = None  # why it was not begun
    output: tuple[DeepOutput, ...] = ()  # where it went wrong anywhere


class DeepFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What came of `--deep`: torch, GPUs and collectives tried for real, each in a process with a time limit."""

    steps: tuple[DeepStep, ...] = ()
    torch: DeepTorch | None = None
    gpus: tuple[DeepGpu, ...] = ()
    copies: tuple[DeepCopy, ...] = ()
    imports: tuple[DeepImport, ...] = ()
    collectives: tuple[DeepCollective, ...] = ()
    lost: str | None = None  # how the host went away in the middle, or why nothing could be started on it

    def collective(self, scope: str) -> DeepCollective | None:
        """The all-reduce over the host's ranks (`host`) or all ranks (`job`); None when there was none to try."""
        return next((each for each in self.collectives if each.scope == scope), None)
