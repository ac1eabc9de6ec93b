"""A job: what is started, in which stages, with which settings.

A job file (`launch/order_1.yaml`) is read into :class:`Job`; unknown keys are refused with "did you mean".
:func:`resolve` lays profile and command-line settings over it and gives a :class:`ResolvedJob`, in which every stage
carries its complete arguments: the value that checks judge, `plan()` plans and the run directory keeps.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from dsdoctor import yamlfile
from dsdoctor.jobs.engines import Engine, Rendezvous, check_deepspeed_is_used, check_engine
from dsdoctor.jobs.requirements import JobRequirement, check_requirement, check_specifier
from dsdoctor.yamlfile import FileError

if TYPE_CHECKING:
    from dsdoctor.jobs.accelerate import AccelerateConfig
    from dsdoctor.jobs.program import Program
    from dsdoctor.jobs.script.model import Script
    from dsdoctor.jobs.trees import JobTree

Scalar = bool | int | float | str | None
Word = bool | int | float | str
Value = bool | int | float | str | list[bool | int | float | str] | None
Variables = dict[str, str | None]  # None takes a variable away that the session on a host has, or that is derived

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Copied(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A folder or file of this machine that hosts get a copy of.

    `at: work` puts it into the work folder, and the placeholder says where that is; `at: same` gives it the absolute
    path that it has here.
    """

    path: str
    at: Literal["work", "same"] = "work"


class Sync(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is copied to the hosts before the start. Paths are relative to the job file.

    `code` is the folder that the program is started in: made equal to this machine's on every host, what is not here
    any more is deleted there; `exclude` are rsync's patterns of what is left out of it. `data` and `model` are folders
    or files that the arguments name as `${data_dir}` and `${model_dir}`: copied where a host does not have them whole,
    by size and time, and nothing of them is ever deleted. What no argument names is not copied.
    """

    code: str = "."
    data: str | Copied | None = None
    model: str | Copied | None = None
    exclude: tuple[str, ...] = ()


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task of a job. `args` are laid over the job's; `outputs` must be in the stage's folder afterwards."""

    name: str
    args: dict[str, Value] = {}
    env: Variables = {}
    outputs: tuple[str, ...] = ()


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named variant: settings laid over the job and, by stage name, over its stages.

    `only` names the stages that are carried out, in the job's order and counted from 1; without it, all are.
    """

    description: str = ""
    only: tuple[str, ...] = ()
    args: dict[str, Value] = {}
    env: Variables = {}
    deepspeed: str | None = None
    stages: dict[str, dict[str, Value]] = {}


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job file, key by key.

    `module` (or `script`) is started on every host with `args` as `--key value`; true and false become the words, null
    leaves the key out, a list gives several values. What starts it is the `engine`:

    - `torchrun`: one a host. `rendezvous` is static (ranks in the hostfile's order), or c10d (ranks in the order of
      the hosts' addresses as text, which is how torchrun sorts them).
    - `deepspeed`: `deepspeed.launcher.launch`, one a host, as `deepspeed` itself starts it on a node. It gives the
      program `--local_rank=N` before the other arguments, unless `launcher_args` holds `--no_local_rank`.
    - `python`: one interpreter a rank, with RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, NODE_RANK, GROUP_RANK,
      MASTER_ADDR and MASTER_PORT; one rank alone is plain python without any of them.
    - `program`: `command` once a host, whatever it is. It finds NNODES, NODE_RANK, NPROC_PER_NODE, WORLD_SIZE,
      MASTER_ADDR and MASTER_PORT in its environment, and the same as placeholders for its words. `args` are put behind
      it. Where it starts torchrun inside, that tags the lines with their rank (PET_TEE).

    `launcher_args` are further words for torchrun or DeepSpeed's launcher (`--max_restarts=3`).

    Placeholders in `args` and `command`: `${output_dir}`, `${previous_output_dir}`, `${run_dir}`, `${stage}`,
    `${stage_index}`, `${precision}`, `${world_size}`, `${nnodes}`, `${node_rank}`, `${nproc_per_node}`,
    `${first_rank}`, `${master_addr}`, `${master_port}`, `${python}` (the job's interpreter on the host), and
    `${deepspeed}` (the config's path, where the job has one).

    `env` sets variables for all ranks, `gpu_env` those of one kind of GPU: on the hosts whose GPU name, or `gpu=` in
    the hostfile, contains the key (`gpu_env: {"RTX 4090": {NCCL_P2P_DISABLE: "1"}}`). `env` wins over it, and what a
    stage's `env` says over both. A value is a text, in which those placeholders stand for the same and any other $ for
    itself; `NAME: null` takes a variable away that the session on a host has or that dsdoctor derives. `requirements`
    are what the hosts must have installed: the path of a requirements file (relative to the job file), or its lines;
    without it the requirements.txt in the code's folder is looked at.

    `predict: last` takes `do_predict` from every stage but the last that is carried out: what is between is needed for
    forgetting and the like, and takes time. `every` leaves the arguments as they are.
    """

    name: str
    stages: tuple[Stage, ...]
    module: str | None = None
    script: str | None = None
    description: str = ""
    engine: Engine = "torchrun"
    rendezvous: Rendezvous | None = None  # torchrun's; None is static
    command: tuple[Word, ...] = ()  # of engine program
    launcher_args: tuple[Word, ...] = ()
    python: str | None = None
    workdir: str | None = None  # where the code lands on a host; default ~/.dsdoctor/work/<job>
    requires_python: str | None = None  # ">=3.9"
    requirements: str | tuple[str, ...] | None = None
    setup: tuple[str, ...] = ()  # shell lines run before the interpreter, on every host (scl enable, module load)
    sync: Sync = Sync()
    args: dict[str, Value] = {}
    predict: Literal["every", "last"] = "every"
    env: Variables = {}
    gpu_env: dict[str, Variables] = {}
    deepspeed: str | None = None  # path of a DeepSpeed config, relative to the job file; passed as --deepspeed
    precision: Literal["fp32", "fp16", "bf16", "auto"] | None = None  # auto: what every GPU of the job has
    cpu_slots: Annotated[int, msgspec.Meta(ge=1)] = 1  # ranks on this machine without hostfile and without GPUs
    profiles: dict[str, Profile] = {}
    default_profile: str | None = None
    summary: str | None = None  # a text file below the last stage's output folder, printed when the job is done


@dataclass(frozen=True)
class StageSettings:
    """A stage with everything laid over it: the complete arguments and variables it will be started with."""

    name: str
    index: int  # 1-based
    args: dict[str, Any] = field(default_factory=dict)
    env: Variables = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    lines: dict[str, int] = field(default_factory=dict)  # of a script: by argument, by "env NAME"
    logs: tuple[str, ...] = ()  # files that a script sends its output to
    complete: bool = True  # whether args are all that the program gets; not so with "$@" in a script


@dataclass(frozen=True)
class Looseness:
    """A place where a DeepSpeed config is no JSON, and what stands there."""

    line: int
    what: str
    text: str


@dataclass(frozen=True)
class DeepSpeedConfig:
    """A DeepSpeed config file: its value, and its text for the lines of the evidence.

    `loose` are the places where the file is Hjson and no JSON; they are blank in `text`.
    """

    path: str
    value: dict[str, Any]
    text: str = ""
    loose: tuple[Looseness, ...] = ()


@dataclass(frozen=True)
class BadFile:
    """A file that the job names and that cannot be used, with the line of the job that names it."""

    path: str
    line: int | None
    message: str
    named_in: int | None = None


@dataclass(frozen=True)
class ResolvedJob:
    """A job with profile and settings applied. `root` is the folder of the job file; relative paths start there.

    `present` are the paths among its arguments that are here and are copied: relative ones in the code's folder, and
    those of `trees`, the data and model that it names.

    A job that was read out of a `script` is judged by its `parts`, calls of one program with one DeepSpeed config;
    `written` are the folders that the other parts write. `programs` are the sources of its Python programs that are
    at hand, by their name in the job. `notes` say what could not be judged.
    """

    job: Job
    source: str
    root: str
    profile: str | None
    stages: tuple[StageSettings, ...]
    env: Variables
    deepspeed: DeepSpeedConfig | None = None
    present: frozenset[str] = frozenset()
    requirements: tuple[JobRequirement, ...] = ()
    trees: tuple[JobTree, ...] = ()
    script: Script | None = None
    parts: tuple[ResolvedJob, ...] = ()
    written: frozenset[str] = frozenset()
    programs: Mapping[str, Program] = field(default_factory=dict)
    bad_files: tuple[BadFile, ...] = ()
    notes: tuple[str, ...] = ()
    accelerate: AccelerateConfig | None = None

    @property
    def name(self) -> str:
        """The job's name."""
        return self.job.name


def parse_job(text: str, source: str) -> Job:
    """Read a job file's text.

    Raises:
        FileError: not YAML, unknown keys, wrong types, or a job that cannot be carried out; names file, key and line.
    """
    value = yamlfile.parse(text, source)
    if not isinstance(value, dict):
        raise FileError(source, f"a job is a mapping of keys, found {type(value).__name__}")
    job = yamlfile.convert(value, Job, source, text)
    if not NAME.fullmatch(job.name):
        raise FileError(source, f"name: {job.name!r} must be letters, digits, '.', '_' or '-' (it names folders)")
    check_engine(job, source, text)
    if not job.stages:
        raise FileError(source, "stages: at least one is wanted")
    names = [stage.name for stage in job.stages]
    for name in names:
        if not NAME.fullmatch(name):
            raise FileError(source, f"stages: the name {name!r} must be letters, digits, '.', '_' or '-'")
        if names.count(name) > 1:
            raise FileError(source, f"stages: two are called {name}")
    for profile_name, profile in job.profiles.items():
        _known(profile.only, names, source, f"profiles.{profile_name}.only")
        _known(profile.stages, profile.only or names, source, f"profiles.{profile_name}.stages")
    if job.default_profile is not None:
        _known([job.default_profile], list(job.profiles), source, "default_profile")
    if job.requires_python is not None:
        check_specifier(job.requires_python, source)
    for text_of_one in job.requirements if isinstance(job.requirements, tuple) else ():
        check_requirement(text_of_one, source)
    for pattern in job.sync.exclude:
        if not pattern or "\n" in pattern or "\0" in pattern:
            raise FileError(source, f"sync.exclude: {pattern!r} is no pattern")
        if pattern == "!" or pattern.startswith(("+ ", "- ")):
            raise FileError(source, f"sync.exclude: {pattern!r} is a rule of rsync's; wanted is a pattern alone")
    return job


def resolve(
    job: Job,
    source: str,
    *,
    profile: str | None = None,
    settings: Sequence[str] = (),
    read_deepspeed: Callable[[str], DeepSpeedConfig] | None = None,
) -> ResolvedJob:
    """Lay a profile and `KEY=VALUE` settings over a job.

    A setting is an argument of every stage, or `STAGE.KEY=VALUE` of one; values are read as YAML scalars.

    Raises:
        FileError: an unknown profile or stage, a setting that is not KEY=VALUE, or a DeepSpeed config that is not used.
    """
    name = profile or job.default_profile
    chosen = Profile()
    if name is not None:
        _known([name], list(job.profiles), source, "profile")
        chosen = job.profiles[name]
    carried_out = [stage for stage in job.stages if not chosen.only or stage.name in chosen.only]
    general, by_stage = _parse_settings(settings, [stage.name for stage in carried_out])
    stages = tuple(
        StageSettings(
            name=stage.name,
            index=index,
            args={
                **job.args,
                **chosen.args,
                **stage.args,
                **chosen.stages.get(stage.name, {}),
                **general,
                **by_stage.get(stage.name, {}),
            },
            env=dict(stage.env),
            outputs=stage.outputs,
        )
        for index, stage in enumerate(carried_out, 1)
    )
    if job.predict == "last":
        stages = (*map(_without_prediction, stages[:-1]), *stages[-1:])
    config = chosen.deepspeed or job.deepspeed
    resolved = ResolvedJob(
        job=job,
        source=source,
        root=str(PurePath(source).parent),
        profile=name,
        stages=stages,
        env={**job.env, **chosen.env},
        deepspeed=read_deepspeed(config) if config and read_deepspeed else None,
    )
    check_deepspeed_is_used(resolved)
    return resolved


def predicts(name: str) -> bool:
    """Whether an argument of that name makes a Trainer's program predict, however it is written."""
    return name.lstrip("-").replace("-", "_") == "do_predict"


def _without_prediction(stage: StageSettings) -> StageSettings:
    return replace(stage, args={name: value for name, value in stage.args.items() if not predicts(name)})


def _known(names: Iterable[str], known: Sequence[str], source: str, where: str) -> None:
    """Refuse a name that is not among the known ones, with the nearest one."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            near = f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(known) or 'none'}"
            raise FileError(source, f"{where}: unknown name {name}{near}")


def _parse_settings(settings: Sequence[str], stages: Sequence[str]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    general: dict[str, Any] = {}
    by_stage: dict[str, dict[str, Any]] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key:
            raise FileError("--set", f"{setting!r} is not KEY=VALUE or STAGE.KEY=VALUE")
        value = yamlfile.parse(text, f"--set {key}") if text else ""
        if isinstance(value, dict):
            raise FileError("--set", f"{setting!r}: a value is a word, a number or a list")
        stage, dot, rest = key.rpartition(".")
        if dot:
            _known([stage], stages, "--set", setting)
            by_stage.setdefault(stage, {})[rest] = value
        else:
            general[key] = value
    return general, by_stage
