"""What `check` and `facts` do before they differ: get the facts of the hosts, and keep them where that was asked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dsdoctor.cluster import Cluster, Member
    from dsdoctor.hosts.examine import HostChoice
    from dsdoctor.hosts.transport import Transport
    from dsdoctor.jobs.job import ResolvedJob


def examined(
    choice: HostChoice, recorded: str | None, job: ResolvedJob | None = None, *, deep: bool = False
) -> Cluster:
    """The hosts with their facts: out of the snapshots in `recorded`, else by looking at them, `deep` by trying too."""
    from dsdoctor.hosts.examine import examine, from_snapshots

    if recorded is None:
        return _tried(choice, job) if deep else examine(choice, job=job)
    if choice.python is not None:
        raise click.UsageError(
            "--python is about looking at hosts, and --facts contacts none; leave one of the two out"
        )
    from dsdoctor.hosts.snapshots import load

    return from_snapshots(choice, load(recorded), recorded)


def _tried(choice: HostChoice, job: ResolvedJob | None) -> Cluster:
    """Look at the hosts, then try on them what training needs, over the same connections."""
    from dsdoctor.hosts.examine import examine
    from dsdoctor.run.deep import try_deep
    from dsdoctor.terminal import status_line

    transports: dict[str, Transport] = {}
    try:
        cluster = examine(choice, job=job, transports=transports)
        with status_line() as line:
            return try_deep(cluster, transports, job=job, progress=line.show)
    finally:
        for transport in transports.values():
            transport.close()


def keep_facts(cluster: Cluster, folder: str) -> None:
    """Save the snapshots and say where they are."""
    from dsdoctor.escape import escape
    from dsdoctor.hosts.snapshots import save
    from dsdoctor.report.layout import count
    from dsdoctor.terminal import say

    files = save({member.name: member.facts for member in cluster if member.facts is not None}, folder)
    say(f"the facts of {count(len(files), 'host')} are in {escape(folder)}")


def without_names(cluster: Cluster) -> Cluster:
    """The cluster with its facts redacted, its hosts under their placeholders, and no words of unreached hosts."""
    from dsdoctor.hosts.snapshots import redact

    kept = redact({member.name: member.facts for member in cluster if member.facts is not None})
    placeholders = iter(kept.items())
    members: list[Member] = []
    for number, member in enumerate(cluster, 1):
        if member.facts is None:
            entry = replace(member.entry, name=f"unexamined-{number}", user=None)
            members.append(replace(member, entry=entry, reach=replace(member.reach, detail="")))
        else:
            name, facts = next(placeholders)
            members.append(replace(member, entry=replace(member.entry, name=name, user=None), facts=facts))
    return replace(cluster, members=tuple(members))
