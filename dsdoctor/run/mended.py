"""The mended copy of a DeepSpeed config that a launch uses, where the original would stop it and the copy would not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dsdoctor.checks.mending import described, mended_configs
from dsdoctor.cluster import Cluster
from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.jobs.load_any import read_exactly
from dsdoctor.jobs.trees import JobTree
from dsdoctor.plan.model import MendedConfig
from dsdoctor.yamlfile import FileError


def with_mended_config(
    job: ResolvedJob, cluster: Cluster, run_dir: Path, ignore: Sequence[str] = ()
) -> tuple[ResolvedJob, MendedConfig | None]:
    """The job with the copy in place of its config, and the copy; the job as it is where none is needed.

    Nothing is written yet. The copy is called by the run, since hosts keep those of several runs in one folder.
    """
    if job.deepspeed is None:
        return job, None
    mended = next(mended_configs(job, cluster, lambda path: read_exactly(Path(path)), ignore), None)
    if mended is None or not mended.saves:
        return job, None
    original = Path(mended.path)
    path = str(run_dir / f"{run_dir.name}.{original.stem}.mended{original.suffix}")
    changed = replace(job, deepspeed=replace(mended.config, path=path))
    tree = JobTree("deepspeed", path, file=True, same=False)
    changes = tuple(described(change) for change in mended.changes)
    return replace(changed, trees=(*job.trees, tree)), MendedConfig(mended.path, path, mended.after, changes)


def write_mended_config(mended: MendedConfig) -> None:
    """Put the copy where the plan says. Raises FileError."""
    try:
        Path(mended.path).write_text(mended.text, encoding="utf-8", newline="")
    except OSError as error:
        raise FileError(mended.path, f"cannot be written: {error.strerror}") from None
