"""The facts as the ranks will find them: each host's environment with the plan's variables laid over it.

Checks that judge variables (a wrong interface name, a misspelt NCCL name) are run on these before a launch: what the
plan sets is judged as strictly as what a shell exports, and what it sets right is no longer held against the shell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, HostFacts, Section
from dsdoctor.plan.model import EnvVar, LaunchPlan, names_unset


def with_planned_environment(cluster: Cluster, plan: LaunchPlan) -> Cluster:
    """The hosts that run ranks, with the environment these will get."""
    planned = {host.name: host.env for host in plan.hosts}
    return replace(
        cluster,
        members=tuple(_overlaid(member, planned[member.name]) for member in cluster if member.name in planned),
    )


def _overlaid(member: Member, env: Mapping[str, EnvVar]) -> Member:
    if member.facts is None:
        return member
    try:
        known = member.facts.environment
    except FactUnavailable:
        return member
    variables = {**known.variables, **{name: variable.value for name, variable in env.items() if variable.sent}}
    for name in names_unset(env):
        variables.pop(name, None)
    changed = msgspec.structs.replace(known, variables=variables)
    sections = {**member.facts.snapshot.sections, "environment": Section(value=msgspec.to_builtins(changed))}
    return replace(member, facts=HostFacts(msgspec.structs.replace(member.facts.snapshot, sections=sections)))
