"""Which CUDA toolkit, compiler and card go together when an op is built."""

from __future__ import annotations

from dsdoctor.checks.installed import allows, version
from dsdoctor.facts import HostFacts

# The newest gcc that a toolkit's nvcc takes: "unsupported GNU version! gcc versions later than 12 are not supported" in
# crt/host_config.h. Read in the packages nvidia-cuda-nvcc 11.8.89, 12.1.105, 12.2.140, 12.3.107, 12.4.131, 12.6.85 and
# 12.8.93; the rest by CUDA_GCC_VERSIONS of torch/utils/cpp_extension.py, 2.13.0.
_NEWEST_GCC = {
    "11.0": 9,
    **dict.fromkeys(("11.1", "11.2", "11.3"), 10),
    **dict.fromkeys(("11.4", "11.5", "11.6", "11.7", "11.8"), 11),
    **dict.fromkeys(("12.0", "12.1", "12.2", "12.3"), 12),
    **dict.fromkeys(("12.4", "12.5", "12.6"), 13),
    **dict.fromkeys(("12.8", "12.9"), 14),
    "13.0": 15,
}

# The first toolkit that can build for a card, and the last: `ptxas --help` of the packages above, and for 8.0 and 8.6
# the CUDA 11.0 and 11.1 release notes; CUDA 13 builds for nothing below 7.5 (pytorch RFC 190385).
_FIRST_FOR_CARD = {(8, 0): "11.0", (8, 6): "11.1", (8, 9): "11.8", (9, 0): "11.8", (10, 0): "12.8", (12, 0): "12.8"}
_OLDEST_CARD_OF_13 = (7, 5)

# Minor versions of CUDA 12 that DeepSpeed lets differ between toolkit and torch, each with the release that knows it
# (cuda_minor_mismatch_ok in op_builder/builder.py, tags v0.9.3 to v0.19.5). 13.x is not in it: only equal ones pass.
_ACCEPTED_SINCE = {
    **{f"11.{minor}": "0.9.0" for minor in range(9)},
    **dict.fromkeys(("12.0", "12.1"), "0.9.3"),
    **dict.fromkeys(("12.2", "12.3"), "0.12.1"),
    **dict.fromkeys(("12.4", "12.5"), "0.14.3"),
    "12.6": "0.15.3",
    "12.8": "0.16.4",
    "12.9": "0.17.2",
}


def newest_gcc(cuda: str) -> int | None:
    """The newest major version of gcc that a toolkit takes, None where that is not known."""
    return _NEWEST_GCC.get(cuda)


def oldest_gcc(torch: str) -> int:
    """The oldest major version of gcc that torch's headers take.

    c10/util/C++17.h: "We need GCC 9 or later" from torch 2.3 on; C++17 (gcc 7) from 2.1 on; MINIMUM_GCC_VERSION 5 of
    cpp_extension.py before.
    """
    return 9 if allows(">=2.3", torch) else 7 if allows(">=2.1", torch) else 5


def builds_for(cuda: str, card: tuple[int, int]) -> bool:
    """Whether a toolkit's compiler can make code for a card; true where that is not known."""
    found = version(cuda)
    if found is None:
        return True
    if found.major >= 13 and card < _OLDEST_CARD_OF_13:
        return False
    known = [first for capability, first in _FIRST_FOR_CARD.items() if capability <= card and capability[0] == card[0]]
    return not known or allows(f">={known[-1]}", cuda)


def accepted(deepspeed: str, toolkit: str, torch: str) -> bool:
    """Whether DeepSpeed builds with a toolkit of another minor version than torch's."""
    return all(one in _ACCEPTED_SINCE and allows(f">={_ACCEPTED_SINCE[one]}", deepspeed) for one in (toolkit, torch))


def minor_of(text: str) -> str:
    """Major and minor version: "12.1" of "12.1.105"."""
    return ".".join(text.split(".")[:2])


def other_toolkit(host: HostFacts, cuda: str) -> str | None:
    """The path of a toolkit on the host of the same major version as torch's CUDA, the same minor if there is one."""
    major = cuda.partition(".")[0]
    same = [kit for kit in host.cuda.toolkits if kit.version and kit.version.partition(".")[0] == major]
    exact = [kit for kit in same if kit.version and minor_of(kit.version) == minor_of(cuda)]
    return (exact or same)[0].path if same else None
