"""A RoCE port has no usable entry in its GID table, or not the one that is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from packaging.version import Version

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.env_values import reads_as
from dsdoctor.checks.ib_use import Port, used_ports
from dsdoctor.checks.nccl_use import all_use_nccl, nccl_version
from dsdoctor.checks.rank_settings import setting
from dsdoctor.checks.remedy import on_host
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, Gid
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

_LOOKED_AT = 32  # entries; the probe reads no more
_CHOOSES = Version("2.21")  # the first that looks for an entry by itself


@dataclass(frozen=True)
class _Choice:
    """The entry that NCCL takes for a port; None for one that is empty."""

    member: Member
    port: Port
    index: int
    gid: Gid | None
    asked: bool  # by NCCL_IB_GID_INDEX


@check(severity=Severity.ERROR, since="0.1")
def roce_gid_unfit(cluster: Cluster, context: JobContext | None) -> Iterator[Finding | Skipped]:
    """The GID that NCCL takes for a RoCE port is an empty entry, or of another kind than on the other hosts.

    ## Why it matters
    Over Ethernet an adapter goes by one of the entries of its GID table. NCCL_IB_GID_INDEX=3 is an advice of every
    tutorial, and entry 3 is RoCE v2 on one host and empty on another: `ibv_modify_qp failed`, about a minute into the
    run. Without it NCCL (2.21 and newer) looks for RoCE v2 with an IPv4 address, and takes a link-local entry where the
    interface has no address.

    ## How to fix it
    Unset NCCL_IB_GID_INDEX, and give the adapters' interfaces IPv4 addresses in one network on all hosts.

    ## Source
    NVIDIA/nccl, src/transport/net_ib/connect.cc (ncclIbGetGidIndex); NCCL's user guide: since 2.21 the index "should
    not be set"; /sys/class/infiniband/NAME/ports/N/gids and gid_attrs/types.
    """
    if len(cluster) < 2 or not all_use_nccl(cluster):
        return
    choices: list[_Choice] = []
    for member in cluster.examined:
        try:
            choices += _choices(member, context)
        except FactUnavailable as missing:
            yield roce_gid_unfit.skipped([member.name], str(missing))
    empty = [choice for choice in choices if choice.gid is None]
    for choice in empty:
        yield _finding(choice, f"entry {choice.index} of {choice.port}'s GID table is empty", _evidence(choice))
    filled = [choice for choice in choices if choice.gid is not None]
    kinds: dict[str, list[_Choice]] = {}
    for choice in filled:
        kinds.setdefault(_kind(choice.gid), []).append(choice)
    if len(kinds) > 1:
        usual = max(kinds, key=lambda kind: len(kinds[kind]))
        for kind, those in kinds.items():
            for choice in those if kind != usual else []:
                message = f"NCCL takes {kind} for {choice.port}, and {usual} on the other hosts; they cannot connect"
                yield _finding(choice, message, _evidence(choice))


def _choices(member: Member, context: JobContext | None) -> Iterator[_Choice]:
    """What NCCL takes for each RoCE port that it uses on a host and whose table is known."""
    host = member.facts
    if host is None:
        return
    got = setting("NCCL_IB_GID_INDEX", host, member.entry, context)
    asked = reads_as(got.value) if got is not None and got.value.strip() else -1
    family = setting("NCCL_IB_ADDR_FAMILY", host, member.entry, context)
    nccl = nccl_version(host)
    for port in used_ports(member, context):
        if not port.roce or port.port.gids is None or asked >= _LOOKED_AT:
            continue
        table = {gid.index: gid for gid in port.port.gids}
        if asked >= 0:
            yield _Choice(member, port, asked, table.get(asked), True)
        elif nccl is not None and nccl >= _CHOOSES and (family is None or family.value == "AF_INET"):
            index = next((gid.index for gid in port.port.gids if "v2" in gid.kind and _ipv4(gid)), 0)
            yield _Choice(member, port, index, table.get(index), False)


def _ipv4(gid: Gid) -> bool:
    return gid.gid.lower().startswith("::ffff:") and "." in gid.gid


def _kind(gid: Gid | None) -> str:
    if gid is None:
        return ""
    version = "RoCE v2" if "v2" in gid.kind else "RoCE v1"
    if _ipv4(gid):
        return f"{version} with an IPv4 address"
    return f"{version} with {'a link-local' if gid.gid.startswith('fe80') else 'an IPv6'} address"


def _evidence(choice: _Choice) -> str:
    table = "; ".join(f"{gid.index}: {gid.gid} {gid.kind}" for gid in (choice.port.port.gids or ())[:6])
    return f"{choice.port}: {table or 'the table is empty'}"


def _finding(choice: _Choice, message: str, seen: str) -> Finding:
    member = choice.member
    said = f"NCCL_IB_GID_INDEX={choice.index}: " if choice.asked else ""
    fix = (
        Fix("Unset NCCL_IB_GID_INDEX: NCCL finds the entry by itself since 2.21")
        if choice.asked
        else Fix("Give the adapter's interface an IPv4 address in the network of the others")
    )
    return roce_gid_unfit.finding(
        said + message,
        hosts=[member.name],
        evidence=[Evidence(text=seen, source=member.name)],
        fix=[fix, Fix("See the table", (on_host(member.entry, "show_gids || ibv_devinfo -v"),))],
    )
