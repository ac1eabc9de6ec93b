"""TORCH_CUDA_ARCH_LIST, read as torch's cpp_extension and DeepSpeed read it."""

from __future__ import annotations

import re
from dataclasses import dataclass

# _get_cuda_arch_flags of torch/utils/cpp_extension.py, 2.13.0; longer names stand before those that they contain.
_NAMED = {
    "Kepler+Tesla": "3.7",
    "Kepler": "3.5+PTX",
    "Maxwell+Tegra": "5.3",
    "Maxwell": "5.0;5.2+PTX",
    "Pascal": "6.0;6.1+PTX",
    "Volta+Tegra": "7.2",
    "Volta": "7.0+PTX",
    "Turing": "7.5+PTX",
    "Ampere+Tegra": "8.7",
    "Ampere": "8.0;8.6+PTX",
    "Ada": "8.9+PTX",
    "Hopper": "9.0+PTX",
    "Blackwell+Tegra": "11.0",
    "Blackwell": "10.0;10.3;12.0;12.1+PTX",
}
_ENTRY = re.compile(r"(?P<major>\d{1,2})\.(?P<minor>\d)(?P<only>[af]?)(?P<ptx>\+PTX)?")


@dataclass(frozen=True)
class ArchList:
    """What the variable asks for: architectures as torch names them (sm_80, compute_90), and words that mean nothing.

    `asked` are the compute capabilities for which nvcc has to make code.
    """

    built: tuple[str, ...] = ()
    asked: tuple[tuple[int, int], ...] = ()
    wrong: tuple[str, ...] = ()


def read(value: str) -> ArchList | None:
    """The list; None where it is left to the cards that are there (empty, or `native`)."""
    if value.strip() in ("", "native"):
        return None
    for name, list_ in _NAMED.items():
        value = value.replace(name, list_)
    built: list[str] = []
    asked: list[tuple[int, int]] = []
    wrong: list[str] = []
    for word in value.replace(" ", ";").split(";"):
        match = _ENTRY.fullmatch(word.strip())
        if match is None:
            wrong += [word.strip()] if word.strip() else []
            continue
        digits = f"{match['major']}{match['minor']}{match['only']}"
        built += [f"sm_{digits}", *([f"compute_{digits}"] if match["ptx"] else [])]
        asked.append((int(match["major"]), int(match["minor"])))
    return ArchList(tuple(built), tuple(asked), tuple(wrong))
