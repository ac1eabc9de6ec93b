"""The paths that a job names, as each host has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import Check
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import FactUnavailable, InputPath
from dsdoctor.jobs.paths import NamedPath, Role, named_paths
from dsdoctor.report.model import Skipped

_ROLES = {"model": "the model", "data": "the data", "output": "the output folder", "log": "the log file"}


@dataclass(frozen=True)
class Sight:
    """One path of the job, and what each host that was asked has there, in the hostfile's order."""

    named: NamedPath
    found: tuple[tuple[Member, InputPath], ...]

    def called(self) -> str:
        """`the model /models/t5`, for messages."""
        return f"{_ROLES[self.named.role]} {self.named.path}"

    def cited(self) -> str:
        """The argument that names it, for the evidence."""
        return f"{self.named.argument}: {self.named.path} (stage {self.named.stage})"


def sights(check: Check, cluster: Cluster, context: JobContext, *roles: Role) -> tuple[list[Sight], list[Skipped]]:
    """The job's paths of these roles as the hosts have them; and the hosts that could not say, with the reason.

    What the sync is to bring counts only where it comes from: a copy on another host is replaced before the start.
    """
    seen: list[Sight] = []
    skipped: list[Skipped] = []
    for named in named_paths(context.job):
        if named.role not in roles:
            continue
        found: list[tuple[Member, InputPath]] = []
        for member in cluster.examined:
            assert member.facts is not None
            if named.path in context.job.present and not member.entry.local:
                continue
            try:
                path = _found(member, named)
            except FactUnavailable as missing:
                skipped.append(check.skipped([member.name], str(missing)))
                continue
            found.append((member, path))
        seen.append(Sight(named, tuple(found)))
    return seen, skipped


def names(found: Sequence[tuple[Member, InputPath]]) -> list[str]:
    """The hosts' names."""
    return [member.name for member, _ in found]


def is_path(sight: Sight) -> bool:
    """Whether what the job names is a path: by its form, or because it, or the folder it would be in, is somewhere.

    `google/t5-v1_1-large` is a model of the hub unless there is a folder `google` beside the code.
    """
    if sight.named.certain:
        return True
    return any(
        path.kind != "missing" or ("/" in sight.named.path and path.at.rpartition("/")[0] == path.nearest)
        for _, path in sight.found
    )


def _found(member: Member, named: NamedPath) -> InputPath:
    """What a host has there. Raises FactUnavailable."""
    assert member.facts is not None
    path = member.facts.inputs.find(named.path)
    if path is None:
        raise FactUnavailable("inputs", f"the probe was not asked about {named.path}")
    if path.kind == "unknown" and path.blocked is None:
        raise FactUnavailable("inputs", f"{named.path}: {path.error or 'not known'}")
    return path
