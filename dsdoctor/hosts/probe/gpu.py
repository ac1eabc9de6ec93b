"""The GPUs."""

from __future__ import annotations

from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@section
def fact_gpu(ask: Ask) -> dict[str, Any]:
    """Source: NVML by pynvml if the host has it, else by ctypes; nvidia-smi where the library cannot be opened."""
    try:
        opened("libnvidia-ml.so.1")
    except OSError as failure:
        from .nvidia_smi import nvidia_smi

        return nvidia_smi(str(failure))
    from .cards import learnt  # on a host without GPUs none of that is needed

    return learnt()


def opened(library: str) -> None:
    """Open a library as ctypes does. Raises OSError with the loader's words; most of ctypes is not needed for these."""
    try:
        import _ctypes
    except ImportError:  # an interpreter with another make of it
        import ctypes

        ctypes.CDLL(library)
    else:
        _ctypes.dlopen(library, 0)
