"""Which InfiniBand and RoCE ports NCCL would use on a host, read as NCCL reads NCCL_IB_HCA and NCCL_IB_DISABLE."""

from __future__ import annotations

from dataclasses import dataclass

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.env_values import reads_as
from dsdoctor.checks.rank_settings import setting
from dsdoctor.cluster import HostEntry, Member
from dsdoctor.facts import FactUnavailable, HostFacts, IbPort, InfinibandFacts


@dataclass(frozen=True)
class Port:
    """A port with its adapter's name: `mlx5_0:1`."""

    device: str
    port: IbPort

    def __str__(self) -> str:
        return f"{self.device}:{self.port.port}"

    @property
    def roce(self) -> bool:
        """Whether it is an Ethernet port."""
        return self.port.link_layer == "Ethernet"


def active_ports(infiniband: InfinibandFacts) -> tuple[Port, ...]:
    """The ports that NCCL can open: active ones, where programs find the adapters and libibverbs.

    Source: src/transport/net_ib/init.cc; without libibverbs.so.1 NCCL goes through sockets, and it takes no adapters of
    other kinds (Amazon's EFA has a plugin of its own).
    """
    if infiniband.libibverbs is False or infiniband.verbs == ():
        return ()
    return tuple(
        Port(device.name, port)
        for device in infiniband.devices
        for port in device.ports
        if port.state == "ACTIVE" and port.link_layer in ("InfiniBand", "Ethernet", "")
    )


def selected_ports(infiniband: InfinibandFacts, value: str) -> tuple[Port, ...]:
    """The active ports that a value of NCCL_IB_HCA selects.

    Words are prefixes `name[:port]`; a leading ^ excludes, a leading = makes them exact, both stand once before the
    list. Source: parseStringList and matchIfList in src/misc/utils.cc.
    """
    excluded = value.startswith("^")
    words = value.removeprefix("^")
    exact = words.startswith("=")
    wanted = [word.split(":")[:2] for word in words.removeprefix("=").split(",") if word.split(":")[0]]
    if not wanted:
        return () if excluded else active_ports(infiniband)

    def matches(port: Port) -> bool:
        return any(_is(port, word, exact) for word in wanted) is not excluded

    return tuple(port for port in active_ports(infiniband) if matches(port))


def _is(port: Port, word: list[str], exact: bool) -> bool:
    named = port.device == word[0] if exact else port.device.startswith(word[0])
    number = word[1] if len(word) > 1 else ""
    return named and (not number.isdecimal() or int(number[:6]) == port.port.port)


def disabled(host: HostFacts, entry: HostEntry, context: JobContext | None) -> str | None:
    """The setting that keeps NCCL off InfiniBand and RoCE on a host, as NAME=value; None when there is none.

    Raises:
        FactUnavailable: the host's environment is not known.
    """
    got = setting("NCCL_IB_DISABLE", host, entry, context)
    if got is not None and reads_as(got.value) != 0:
        return f"NCCL_IB_DISABLE={got.value}"
    got = setting("NCCL_NET", host, entry, context)
    return f"NCCL_NET={got.value}" if got is not None and got.value.lower() == "socket" else None


def used_ports(member: Member, context: JobContext | None) -> tuple[Port, ...]:
    """The ports that NCCL would use on a host; none where it goes through sockets.

    Raises:
        FactUnavailable: the host's adapters or its environment are not known.
    """
    host = member.facts
    if host is None:
        raise FactUnavailable("infiniband", "the host was not examined")
    if not active_ports(host.infiniband) or disabled(host, member.entry, context):
        return ()
    got = setting("NCCL_IB_HCA", host, member.entry, context)
    return selected_ports(host.infiniband, got.value) if got is not None else active_ports(host.infiniband)
