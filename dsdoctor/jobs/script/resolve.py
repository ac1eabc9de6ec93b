"""A script as a job: every call a stage with its arguments, its variables, and the line of each.

Calls of different programs, or with different DeepSpeed configs, are parts of the job that are judged apart.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dsdoctor.jobs.engines import Engine
from dsdoctor.jobs.job import NAME, BadFile, DeepSpeedConfig, Job, ResolvedJob, Stage, StageSettings
from dsdoctor.jobs.relaxed import parse_relaxed
from dsdoctor.jobs.script.logs import logs_of
from dsdoctor.jobs.script.model import Call, Script, Word
from dsdoctor.jobs.unknown import Unknown
from dsdoctor.yamlfile import FileError

if TYPE_CHECKING:
    from dsdoctor.jobs.accelerate import AccelerateConfig

# A file of the job by its name as the script has it: its text, and how to call it; None where it is not here.
# It raises FileError for one that is here and cannot be read.
OpenFile = Callable[[str], "tuple[str, str] | None"]

DEEPSPEED_ARGUMENTS = ("deepspeed", "deepspeed_config", "ds_config", "ds_config_path", "deepspeed_config_file")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_OPTION = re.compile(r"-{1,2}[A-Za-z_]|[–—−]")
_MOST_STAGES = 500
_ENGINES: dict[str, Engine] = {"deepspeed": "deepspeed", "torchrun": "torchrun", "accelerate": "torchrun"}


@dataclass
class _Read:
    """What the files that the calls name made of it: kept once for each file."""

    open_file: OpenFile
    configs: dict[str, DeepSpeedConfig | None] = field(default_factory=dict)
    accelerate: dict[str, AccelerateConfig | None] = field(default_factory=dict)
    bad: list[BadFile] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def resolve_script(script: Script, root: str, open_file: OpenFile) -> ResolvedJob:
    """The job that a script is. `root` is the folder that it is started in.

    Raises:
        FileError: the script starts no program.
    """
    calls = script.calls[:_MOST_STAGES]
    if not calls:
        raise FileError(
            script.source,
            "starts no training that can be seen: no deepspeed, torchrun, accelerate launch, srun, mpirun, "
            "llamafactory-cli or python with a program",
        )
    read = _Read(open_file, notes=list(script.notes))
    if script.unread:
        lines = ", ".join(map(str, script.unread[:5])) + (" and others" if len(script.unread) > 5 else "")
        read.notes.append(f"{script.source}: line {lines} could not be understood; what starts there was not judged")
    stages = _with_logs(script, calls, _stages(calls, read))
    keys = [_key(call, stage, read) for call, stage in zip(calls, stages, strict=True)]
    job = Job(name=_name(script.source), stages=tuple(Stage(name=stage.name) for stage in stages), script="-")
    whole = ResolvedJob(job=job, source=script.source, root=root, profile=None, stages=stages, env={}, script=script)
    parts = []
    for key in dict.fromkeys(keys):
        chosen = [(call, stage) for call, stage, own in zip(calls, stages, keys, strict=True) if own == key]
        part = _part(whole, chosen, stages, read.configs.get(key[1] or ""))
        parts.append(replace(part, accelerate=read.accelerate.get(key[2] or "")))
    whole = replace(whole, job=parts[0].job, deepspeed=parts[0].deepspeed)
    bad = tuple(read.bad)
    parts = [replace(part, bad_files=bad) for part in parts]
    return replace(whole, parts=tuple(parts), bad_files=bad, notes=tuple(dict.fromkeys(read.notes)))


def _part(
    whole: ResolvedJob,
    chosen: Sequence[tuple[Call, StageSettings]],
    stages: Sequence[StageSettings],
    config: DeepSpeedConfig | None,
) -> ResolvedJob:
    call = chosen[0][0]
    own = tuple(stage for _, stage in chosen)
    elsewhere = {
        text
        for stage in stages
        if stage not in own
        for name, text in stage.args.items()
        if name in ("output_dir", "save_dir") and isinstance(text, str) and not isinstance(text, Unknown)
    }
    program = call.program.text if call.program is not None else "-"
    job = Job(
        name=whole.job.name,
        stages=tuple(Stage(name=stage.name) for stage in own),
        module=program if call.module else None,
        script=None if call.module else program,
        engine=_ENGINES.get(call.launcher, "python"),
    )
    return replace(whole, job=job, stages=own, deepspeed=config, written=frozenset(elsewhere))


def _stages(calls: Sequence[Call], read: _Read) -> tuple[StageSettings, ...]:
    stages: list[StageSettings] = []
    names: set[str] = set()
    for index, call in enumerate(calls, 1):
        args, lines = arguments_of(call)
        complete = call.complete
        if call.launcher == "llamafactory":
            args, complete = _from_yaml(call, args, read)
        env = {
            name: str(one.value) for name, one in call.command.variables.items() if not isinstance(one.value, Unknown)
        }
        lines.update({f"env {name}": one.line for name, one in call.command.variables.items()})
        name = _stage_name(call, args, names)
        names.add(name)
        stages.append(StageSettings(name=name, index=index, args=args, env=dict(env), lines=lines, complete=complete))
    return tuple(stages)


def _with_logs(script: Script, calls: Sequence[Call], stages: tuple[StageSettings, ...]) -> tuple[StageSettings, ...]:
    """The stages with the files that their output goes to."""
    made = []
    for stage, logs in zip(stages, logs_of(script, calls), strict=True):
        lines = {**stage.lines, "redirection": logs[0][1]} if logs else stage.lines
        made.append(replace(stage, logs=tuple(path for path, _ in logs if posixpath.dirname(path)), lines=lines))
    return tuple(made)


def arguments_of(call: Call) -> tuple[dict[str, Any], dict[str, int]]:
    """The program's arguments by name, as argparse would part them, and the line of each. Flags without value: true."""
    args: dict[str, Any] = {}
    lines: dict[str, int] = {}
    values: list[Word] = []
    name: str | None = None
    for word in (*call.arguments, None):
        is_option = word is not None and bool(_OPTION.match(word.text)) and not _NUMBER.fullmatch(word.text)
        if word is not None and not is_option:
            values.append(word)
            continue
        if name is not None:
            args[name] = _value(values)
        values = []
        if word is None:
            break
        option, equals, given = word.text.partition("=")
        name = option[2:] if option.startswith("--") else option
        lines[name] = word.line
        if equals:
            text = Unknown(given, word.text.reason) if isinstance(word.text, Unknown) else given
            values = [Word(text, word.line, word.column)]
    return args, lines


def _value(words: Sequence[Word]) -> Any:
    made = [_scalar(word.text) for word in words]
    return True if not made else made[0] if len(made) == 1 else made


def _scalar(text: str) -> Any:
    if isinstance(text, Unknown) or not _NUMBER.fullmatch(text):
        return text
    return int(text) if re.fullmatch(r"[-+]?(?:0|[1-9]\d{0,18})", text) else float(text)


def _from_yaml(call: Call, args: dict[str, Any], read: _Read) -> tuple[dict[str, Any], bool]:
    """`llamafactory-cli train X.yaml`: the file's keys are the arguments, and KEY=VALUE behind it are laid over."""
    from dsdoctor import yamlfile

    for word in call.arguments[1:2]:
        if not word.known or not word.text.endswith((".yaml", ".yml", ".json")):
            continue
        try:
            found = read.open_file(word.text)
            value = yamlfile.parse(*found) if found is not None else None
        except FileError as error:
            read.bad.append(BadFile(error.path, error.line, error.message, word.line))
            return args, False
        if isinstance(value, dict):
            return {**{str(key): one for key, one in value.items()}, **args}, True
        read.notes.append(f"{word.text}, which line {word.line} names, is not here: its settings were not judged")
    return args, False


def _stage_name(call: Call, args: dict[str, Any], taken: set[str]) -> str:
    """A stage is called by its output folder or its run name, else by its program and line."""
    for key in ("output_dir", "run_name"):
        text = args.get(key)
        if isinstance(text, str) and not isinstance(text, Unknown):
            name = posixpath.basename(text.rstrip("/"))
            if NAME.fullmatch(name) and name not in taken:
                return name
    program = call.program.text if call.program is not None and call.program.known else call.launcher
    stem = posixpath.basename(program).removesuffix(".py")
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", stem).lstrip("._-") or "call"
    name = f"{stem}-line-{call.line}"
    number = 2
    while name in taken:
        name, number = f"{stem}-line-{call.line}-{number}", number + 1
    return name


def _key(call: Call, stage: StageSettings, read: _Read) -> tuple[str, str | None, str | None]:
    """What calls must have in common to be judged as one: the program, DeepSpeed's config, accelerate's."""
    program = call.program.text if call.program is not None else f"line {call.line}"
    accelerate = _accelerate(call, read)
    named = next(iter(config_names(call, stage)), None)
    if named is None and accelerate is not None and accelerate.config_file is not None:
        named = (accelerate.config_file, call.line)
    if named is None:
        inline = accelerate.inline() if accelerate is not None else None
        if accelerate is None or inline is None:
            return program, None, accelerate.path if accelerate else None
        read.configs[accelerate.path] = inline
        return program, accelerate.path, accelerate.path
    word, line = named
    if word not in read.configs:
        read.configs[word] = _config(word, line, read)
    return program, word, accelerate.path if accelerate else None


def _accelerate(call: Call, read: _Read) -> AccelerateConfig | None:
    """The config that `accelerate launch --config_file` names, where it is here."""
    from dsdoctor import yamlfile
    from dsdoctor.jobs.accelerate import accelerate_config, is_accelerate

    option = call.option("--config_file", "--config-file") if call.launcher == "accelerate" else None
    if option is None or not option.known:
        return None
    try:
        found = read.open_file(option.text)
        value = yamlfile.parse(*found) if found is not None else None
    except FileError as error:
        read.bad.append(BadFile(error.path, error.line, error.message, option.line))
        return None
    if found is None:
        read.notes.append(f"{option.text}, which line {option.line} names, is not here: it was not judged")
        return None
    made = accelerate_config(value, *found) if isinstance(value, dict) and is_accelerate(value) else None
    if made is not None:
        read.accelerate[made.path] = made
    return made


def config_names(call: Call, stage: StageSettings) -> Iterator[tuple[str, int]]:
    """The DeepSpeed configs that a call names, as written, with the line."""
    for name in DEEPSPEED_ARGUMENTS:
        value = stage.args.get(name)
        if isinstance(value, str) and value.lower() not in ("true", "false"):
            yield value, stage.lines.get(name, call.line)
    option = call.option("--deepspeed_config_file", "--deepspeed-config-file")
    if option is not None and call.launcher == "accelerate":
        yield option.text, option.line


def _config(name: str, line: int, read: _Read) -> DeepSpeedConfig | None:
    if isinstance(name, Unknown):
        read.notes.append(f"the DeepSpeed config {name} of line {line} is not known ({name.reason})")
        return None
    try:
        found = read.open_file(name)
        if found is None:
            read.notes.append(f"{name}, which line {line} names, is not here: its settings were not judged")
            return None
        return parse_relaxed(*found)
    except FileError as error:
        read.bad.append(BadFile(error.path, error.line, error.message, line))
        return None


def _name(source: str) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]", "-", posixpath.basename(source).rsplit(".", 1)[0])
    return stem.lstrip("._-") or "script"
