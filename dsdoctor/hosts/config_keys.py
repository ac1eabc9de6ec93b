"""What the hosts' own DeepSpeeds take in a config: asked of one host for each release that our table is not of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

import msgspec

from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.hosts import config_reader
from dsdoctor.hosts.gather import gather
from dsdoctor.hosts.probe import REFUSAL
from dsdoctor.hosts.sent import pack
from dsdoctor.hosts.transport import Transport, TransportKind

SECTION = "config_keys"


def with_config_keys(
    cluster: Cluster,
    known: Sequence[str],
    *,
    python: str | None = None,
    setup: Sequence[str] = (),
    timeout: float = 10.0,
    connect_timeout: float = 10.0,
    kind: TransportKind = "auto",
    transports: dict[str, Transport] | None = None,
) -> Cluster:
    """The cluster with the keys of each release of DeepSpeed beside the `known` ones, in one host's facts each.

    A host that gives no answer is left as it was: the check then goes by its own table, and says so.
    """
    asked = dict(_to_ask(cluster, known))
    if not asked:
        return cluster
    answers = gather(
        [member.entry for member, _ in asked.values()],
        config={},
        own={member.name: {"folder": folder, "version": version} for version, (member, folder) in asked.items()},
        packed_program=pack(config_reader.__name__, entry=("answer", "main"), needs="this", refusal=REFUSAL),
        python=python,
        setup=setup,
        timeout=timeout,
        connect_timeout=connect_timeout,
        kind=kind,
        transports=transports,
    )
    told = {member.name: member.facts for member in answers if member.facts is not None}
    return replace(cluster, members=tuple(_with_answer(member, told.get(member.name)) for member in cluster))


def _to_ask(cluster: Cluster, known: Sequence[str]) -> Iterator[tuple[str, tuple[Member, str]]]:
    """The first host of each release that is not known, with the folder in which it is."""
    seen = set(known)
    for member in cluster.examined:
        with suppress(FactUnavailable):
            installed = member.facts.deepspeed if member.facts else None
            if installed is not None and installed.version and installed.path and installed.version not in seen:
                seen.add(installed.version)
                yield installed.version, (member, installed.path)


def _with_answer(member: Member, told: HostFacts | None) -> Member:
    section = told.snapshot.sections.get(SECTION) if told is not None else None
    if section is None or member.facts is None:
        return member
    snapshot = member.facts.snapshot
    sections = {**snapshot.sections, SECTION: section}
    return replace(member, facts=HostFacts(msgspec.structs.replace(snapshot, sections=sections)))
