"""Programs that start ranks by themselves: those that would start others than the plan says are refused."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence

from dsdoctor.plan.model import HostPlan
from dsdoctor.yamlfile import FileError


def refuse_misplacing(command: Sequence[str], hosts: Sequence[HostPlan], source: str) -> None:
    """Refuse commands that are known to start other ranks than the hosts have slots. On one host nothing is refused.

    Raises:
        FileError: it starts all hosts by itself, or equal numbers of ranks on unequal hosts (accelerate 1.15,
            utils/launch.py: `num_processes // num_machines`).
    """
    if len(hosts) == 1:
        return
    name = posixpath.basename(command[0])
    if name in ("deepspeed", "ds") and "--no_ssh" not in command:
        raise FileError(
            source,
            f"command: {name} starts the ranks of all hosts by itself, through ssh, and would do so from each of the "
            f"{len(hosts)} hosts. Write engine: deepspeed with script: or module:",
        )
    if not _is_accelerate(command):
        return
    slots = {host.name: host.slots for host in hosts}
    if len(set(slots.values())) > 1:
        told = ", ".join(f"{host} {number}" for host, number in slots.items())
        raise FileError(
            source,
            "command: accelerate starts num_processes // num_machines ranks on every host, and the slots here are "
            f"unequal ({told}). Give all hosts the same slots, or write engine: torchrun or deepspeed",
        )
    if "--use_deepspeed" in command and "standard" not in {word.rpartition("=")[2] for word in command}:
        raise FileError(
            source,
            "command: accelerate --use_deepspeed starts the ranks of all hosts by itself, through pdsh, and would do "
            "so from each host. Add --deepspeed_multinode_launcher=standard, or write engine: deepspeed",
        )


def untagged(command: Sequence[str], hosts: Sequence[HostPlan]) -> Iterator[str]:
    """A warning where ranks' lines will come without their rank: accelerate switches torchrun's tee off."""
    tees = any(word.partition("=")[0] in ("--tee", "-t") for word in command)
    if _is_accelerate(command) and not tees and any(host.slots > 1 for host in hosts):
        yield "command: accelerate starts several ranks a host, and their lines come without their rank; add --tee=3"


def _is_accelerate(command: Sequence[str]) -> bool:
    name = posixpath.basename(command[0])
    return name.startswith("accelerate") or any(word.startswith("accelerate.commands") for word in command)
