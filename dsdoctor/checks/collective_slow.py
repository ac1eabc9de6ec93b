"""An all-reduce is slower than the copies or the links that it is made of, measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dsdoctor.checks.engine import check
from dsdoctor.checks.tried import trials
from dsdoctor.cluster import Cluster
from dsdoctor.facts import DeepCollective, DeepFacts, FactUnavailable, HostFacts, Interface
from dsdoctor.report.layout import count
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

_LARGE = 8 << 20  # bytes: below, it is the time of a message that counts
_OF_THE_COPIES = 0.2  # of the slowest copy between two GPUs of the host
_OF_THE_LINK = 0.3  # of the slowest interface
# Mbit/s beyond which an interface's speed says nothing of what one all-reduce reaches: gloo adds on the processor.
_CAP = {"gloo": 1_000.0, "nccl": 10_000.0}


@check(severity=Severity.WARNING, since="0.1", trial="deep")
def collective_slow(cluster: Cluster) -> Iterator[Finding]:
    """All-reduces on a host, or over all hosts, take much longer than copies and links promise; only with `--deep`.

    ## Why it matters
    The gradients of every step go this way. NCCL that cannot use peer-to-peer or shared memory talks to itself over
    the network; a job that takes the management network instead of the fast one is slower by the same factor.

    ## How to fix it
    See which way NCCL takes (NCCL_DEBUG=INFO prints it), and give it the fast one: the interface, /dev/shm.

    ## Source
    64 MiB per rank; the bus bandwidth as nccl-tests reckons it, 2 (n - 1) / n times the bytes by the seconds, against
    the slowest copy between two GPUs, or the slowest of the hosts' interfaces.
    """
    known = [(member.name, facts, deep) for member, facts, deep in trials(cluster)]
    for name, _, deep in known:
        part = deep.collective("host")
        if part is not None and (reason := _slow_on_host(part, deep)) is not None:
            yield _finding(part, [name], reason)
    parts = [(facts, part) for _, facts, deep in known if (part := deep.collective("job")) is not None]
    if parts and all(part.error is None and part.not_tried is None for _, part in parts):
        reason = _slow_over_hosts(parts)
        if reason is not None:
            yield _finding(parts[0][1], list(parts[0][1].hosts), reason)


def _slow_on_host(part: DeepCollective, deep: DeepFacts) -> str | None:
    if part.error is not None or part.not_tried is not None or part.backend != "nccl":
        return None  # gloo on one host is as slow as its processors are busy
    left_out = _left_out([part])
    if left_out is not None:
        return left_out
    copies = [copy.gigabytes_per_second for copy in deep.copies if copy.error is None and copy.gigabytes_per_second]
    reached = _bus_bandwidth([part])
    if reached is None or not copies or reached >= _OF_THE_COPIES * min(copies):
        return None
    return f"reach {reached:.2f} GB/s; the slowest copy between two of its GPUs {min(copies):.1f} GB/s"


def _slow_over_hosts(parts: Sequence[tuple[HostFacts, DeepCollective]]) -> str | None:
    left_out = _left_out([part for _, part in parts])
    if left_out is not None:
        return left_out
    reached = _bus_bandwidth([part for _, part in parts])
    speeds = [_speed(facts, part.address) for facts, part in parts]
    if reached is None or not speeds or None in speeds:
        return None
    promised = min(speed for speed in speeds if speed is not None)
    if reached * 8000 >= _OF_THE_LINK * min(promised, _CAP.get(parts[0][1].backend, 0.0)):
        return None
    return f"reach {reached * 8:.2f} Gbit/s; the slowest of the hosts' interfaces has {promised / 1000:g} Gbit/s"


def _left_out(parts: Sequence[DeepCollective]) -> str | None:
    """The large all-reduce was not even begun, for what the smaller one took."""
    for part in parts:
        for rank in part.ranks:
            if rank.too_long is not None and rank.sums:
                last = rank.sums[-1]
                return f"take {last.seconds:.2f} s for {last.bytes:,} bytes, so larger ones were left out"
    return None


def _bus_bandwidth(parts: Sequence[DeepCollective]) -> float | None:
    """GB/s of the largest all-reduce at its slowest rank."""
    world = parts[0].world_size
    sums = [each for part in parts for rank in part.ranks for each in rank.sums if each.bytes >= _LARGE]
    if not sums or world < 2:
        return None
    seconds = max(each.seconds for each in sums)
    return 2 * (world - 1) / world * sums[0].bytes / max(seconds, 1e-9) / 1e9


def _speed(facts: HostFacts, address: str) -> float | None:
    """Mbit/s of the interface by which a host takes part; None where it does not tell."""
    try:
        network = facts.network
    except FactUnavailable:
        return None
    holder = next((each for each in network.interfaces if _holds(each, address)), None)
    if holder is None:
        route = network.route(address)
        holder = network.interface(route.device) if route is not None and route.device else None
    return holder.speed_mbit if holder is not None and holder.speed_mbit else None


def _holds(interface: Interface, address: str) -> bool:
    return any(held.address == address for held in interface.addresses)


def _finding(part: DeepCollective, hosts: Sequence[str], reason: str) -> Finding:
    where = "this host" if part.scope == "host" else count(len(part.hosts), "host")
    evidence = [
        Evidence(f"rank {rank.rank}: {each.bytes:,} bytes in {each.seconds:.4f} s", hosts[0])
        for rank in part.ranks[:1]
        for each in rank.sums
    ]
    ways = [Fix("Compare with the ways between the hosts: add --network to this command")] * (part.scope == "job")
    if part.backend == "nccl":
        ways.insert(0, Fix("See which way NCCL takes between the ranks", env={"NCCL_DEBUG": "INFO"}))
    return collective_slow.finding(
        f"all-reduces of {count(part.world_size, 'rank')} on {where} ({part.backend}) {reason}",
        hosts=hosts,
        evidence=evidence,
        fix=ways,
    )
