"""NVML through ctypes."""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class NvmlError(Exception):
    """An answer of NVML that is not NVML_SUCCESS."""

    def __init__(self, code: int, text: str) -> None:
        Exception.__init__(self, text)
        self.code = code


# nvmlReturn_t. Source: nvml.h.
NVML_TEXT = {
    3: "Not Supported",
    4: "Insufficient Permissions",
    6: "Not Found",
    9: "Driver Not Loaded",
    10: "Timeout",
    13: "Function Not Found",
    15: "GPU is lost",
    16: "GPU requires reset",
    18: "Driver/library version mismatch",
    999: "Unknown Error",
}
NVML_STATUS = {9: "driver-not-loaded", 18: "library-mismatch", 12: "no-library"}
FUNCTION_NOT_FOUND = 13
INSUFFICIENT_SIZE = 7
RECOVERY_ACTION = 230  # NVML_FI_DEV_GET_GPU_RECOVERY_ACTION of nvml.h 13; older drivers answer "not supported"


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a query answers, or None when NVML has no answer."""
    try:
        return function(*arguments)
    except NvmlError:
        return None
    except Exception:  # a binding of another age: wrong argument types, a missing field
        return None


class CtypesNvml:
    """NVML through ctypes: each query by its C name. A symbol that an old driver lacks is "Function Not Found"."""

    via = "ctypes"

    def __init__(self) -> None:
        import ctypes

        self.c = ctypes
        self.library = ctypes.CDLL("libnvidia-ml.so.1")

    def call(self, symbol: str, *arguments: Any) -> int:
        """Call a function and return its code where that is no error of its own."""
        try:
            function = getattr(self.library, symbol)
        except AttributeError:
            function = None
        code = FUNCTION_NOT_FOUND if function is None else function(*arguments)
        if code not in (0, INSUFFICIENT_SIZE):
            raise NvmlError(code, NVML_TEXT.get(code, "NVML error %d" % code))
        return int(code)

    def start(self) -> None:
        """Call nvmlInit_v2."""
        self.call("nvmlInit_v2")

    def stop(self) -> None:
        """Call nvmlShutdown."""
        self.call("nvmlShutdown")

    def text(self, symbol: str, *arguments: Any) -> str:
        """A string that NVML writes into a buffer."""
        buffer = self.c.create_string_buffer(96)
        self.call(symbol, *(arguments + (buffer, self.c.c_uint(96))))
        return buffer.value.decode("utf-8", "replace")

    def integer(self, symbol: str, *arguments: Any) -> int:
        """An unsigned value of up to 64 bits that NVML writes; what it does not write stays 0."""
        value = self.c.c_ulonglong(0)
        self.call(symbol, *(arguments + (self.c.byref(value),)))
        return int(value.value)

    def pair(self, symbol: str, *arguments: Any) -> tuple[int, int]:
        """Two integers that NVML writes."""
        first, second = self.c.c_int(0), self.c.c_int(0)
        self.call(symbol, *(arguments + (self.c.byref(first), self.c.byref(second))))
        return first.value, second.value

    def device(self, index: int) -> Any:
        """The handle of a GPU."""
        handle = self.c.c_void_p()
        self.call("nvmlDeviceGetHandleByIndex_v2", self.c.c_uint(index), self.c.byref(handle))
        return handle

    def numbers(self, symbol: str, count: int, device: Any) -> list[int]:
        """Several unsigned integers that NVML writes."""
        values = [self.c.c_uint(0) for _ in range(count)]
        self.call(symbol, device, *[self.c.byref(value) for value in values])
        return [int(value.value) for value in values]

    def structure(self, symbol: str, size: int, version: int, device: Any) -> bytes:
        """A structure that NVML fills; one with a version carries `size | version << 24` in front (nvml.h)."""
        buffer = self.c.create_string_buffer(max(size, 256))  # room to spare should a driver write more
        if version:
            struct.pack_into("=I", buffer, 0, size | version << 24)
        self.call(symbol, device, buffer)
        return buffer.raw

    def memory(self, device: Any) -> tuple[int, int, int | None]:
        """Total, used and reserved bytes; before driver 510 what is reserved counts as used and is not told.

        nvmlMemory_v2_t: version, total, reserved, free, used (40 bytes); nvmlMemory_t: total, free, used.
        """
        try:
            raw = self.structure("nvmlDeviceGetMemoryInfo_v2", 40, 2, device)
        except NvmlError:
            raw = self.structure("nvmlDeviceGetMemoryInfo", 24, 0, device)
            total, _, used = struct.unpack_from("=QQQ", raw)
            return total, used, None
        total, reserved, _, used = struct.unpack_from("=8xQQQQ", raw)
        return total, used, reserved

    def fabric(self, device: Any) -> tuple[int, int]:
        """State and status of the card in an NVLink fabric.

        nvmlGpuFabricInfo_v2_t (36 bytes, driver 545 and newer): version, 16 bytes of a UUID, status, clique, state in
        one byte, health mask. nvmlGpuFabricInfo_t (28 bytes, driver 525): the same without version and mask.
        """
        try:
            raw = self.structure("nvmlDeviceGetGpuFabricInfoV", 36, 2, device)[4:]
        except NvmlError:
            raw = self.structure("nvmlDeviceGetGpuFabricInfo", 28, 0, device)
        status, state = struct.unpack_from("=16xI4xB", raw)
        return state, status

    def field(self, device: Any, number: int) -> int:
        """One of NVML's fields (NVML_FI_DEV_*) that holds a small number.

        nvmlFieldValue_t (40 bytes): field, scope, timestamp, latency, type of the value, return code, value.
        """
        buffer = self.c.create_string_buffer(40)
        struct.pack_into("=I", buffer, 0, number)
        self.call("nvmlDeviceGetFieldValues", device, self.c.c_int(1), buffer)
        code, value = struct.unpack_from("=28xII", buffer.raw)
        if code:
            raise NvmlError(code, NVML_TEXT.get(code, "NVML error %d" % code))
        return int(value)

    def retired_pages(self, device: Any, cause: int) -> int:
        """How many pages were retired for a cause: 0 several single-bit errors, 1 a double-bit error."""
        count = self.c.c_uint(0)  # no room for addresses: only their number is told
        self.call("nvmlDeviceGetRetiredPages", device, cause, self.c.byref(count), None)
        return int(count.value)

    def mig_devices(self, device: Any) -> int:
        """How many instances of a divided card can be used."""
        most = self.integer("nvmlDeviceGetMaxMigDeviceCount", device)
        handle = self.c.c_void_p()
        symbol = "nvmlDeviceGetMigDeviceHandleByIndex"
        return sum(attempt(self.call, symbol, device, index, self.c.byref(handle)) == 0 for index in range(most))

    def bus(self, device: Any) -> str:
        """The PCI address (nvmlPciInfo_t of _v3: 16 bytes legacy id, five 32-bit numbers, 32 bytes id)."""
        values = self.c.create_string_buffer(128)
        self.call("nvmlDeviceGetPciInfo_v3", device, values)
        return values.raw[36:68].split(b"\0")[0].decode("ascii", "replace")

    def processes(self, device: Any) -> list[tuple[int, int | None]]:
        """Process ids and the bytes they hold, of compute processes."""
        for symbol in ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetComputeRunningProcesses_v2"):
            count, table = self.c.c_uint(512), self.c.create_string_buffer(512 * 24)
            try:
                code = self.call(symbol, device, self.c.byref(count), table)
            except NvmlError as failure:
                if failure.code != FUNCTION_NOT_FOUND:
                    return []
                continue
            # nvmlProcessInfo_t of _v2 and _v3: process id, bytes, GPU instance, compute instance
            rows = list(struct.iter_unpack("=I4xQII", table.raw))[: count.value] if code == 0 else []
            return [(row[0], None if row[1] == 2**64 - 1 else row[1]) for row in rows]  # NVML_VALUE_NOT_AVAILABLE
        return []
