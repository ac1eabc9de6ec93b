"""The hosts of a job as values: what the hostfile says of each, whether it could be reached, and its facts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from dsdoctor.facts import HostFacts  # costs as much as all else here, and a copy reads no facts

ReachProblem = Literal[
    "unresolvable",  # the name has no address
    "refused",  # nothing listens at the port
    "timeout",  # no answer within the limit
    "no-route",  # the network says there is no way
    "unknown-key",  # the host's key is not in known_hosts
    "changed-key",  # the host's key differs from known_hosts
    "denied",  # no key or password was accepted
    "closed",  # the connection ended in the middle
    "no-python",  # the interpreter for the job is not there
    "probe-failed",  # the probe ended without a readable answer
    "unsupported",  # the transport cannot do what the user's ssh settings ask for
    "not-recorded",  # saved snapshots are judged, and none is of this host
    "other",
]


@dataclass(frozen=True)
class HostEntry:
    """A host as the hostfile names it. `devices` are the slots left by --include/--exclude, None for all of them."""

    name: str  # as written, with user@, :port and the brackets of an IPv6 address taken off
    slots: int
    devices: tuple[int, ...] | None = None
    user: str | None = None
    port: int | None = None
    python: str | None = None
    workdir: str | None = None
    ifname: str | None = None
    gpu: str | None = None  # the user's label for the GPU kind: templates are chosen by it
    local: bool = False  # this machine, no ssh
    line: int | None = None  # of the hostfile

    @property
    def processes(self) -> int:
        """How many ranks run on the host."""
        return self.slots if self.devices is None else len(self.devices)


@dataclass(frozen=True)
class Reach:
    """Whether a host could be examined. `detail` is what the transport said, for the evidence."""

    ok: bool
    problem: ReachProblem | None = None
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Member:
    """One host of the cluster: entry, reach, and facts where it was reached."""

    entry: HostEntry
    reach: Reach
    facts: HostFacts | None = None

    @property
    def name(self) -> str:
        """The host's name as the hostfile has it."""
        return self.entry.name


@dataclass(frozen=True)
class Cluster:
    """All hosts in the hostfile's order. The first is the master unless the job or the user names another address."""

    members: tuple[Member, ...]
    master_addr: str | None = None  # as the user gave it; None: the first host

    def __iter__(self) -> Iterator[Member]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    @cached_property  # asked once for each host by many checks: a cluster of n hosts would cost n * n steps
    def examined(self) -> tuple[Member, ...]:
        """The hosts whose facts are known."""
        return tuple(member for member in self.members if member.facts is not None)

    @cached_property
    def ranks(self) -> int:
        """How many ranks run on all hosts."""
        return sum(member.entry.processes for member in self.members)

    @property
    def master(self) -> Member:
        """The host that rank 0 runs on."""
        return self.members[0]

    @property
    def master_name(self) -> str:
        """The name or address by which the other hosts reach the master."""
        return self.master_addr or self.master.name

    def with_facts(self, facts: dict[str, HostFacts]) -> Cluster:
        """The same cluster with facts by host name put in, each such host counted as reached."""
        members = tuple(
            replace(member, facts=facts[member.name], reach=Reach(ok=True)) if member.name in facts else member
            for member in self.members
        )
        return replace(self, members=members)
