"""Where the data and the model of a job lie on each host, and what their placeholders stand for there."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence

from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.jobs.trees import KINDS, JobTree, named_in_vain
from dsdoctor.plan.model import HostPlan, TreePlan


def tree_plans(job: ResolvedJob, hosts: Sequence[HostPlan]) -> tuple[TreePlan, ...]:
    """What of the job's trees is to be on which host, and where."""
    return tuple(
        TreePlan(tree.kind, tree.path, tree.file, tree.same, {host.name: place_of(tree, host) for host in hosts})
        for tree in job.trees
    )


def place_of(tree: JobTree, host: HostPlan) -> str:
    """Where a tree is on a host: on this machine where it is, elsewhere in the work folder beside the code."""
    if host.local or tree.same:
        return tree.path
    return posixpath.join(posixpath.dirname(host.code_dir), tree.kind, tree.name)


def tree_words(job: ResolvedJob, host: HostPlan) -> dict[str, str]:
    """`${data_dir}` and `${model_dir}` on a host."""
    return {f"{tree.kind}_dir": place_of(tree, host) for tree in job.trees if tree.kind in KINDS}


def mended_config_at(job: ResolvedJob, host: HostPlan) -> str | None:
    """Where the mended copy of the DeepSpeed config lies on a host; None where the job's own is used."""
    return next((place_of(tree, host) for tree in job.trees if tree.kind == "deepspeed"), None)


def tree_warnings(job: ResolvedJob, code: str) -> Iterator[str]:
    """What about the trees is allowed and hardly meant."""
    for tree in job.trees:
        if tree.kind not in KINDS:
            continue
        if named_in_vain(job, tree):
            yield (
                f"sync.{tree.kind}: an argument names {tree.path} itself, which the hosts have elsewhere; write "
                f"${{{tree.kind}_dir}} there, or let it have the same path on every host: "
                f"{{path: {tree.path}, at: same}}"
            )
        inside = posixpath.relpath(tree.path, code)
        if not inside.startswith("..") and not any(pattern.strip("/") == inside for pattern in job.job.sync.exclude):
            yield (
                f"sync.{tree.kind}: {tree.path} lies in the code's folder and is copied with it, too; leave it out "
                f"there: sync.exclude: [/{inside}{'' if tree.file else '/'}]"
            )
