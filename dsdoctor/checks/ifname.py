"""What NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME select on a host, read as NCCL and torch read them."""

from __future__ import annotations

from dataclasses import dataclass

from packaging.version import Version

from dsdoctor.facts import Interface, NetworkFacts


@dataclass(frozen=True)
class Selection:
    """The interfaces a value selects that can be used, and for each word that selects none, why."""

    usable: tuple[Interface, ...]
    problems: tuple[str, ...]


def select(variable: str, value: str, network: NetworkFacts) -> Selection | None:
    """What a value selects; None when it is ignored (both libraries ignore values of one character or none)."""
    if len(value) <= 1:
        return None
    if variable == "GLOO_SOCKET_IFNAME":
        return _for_gloo(value, network)
    return _for_nccl(value, network)


def _for_gloo(value: str, network: NetworkFacts) -> Selection:
    """Names separated by commas, taken literally; torch opens a device for each, so each must be usable.

    Source: torch 2.13.0, tried: "=lo" and "^eth9" are looked up as names, "lo,eth9" fails for eth9, "lo," works.
    """
    usable, problems = [], []
    for name in value.split(","):
        if not name:
            continue
        interface = network.interface(name)
        problem = _unusable(name, interface)
        if interface is None and name[0] in "=^":
            problem += f" ({name[0]} is NCCL's sign; gloo takes plain names)"
        if interface is not None and not problem:
            usable.append(interface)
        else:
            problems.append(problem)
    return Selection(tuple(usable), tuple(problems))


def _for_nccl(value: str, network: NetworkFacts) -> Selection:
    """Prefixes separated by commas; a leading ^ excludes, a leading = makes them exact, ^= both.

    Words that match nothing do no harm while another one matches: one list may serve unlike hosts. Source: NCCL's
    user guide, NCCL_SOCKET_IFNAME, and src/misc/socket.cc.
    """
    excluded = value.startswith("^")
    words = value.removeprefix("^")
    exact = words.startswith("=")
    names = [name for name in words.removeprefix("=").split(",") if name]

    def matches(interface: Interface) -> bool:
        hit = any(interface.name == name if exact else interface.name.startswith(name) for name in names)
        return hit is not excluded

    matched = [interface for interface in network.interfaces if matches(interface)]
    if excluded:
        matched = [interface for interface in matched if not interface.loopback]
    usable = tuple(interface for interface in matched if not _unusable(interface.name, interface))
    if usable:
        return Selection(usable, ())
    if matched:
        return Selection((), tuple(_unusable(interface.name, interface) for interface in matched))
    if excluded:
        return Selection((), ("every interface is excluded",))
    what = "is called" if exact else "has a name that begins with"
    return Selection((), tuple(f"no interface {what} {name}" for name in names) or ("it names no interface",))


# The first NCCL that leaves out interfaces that are not running, and puts virbr* last. Source: src/misc/socket.cc.
_RUNNING_ONLY = Version("2.28")


def automatic(network: NetworkFacts, nccl: Version | None) -> tuple[Interface, ...]:
    """The interfaces that NCCL takes when NCCL_SOCKET_IFNAME is not set: the first to meet, all of them for data.

    ib*, else all but docker*, lo* and (2.28) virbr*, else docker*, else lo*, else virbr*; those with an IPv4 address
    first, each in the kernel's order. Before 2.28 interfaces that are down count, too; of an NCCL that is not known
    only the running ones are told. Source: ncclFindInterfaces in src/misc/socket.cc, v2.14.3 to v2.30.7.
    """
    recent = nccl is None or nccl >= _RUNNING_ONLY
    usable = [item for item in network.interfaces if _found(item) and (item.up or not recent)]
    usable.sort(key=lambda item: not any(address.family == "inet" for address in item.addresses))
    left_out = ("docker", "lo", "virbr") if recent else ("docker", "lo")
    for group in (
        [item for item in usable if item.name.startswith("ib")],
        [item for item in usable if not item.name.startswith(left_out)],
        *([item for item in usable if item.name.startswith(name)] for name in ("docker", "lo", "virbr")),
    ):
        if group:
            return tuple(group[:16])
    return ()


def _found(interface: Interface) -> bool:
    """Whether an interface has an address that NCCL takes: any but IPv6's loopback."""
    return any(address.address != "::1" for address in interface.addresses)


def _unusable(name: str, interface: Interface | None) -> str:
    """Why an interface cannot be used; empty when it can."""
    if interface is None:
        return f"no interface is called {name}"
    if not interface.up:
        return f"{name} is down" + (f" ({interface.state})" if interface.state not in ("", "down") else "")
    if not interface.addresses:
        return f"{name} has no address"
    return ""


def leading_to_master(network: NetworkFacts, master: str) -> str | None:
    """The interface by which the host reaches the master, or on the master itself is reached; None when unknown."""
    route = network.route(master)
    if route is None:
        return None
    if not route.local:
        return route.device if route.error is None else None
    for interface in network.interfaces:
        if not interface.loopback and any(address.address == route.address for address in interface.addresses):
            return interface.name
    return None
