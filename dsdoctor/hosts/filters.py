"""--include and --exclude: which hosts and slots of a hostfile a job gets, in DeepSpeed's grammar."""

from __future__ import annotations

import difflib
from dataclasses import replace

from dsdoctor.cluster import HostEntry
from dsdoctor.hosts.shown import shown
from dsdoctor.yamlfile import FileError


def filter_hosts(
    entries: tuple[HostEntry, ...], include: str | None = None, exclude: str | None = None
) -> tuple[HostEntry, ...]:
    """The hosts and slots left by DeepSpeed's `HOST[:SLOT[,SLOT…]][@HOST…]`, in the order of the hostfile.

    As in DeepSpeed, slots named for a host anywhere in the filter count and a bare mention of it then adds nothing.

    Raises:
        FileError: both filters, a host or slot that the hostfile does not have, or no host left.
    """
    if not include and not exclude:
        return entries
    if include and exclude:
        raise FileError("--include, --exclude", "only one of the two can be given, as with deepspeed")
    option = f"--include {include}" if include else f"--exclude {exclude}"
    chosen = _parse_filter(include or exclude or "", {entry.name: entry for entry in entries}, shown(option))
    left: list[HostEntry] = []
    for entry in entries:
        named = chosen.get(entry.name)
        devices: list[int] = list(entry.devices if entry.devices is not None else range(entry.slots))
        if include:
            devices = [] if named is None else sorted(named) or devices
        elif named is not None:
            devices = [slot for slot in devices if named and slot not in named]
        if devices:  # a host with no slot left is dropped, one with slots=0 too
            whole = devices == list(range(entry.slots))
            left.append(replace(entry, devices=None if whole else tuple(devices)))
    if not left:
        raise FileError(shown(option), "leaves no host of the hostfile")
    return tuple(left)


def _parse_filter(text: str, hosts: dict[str, HostEntry], option: str) -> dict[str, set[int]]:
    """The slots named for each host; an empty set means the whole host."""
    chosen: dict[str, set[int]] = {}
    for spec in text.split("@"):
        name, colon, listed = (spec, "", "") if spec in hosts else spec.rpartition(":")
        name = name if colon or spec in hosts else spec
        name = name[1:-1] if name.startswith("[") and name.endswith("]") else name
        entry = hosts.get(name)
        if entry is None:
            close = difflib.get_close_matches(name, hosts, n=1)
            near = f"did you mean {close[0]}?" if close else f"hosts: {', '.join(list(hosts)[:20])}"
            raise FileError(option, f"the hostfile has no host {shown(name)!r}; {near}")
        slots = chosen.setdefault(name, set())
        for word in listed.split(",") if colon else []:
            slots.add(_slot(word, entry, option))
    return chosen


def _slot(word: str, entry: HostEntry, option: str) -> int:
    """A slot number that the host has."""
    known = entry.devices if entry.devices is not None else range(entry.slots)
    try:
        slot = int(word)
    except ValueError:
        raise FileError(option, f"slot {shown(word)!r} of {entry.name} is no number; wanted as in HOST:0,1") from None
    if slot not in known:
        has = f"slots 0 to {entry.slots - 1}" if entry.slots else "no slots"
        raise FileError(option, f"{entry.name} has no slot {slot}; it has {has}")
    return slot
