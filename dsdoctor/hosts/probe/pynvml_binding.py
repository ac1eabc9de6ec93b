"""NVML through the host's own pynvml."""

from __future__ import annotations

from .nvml import FUNCTION_NOT_FOUND, NVML_TEXT, CtypesNvml, NvmlError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class PynvmlNvml:
    """NVML through the host's own pynvml (nvidia-ml-py, or the deprecated package of that name)."""

    via = "pynvml"

    def __init__(self) -> None:
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the deprecated package warns at import
            import pynvml  # type: ignore[import-untyped,unused-ignore]
        self.module: Any = pynvml
        # Structures and tables differ from one age of pynvml to the next; the library under it is the same.
        direct = CtypesNvml()
        self.memory, self.fabric, self.numbers = direct.memory, direct.fabric, direct.numbers
        self.retired_pages, self.mig_devices, self.field = direct.retired_pages, direct.mig_devices, direct.field

    def call(self, symbol: str, *arguments: Any) -> Any:
        """Call a function of the module; its exceptions become NvmlError."""
        function = getattr(self.module, symbol, None)
        if function is None:
            raise NvmlError(FUNCTION_NOT_FOUND, NVML_TEXT[FUNCTION_NOT_FOUND])
        problem: NvmlError | None = None
        try:
            return function(*arguments)
        except self.module.NVMLError as failure:
            code = int(getattr(failure, "value", 999))
            problem = NvmlError(code, NVML_TEXT.get(code, str(failure)))
        raise problem

    def start(self) -> None:
        """Call nvmlInit."""
        self.call("nvmlInit")

    def stop(self) -> None:
        """Call nvmlShutdown."""
        self.call("nvmlShutdown")

    def text(self, symbol: str, *arguments: Any) -> str:
        """A string, which older versions give as bytes."""
        value = self.call(symbol, *arguments)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def integer(self, symbol: str, *arguments: Any) -> int:
        """A number."""
        return int(self.call(symbol, *arguments))

    def pair(self, symbol: str, *arguments: Any) -> tuple[int, int]:
        """Two numbers."""
        first, second = self.call(symbol, *arguments)
        return int(first), int(second)

    def device(self, index: int) -> Any:
        """The handle of a GPU."""
        return self.call("nvmlDeviceGetHandleByIndex", index)

    def bus(self, device: Any) -> str:
        """The PCI address."""
        value = self.call("nvmlDeviceGetPciInfo", device).busId
        return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)

    def processes(self, device: Any) -> list[tuple[int, int | None]]:
        """Process ids and the bytes they hold, of compute processes."""
        for symbol in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetComputeRunningProcesses_v2"):
            try:
                rows = self.call(symbol, device)
            except NvmlError as failure:
                if failure.code != FUNCTION_NOT_FOUND:
                    return []
                continue
            return [(int(row.pid), getattr(row, "usedGpuMemory", None)) for row in rows]
        return []
