"""A job: what is started, in which stages, with which settings.

A job file (`launch/order_1.yaml`) is read into :class:`Job`; unknown keys are refused with "did you mean".
:func:`resolve` lays profile and command-line settings over it and gives a :class:`ResolvedJob`, in which every stage
carries its complete arguments: the value that checks judge, `plan()` plans and the run directory keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Union

import msgspec

from dsdoctor import yamlfile
from dsdoctor.yamlfile import FileError

Scalar = Union[bool, int, float, str, None]
Value = Union[Scalar, list[Scalar]]

Engine = Literal["torchrun", "deepspeed"]


class Sync(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is copied to the hosts before the start. Paths are relative to the job file."""

    code: str = "."
    exclude: tuple[str, ...] = ()


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task of a job. `args` are laid over the job's; `outputs` must be there afterwards, below the stage's folder."""

    name: str
    args: dict[str, Value] = {}
    env: dict[str, str] = {}
    outputs: tuple[str, ...] = ()


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named variant: settings laid over the job and, by stage name, over its stages."""

    description: str = ""
    args: dict[str, Value] = {}
    env: dict[str, str] = {}
    deepspeed: str | None = None
    stages: dict[str, dict[str, Value]] = {}


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job file, key by key.

    `module` (or `script`) is started by `engine` on every host with `args` as `--key value`; true and false become the
    words, null leaves the key out, a list gives several values. `${output_dir}`, `${run_dir}`, `${stage}`,
    `${previous_output_dir}` and `${stage_index}` stand for the paths and names of the run. `gpu_env` sets variables
    on the hosts whose GPU name contains the key.
    """

    name: str
    stages: tuple[Stage, ...]
    module: str | None = None
    script: str | None = None
    description: str = ""
    engine: Engine = "torchrun"
    python: str | None = None
    workdir: str | None = None  # where the code lands on a host; default ~/.dsdoctor/work/<job>
    setup: tuple[str, ...] = ()  # shell lines run before the interpreter, on every host (scl enable, module load)
    sync: Sync = Sync()
    args: dict[str, Value] = {}
    env: dict[str, str] = {}
    gpu_env: dict[str, dict[str, str]] = {}
    deepspeed: str | None = None  # path of a DeepSpeed config, relative to the job file; passed as --deepspeed
    precision: Literal["fp32", "fp16", "bf16", "auto"] | None = None  # auto: what every GPU of the job has
    profiles: dict[str, Profile] = {}
    default_profile: str | None = None
    summary: str | None = None  # a text file below the last stage's output folder, printed when the job is done


@dataclass(frozen=True)
class StageSettings:
    """A stage with everything laid over it: the complete arguments and variables it will be started with."""

    name: str
    index: int  # 1-based
    args: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class DeepSpeedConfig:
    """A DeepSpeed config file: its value, and its text for the lines of the evidence."""

    path: str
    value: dict[str, Any]
    text: str = ""


@dataclass(frozen=True)
class ResolvedJob:
    """A job with profile and settings applied. `root` is the folder of the job file; relative paths start there."""

    job: Job
    source: str
    root: str
    profile: str | None
    stages: tuple[StageSettings, ...]
    env: dict[str, str]
    deepspeed: DeepSpeedConfig | None = None

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name
