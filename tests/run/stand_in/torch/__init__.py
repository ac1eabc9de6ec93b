"""A stand-in for a torch with GPUs, for hosts without: what the deep trial calls, and what can go wrong with it.

TORCH_STAND_IN holds the wishes as JSON: `gpus`, how many there are; `import`, `start`, `gpu`, `copy`: what happens at
the import, when CUDA is asked, on a GPU by its number, on a copy by "source-target". Nothing is computed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import types
from typing import Any

WISHES = json.loads(os.environ.get("TORCH_STAND_IN", "{}"))

__version__ = "2.99.0+cu128"
version = types.SimpleNamespace(cuda="12.8")
int64, int32, float32, float16, bfloat16 = "int64", "int32", "float32", "float16", "bfloat16"


def befall(what: str | None) -> None:
    """Let happen what was wished."""
    if what == "hang":
        time.sleep(1000)
    elif what == "crash":
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what is not None and what != "wrong":
        raise RuntimeError(what)


class Tensor:
    """Numbers of which only is known how many are wrong; a number when it is asked for one."""

    def __init__(self, wrong: float = 0, device: str = "cpu") -> None:
        self.wrong, self.device = wrong, device

    def _same(self, *_: Any, **__: Any) -> Tensor:
        return self

    __add__ = __mul__ = __mod__ = __getitem__ = __matmul__ = __eq__ = __ne__ = _same  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]
    sum = float = cpu = to = nonzero = zero_ = _same

    def __int__(self) -> int:
        return int(self.wrong)

    def item(self) -> float:
        """The number."""
        return self.wrong

    def copy_(self, other: Tensor, non_blocking: bool = False) -> None:
        """Take what another GPU sends."""
        wish = WISHES.get("copy", {}).get(f"{other.device[5:]}-{self.device[5:]}")
        befall(wish)
        self.wrong = 7 if wish == "wrong" else 0


def arange(*_: int, dtype: str = "", device: str = "cpu") -> Tensor:
    """Numbers on a device."""
    if device == "cpu":
        return Tensor()
    wish = WISHES.get("gpu", {}).get(device[5:])
    befall(wish)
    return Tensor(3 if wish == "wrong" else 0, device)


def zeros(*_: int, dtype: str = "", device: str = "cpu") -> Tensor:
    """Numbers on a device."""
    return Tensor(0, device)


def tensor(values: list[float], device: str = "cpu") -> Tensor:
    """One number."""
    return Tensor(values[0], device)


def randint(*_: Any) -> Tensor:
    """Numbers."""
    return Tensor()


def manual_seed(_: int) -> None:
    """Nothing is left to chance."""


def _available() -> bool:
    befall(WISHES.get("start"))
    return bool(WISHES.get("gpus"))


def _init() -> None:
    raise RuntimeError("CUDA unknown error - this may be due to an incorrectly set up environment")


cuda = types.SimpleNamespace(
    is_available=_available,
    init=_init,
    device_count=lambda: WISHES["gpus"],
    set_device=lambda index: None,
    synchronize=lambda index=0: None,
    get_device_name=lambda index: f"Stand-in {index}",
    get_device_capability=lambda index: (8, 0),
    mem_get_info=lambda index: (1 << 30, 2 << 30),
    can_device_access_peer=lambda one, other: True,
    nccl=types.SimpleNamespace(version=lambda: (2, 99, 1)),
)
befall(WISHES.get("import"))
