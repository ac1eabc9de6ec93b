"""How many ranks a call of a script starts, as far as its words tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dsdoctor.jobs.script.model import Call, Word

_SLOTS = re.compile(r"[^\s:@]+:\d+(?:,\d+)*")


def ranks_of(call: Call, accelerate: Mapping[str, Any] | None = None) -> int | None:
    """The number of ranks on all hosts; None where it is left to the machine or to the caller.

    `accelerate` are the values of the config that `accelerate launch` reads.
    """
    hosts, each = shape_of(call, accelerate)
    return hosts * each if hosts is not None and each is not None else None


def shape_of(call: Call, accelerate: Mapping[str, Any] | None = None) -> tuple[int | None, int | None]:
    """How many hosts a call wants, and how many ranks on each; None for what its words leave open."""
    if call.launcher == "torchrun":
        hosts = call.option("--nnodes")
        each = call.option("--nproc_per_node", "--nproc-per-node")
        return (1 if hosts is None else _count(hosts)), (1 if each is None else _count(each))
    if call.launcher == "deepspeed":
        return _of_deepspeed(call)
    if call.launcher == "accelerate":
        return _of_accelerate(call, accelerate or {})
    return None, None


def _of_deepspeed(call: Call) -> tuple[int | None, int | None]:
    """What `deepspeed` is told: without a hostfile it starts this host alone, with as many ranks as it sees GPUs."""
    include = call.option("--include", "-i")
    if include is not None:
        parts = include.text.split("@")
        if not include.known or not all(map(_SLOTS.fullmatch, parts)):
            return None, None
        counts = {len(part.rpartition(":")[2].split(",")) for part in parts}
        return len(parts), counts.pop() if len(counts) == 1 else None
    hosts = _count(call.option("--num_nodes", "--num-nodes"))
    each = _count(call.option("--num_gpus", "--num-gpus", "--num_accelerators", "--num-accelerators"))
    alone = call.option("--hostfile", "-H") is None and hosts is None
    return (1 if alone else hosts), each


def _of_accelerate(call: Call, config: Mapping[str, Any]) -> tuple[int | None, int | None]:
    total = _count(call.option("--num_processes", "--num-processes")) or _positive(config.get("num_processes"))
    hosts = _count(call.option("--num_machines", "--num-machines")) or _positive(config.get("num_machines")) or 1
    if total is None or total % hosts:
        return None, None
    return hosts, total // hosts


def _count(word: Word | None) -> int | None:
    """A number that is written; not `gpu`, `auto`, `1:4` or what the caller gives."""
    return _positive(int(word.text)) if word is not None and word.known and word.text.isdecimal() else None


def _positive(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 20 else None
