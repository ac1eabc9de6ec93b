"""This process among the others: where it runs, the process group, and ways for all ranks to agree.

Control messages go over gloo, gradients over NCCL where every rank has a CUDA device, else over gloo too.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from continual import AgreedError, ContinualError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "fp32", "fp16", "bf16")
STACKS_SIGNAL = "DSDOCTOR_STACKS_SIGNAL"  # e.g. USR1; dsdoctor sends it to ranks that stand still


@dataclass(frozen=True)
class Place:
    """What the launcher says of this process; one process alone where it says nothing."""

    host: str
    rank: int = 0
    local_rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls) -> Place:
        """Read RANK, LOCAL_RANK and WORLD_SIZE as torchrun sets them. Raises ContinualError when one is no number."""
        values = {}
        for name, default in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
            text = os.environ.get(name, default)
            if not text.isdecimal():
                raise ContinualError(f"environment: {name}={text!r}: wanted a number, as torchrun sets it")
            values[name.lower()] = int(text)
        return cls(host=socket.gethostname(), **values)

    def __str__(self) -> str:
        return f"rank {self.rank} (host {self.host})"


@dataclass(frozen=True)
class Ranks:
    """The process group, joined. `precision` is the one that every rank computes in."""

    place: Place
    device: torch.device
    precision: str

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks, in the order of ranks, on every rank."""
        if self.place.world_size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.place.world_size
        dist.all_gather_object(values, value)
        return values

    def of(self, rank: int, value: Any) -> Any:
        """One rank's value, on every rank; what the others give is not looked at. Tensors must lie on the CPU."""
        if self.place.world_size == 1:
            return value
        import torch.distributed as dist

        values = [value if self.place.rank == rank else None]
        dist.broadcast_object_list(values, src=rank, device=None)
        return values[0]

    def of_first(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        return self.of(0, value)

    def sums(self, *numbers: float) -> list[float]:
        """Each number summed over the ranks."""
        return [sum(column) for column in zip(*self.gather(numbers), strict=True)]

    @contextmanager
    def together(self) -> Iterator[None]:
        """A phase that all ranks finish or none: a failure on one is raised on all, named by rank and host.

        Nothing inside may wait for another rank.

        Raises:
            AgreedError: the failure of the lowest rank that failed, on every rank.
        """
        failure: str | None = None
        try:
            yield
        except ContinualError as error:
            failure = str(error)
        except Exception as error:
            traceback.print_exc()
            failure = f"{type(error).__name__}: {error}"
        failures = [(rank, text) for rank, text in enumerate(self.gather((str(self.place), failure))) if text[1]]
        if not failures:
            return
        _, (where, text) = failures[0]
        everywhere = len(failures) == self.place.world_size and all(other[1] == text for _, other in failures)
        raise AgreedError(text if everywhere else f"{where}: {text}")

    def same(self, what: str, value: Any) -> None:
        """Hold that a value is equal on all ranks. Raises AgreedError naming the first that differs from rank 0's."""
        values = self.gather((str(self.place), value))
        for where, other in values[1:]:
            if other != values[0][1]:
                raise AgreedError(f"{what} differs: {where} has {other}, {values[0][0]} has {values[0][1]}")

    def leave(self) -> None:
        """Leave the process group."""
        if self.place.world_size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()


def answer_with_stacks() -> None:
    """Print the stacks of all threads whenever the signal comes that $DSDOCTOR_STACKS_SIGNAL names; without it, none.

    Raises:
        ContinualError: no such signal, or one that cannot be listened to.
    """
    name = os.environ.get(STACKS_SIGNAL, "")
    if not name:
        return
    number = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
    try:
        if not isinstance(number, signal.Signals):
            raise ValueError("no such signal")
        faulthandler.register(number, all_threads=True)
    except (ValueError, OSError, RuntimeError) as error:
        raise ContinualError(f"environment: {STACKS_SIGNAL}={name!r}: {error}; wanted USR1 or USR2") from None


def join(place: Place, precision: str, timeout: float) -> Ranks:
    """Choose the device, say where this rank runs, and join the others. `timeout` (seconds) holds for every collective.

    Raises:
        ContinualError: no device for this rank, ranks on unlike devices, a precision that one lacks, a rank missing.
    """
    import torch

    device = _device(place)
    if device.type == "cpu" and precision not in ("auto", "fp32"):
        raise ContinualError(f"--precision {precision}: {place} computes on the CPU; wanted fp32 or auto")
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    names = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
    interfaces = " ".join(f"{name}={os.environ.get(name, '(unset)')}" for name in names)
    print(
        f"continual: host {place.host} rank {place.rank} local_rank {place.local_rank} world_size {place.world_size} "
        f"backend {backend if place.world_size > 1 else 'none'} device {device} threads {torch.get_num_threads()} "
        f"precision {'fp32' if device.type == 'cpu' else precision} {interfaces}",
        flush=True,
    )
    mine = {"place": str(place), "device": device.type, "bf16": _has_bf16(device)}
    if place.world_size == 1:
        return Ranks(place, device, _precision(precision, [mine]))
    everyone = _rendezvous(place, device, backend, mine, timedelta(seconds=timeout))
    return Ranks(place, device, _precision(precision, everyone))


def _device(place: Place) -> torch.device:
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    if place.local_rank >= torch.cuda.device_count():
        raise ContinualError(
            f"{place}: local_rank {place.local_rank}, but torch sees {torch.cuda.device_count()} CUDA devices "
            f"(CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '(unset)')}); wanted: one for each process"
        )
    torch.cuda.set_device(place.local_rank)
    return torch.device("cuda", place.local_rank)


def _has_bf16(device: torch.device) -> bool:
    """Whether the device computes bf16 itself: compute capability 8.0 (Ampere) and later."""
    import torch

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _rendezvous(
    place: Place, device: torch.device, backend: str, mine: dict[str, Any], timeout: timedelta
) -> list[dict[str, Any]]:
    """Compare what each rank runs on, then form the group: with unlike devices it would only hang until the timeout."""
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    try:
        store, _, _ = next(iter(rendezvous("env://", place.rank, place.world_size, timeout=timeout)))
    except dist.DistStoreError as error:
        raise ContinualError(
            f"{place}: {str(error).splitlines()[0]} (--ddp_timeout); wanted: all {place.world_size} ranks started"
        ) from None
    store.set_timeout(timeout)
    store.set(f"continual/{place.rank}", json.dumps(mine))
    everyone = []
    for rank in range(place.world_size):
        try:
            everyone.append(json.loads(store.get(f"continual/{rank}")))
        except dist.DistStoreError:
            raise ContinualError(
                f"{place}: rank {rank} did not come within {timeout.total_seconds():.0f} s (--ddp_timeout); "
                f"wanted: all {place.world_size} ranks started"
            ) from None
    for other in everyone:
        if other["device"] != everyone[0]["device"]:
            raise AgreedError(
                f"{other['place']} computes on {other['device']}, {everyone[0]['place']} on {everyone[0]['device']}; "
                "wanted: the same on all\n  dsdoctor check says why torch sees no GPU on a host"
            )
    dist.init_process_group(
        backend,
        store=dist.PrefixStore("group", store),
        rank=place.rank,
        world_size=place.world_size,
        timeout=timeout,
        device_id=device if device.type == "cuda" else None,
    )
    return everyone


def _precision(wanted: str, everyone: list[dict[str, Any]]) -> str:
    if everyone[0]["device"] == "cpu":
        return "fp32"
    lacking = [other["place"] for other in everyone if not other["bf16"]]
    if wanted == "bf16" and lacking:
        raise AgreedError(f"--precision bf16: the GPU of {lacking[0]} does not compute bf16; wanted fp16, fp32 or auto")
    if wanted == "auto":
        return "fp16" if lacking else "bf16"
    return wanted
