"""The data and the model that a job has copied to its hosts beside the code: which of them its arguments name."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from dsdoctor.jobs.job import Copied, Job, ResolvedJob

Kind = Literal["data", "model", "deepspeed"]  # the last is a mended copy of the config, which a launch makes
KINDS: tuple[Kind, ...] = ("data", "model")  # those that a job file names


@dataclass(frozen=True)
class JobTree:
    """A folder or file of this machine; `same` says that it has the same absolute path on every host."""

    kind: Kind
    path: str  # absolute
    file: bool
    same: bool

    @property
    def name(self) -> str:
        """The last part of its path, by which it is called on the hosts, too: programs tell a model by it."""
        return posixpath.basename(self.path)


def declared(job: Job) -> Iterator[tuple[Kind, Copied]]:
    """What the job file says under `sync: data:` and `sync: model:`."""
    for kind in KINDS:
        given = job.sync.data if kind == "data" else job.sync.model
        if given is not None:
            yield kind, Copied(given) if isinstance(given, str) else given


def named(job: ResolvedJob, kind: Kind, path: str, same: bool) -> bool:
    """Whether the job, with its profile and settings, names a tree; what it does not name is not copied.

    It does by its placeholder, or by its path where that is the same on every host.
    """
    placeholder, deep = f"${{{kind}_dir}}", f"{path.rstrip('/')}/"
    return any(
        placeholder in text or (same and (text == path or text.startswith(deep)))
        for text in _texts(
            [
                *((stage.args, stage.env) for stage in job.stages),
                *(job.env, job.job.gpu_env, job.job.command, job.job.launcher_args),
            ]
        )
    )


def named_in_vain(job: ResolvedJob, tree: JobTree) -> bool:
    """Whether the arguments have the path of this machine where the copy's place is wanted."""
    deep = f"{tree.path}/"
    return not tree.same and any(text == tree.path or text.startswith(deep) for text in _texts(_args(job)))


def _args(job: ResolvedJob) -> list[Any]:
    return [stage.args for stage in job.stages]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _texts(each)
