"""The job file that a script amounts to, as text: what its stages share once, the rest stage by stage."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dsdoctor.jobs.job import NAME, ResolvedJob, StageSettings, predicts
from dsdoctor.jobs.script.resolve import DEEPSPEED_ARGUMENTS
from dsdoctor.jobs.unknown import Unknown
from dsdoctor.yamlfile import FileError

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_/.+-]*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def as_job_file(job: ResolvedJob) -> str:
    """The YAML text of a job file that starts what the script starts.

    What the script leaves to its caller stands in it as a comment, with the line that leaves it open.

    Raises:
        FileError: the script starts several programs, or one with several DeepSpeed configs; a job file has one.
    """
    if len(job.parts) > 1:
        programs = ", ".join(dict.fromkeys(str(part.job.script or part.job.module) for part in job.parts))
        raise FileError(
            job.source,
            f"a job file starts one program with one DeepSpeed config, and this script has {len(job.parts)} such parts "
            f"({programs}); write one job file for each",
        )
    (part,) = job.parts or (job,)
    if part.job.script == "llamafactory-cli":
        raise FileError(job.source, "llamafactory-cli starts its ranks itself; write a job file with engine: program")
    return "\n".join(_lines(part)) + "\n"


def _lines(job: ResolvedJob) -> Iterator[str]:
    yield f"# Made of {job.source}. It belongs into the folder that the script is started in."
    if any(value is True for stage in job.stages for value in stage.args.values()):
        yield "# `key: true` is started as `--key true`: HfArgumentParser takes that, argparse's store_true does not."
    yield f"name: {job.name}"
    yield f"engine: {job.job.engine}"
    yield f"module: {_scalar(job.job.module)}" if job.job.module else f"script: {_scalar(job.job.script)}"
    configs = (stage.args[name] for stage in job.stages for name in DEEPSPEED_ARGUMENTS if name in stage.args)
    config = next(configs, None)
    if isinstance(config, str) and not isinstance(config, Unknown):
        yield f"deepspeed: {_scalar(config)}"
    predicting = sum(any(map(predicts, stage.args)) for stage in job.stages)
    if predicting > 1:
        yield f"predict: last # the script predicts after {predicting} stages; `every` does as it does"
    shared_env = _shared([stage.env for stage in job.stages])
    yield from _block("env", {name: str(value) for name, value in shared_env.items()}, "")
    shared = _shared([_arguments(stage) for stage in job.stages])
    yield from _block("args", shared, "")
    yield from _open(job.stages[0], shared, "  ")
    for call in job.script.calls if job.script is not None else ():
        bare = list(itertools.takewhile(lambda word: not word.text.startswith("-"), call.arguments))
        if bare:
            shown = " ".join(" ".join(word.text.split()) for word in bare)
            yield f"# line {call.line} gives its program {shown} without an option; a job file has no place for it"
    yield "stages:"
    for stage in job.stages:
        name = stage.name if NAME.fullmatch(stage.name) else f"stage-{stage.index}"
        yield f"  - name: {_scalar(name)}"
        own = {name: value for name, value in _arguments(stage).items() if name not in shared}
        yield from _block("args", own, "    ")
        yield from _open(stage, own, "      ")
        env = {name: str(value) for name, value in stage.env.items() if name not in shared_env}
        yield from _block("env", env, "    ")


def _arguments(stage: StageSettings) -> dict[str, Any]:
    return {name.lstrip("-"): value for name, value in stage.args.items() if name not in DEEPSPEED_ARGUMENTS}


def _shared(values: list[Any]) -> dict[str, Any]:
    """What all stages have, with one value."""
    first, *others = values
    return {name: value for name, value in first.items() if all(name in one and one[name] == value for one in others)}


def _block(key: str, values: Mapping[str, Any], indent: str) -> Iterator[str]:
    known = {name: value for name, value in values.items() if not _is_open(value)}
    if known:
        yield f"{indent}{key}:"
        for name, value in known.items():
            yield f"{indent}  {_scalar(name)}: {_value(value)}"


def _open(stage: StageSettings, values: Mapping[str, Any], indent: str) -> Iterator[str]:
    """What the script leaves to its caller, as comments."""
    for name, value in values.items():
        if _is_open(value):
            shown = " ".join(str(value).split())
            yield f"{indent}# {name}: {shown} in line {stage.lines.get(name, '?')}; give it, here or by --set {name}="


def _is_open(value: Any) -> bool:
    return isinstance(value, Unknown) or (isinstance(value, list) and any(isinstance(one, Unknown) for one in value))


def _value(value: Any) -> str:
    return f"[{', '.join(map(_scalar, value))}]" if isinstance(value, list) else _scalar(value)


def _scalar(value: Any) -> str:
    """A value as YAML. Texts that could be taken for something else are quoted, as JSON has them."""
    if isinstance(value, bool) or not isinstance(value, str):
        return json.dumps(value)
    return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else json.dumps(value, ensure_ascii=False)
