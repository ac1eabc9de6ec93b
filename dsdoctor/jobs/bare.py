"""A job of which only a part is at hand: a config without its program, a program without its command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from dsdoctor.jobs.job import DeepSpeedConfig, Job, ResolvedJob, Stage, StageSettings


def bare_job(
    source: str,
    *,
    deepspeed: DeepSpeedConfig | None = None,
    args: Mapping[str, Any] | None = None,
    lines: Mapping[str, int] | None = None,
    script: str = "-",
) -> ResolvedJob:
    """A job of one stage, made of a file. `args` None says that nothing is known of the arguments."""
    path = PurePath(source)
    name = re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).lstrip("._-") or "job"
    stage = StageSettings(name=name, index=1, args=dict(args or {}), lines=dict(lines or {}), complete=bool(args))
    return ResolvedJob(
        job=Job(name=name, stages=(Stage(name=name),), script=script),
        source=source,
        root=str(path.parent),
        profile=None,
        stages=(stage,),
        env={},
        deepspeed=deepspeed,
    )
