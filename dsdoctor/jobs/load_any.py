"""Opening a job in whatever form people have it: a script, a Slurm script, a config, a Python program, a job file.

What a file is, is told by its first line and its content before its suffix. Nothing is run; of the files that a job
names, the configs and programs are read where they are here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dsdoctor import yamlfile
from dsdoctor.jobs.job import BadFile, ResolvedJob
from dsdoctor.jobs.load import SUFFIXES, find_job, load_job
from dsdoctor.jobs.unknown import Unknown
from dsdoctor.yamlfile import FileError

if TYPE_CHECKING:
    from dsdoctor.jobs.program import Program
    from dsdoctor.jobs.script.model import Call, Script

SHELL_SUFFIXES = (".sh", ".bash", ".sbatch", ".slurm", ".zsh", ".ksh")
_JSON_SUFFIXES = (".json", ".config", ".hjson", ".jsonc")
_LARGEST = 16 << 20  # bytes; above that no file of settings is read
_CONFIG_OPTIONS = ("--deepspeed", "--deepspeed_config", "--ds_config")
_ABOVE = 3  # folders over the script's in which it may be started


def load_any(
    name_or_path: str, profile: str | None = None, settings: Sequence[str] = (), arguments: Sequence[str] = ()
) -> ResolvedJob:
    """The job of that name, or in that file, whatever kind of file it is.

    `arguments` are what a shell script is called with, its `$1` and so on.

    Raises:
        FileError: there is no such job, or its file cannot be used; with the line. Arguments for what is no script.
    """
    job = _loaded(name_or_path, profile, settings, arguments)
    if arguments and job.script is None:
        raise FileError(
            name_or_path,
            f"no shell script, which alone is called with arguments ({' '.join(arguments)}); those of a job file are "
            "given with --set",
        )
    return job


def _loaded(name_or_path: str, profile: str | None, settings: Sequence[str], arguments: Sequence[str]) -> ResolvedJob:
    given = Path(name_or_path).expanduser()
    if given.suffix in (*SHELL_SUFFIXES, *_JSON_SUFFIXES, ".py") and not given.exists():
        raise FileError(name_or_path, "there is no such file")
    if given.is_dir() and (given.suffix or "/" in name_or_path):
        raise FileError(name_or_path, "a folder; a file is wanted, or the name of a job")
    if given.suffix in SUFFIXES or not given.is_file():
        path = find_job(name_or_path)
        accelerate = _accelerate(path)
        return accelerate if accelerate is not None else load_job(name_or_path, profile, settings)
    text = read_exactly(given, script=given.suffix.lower() in SHELL_SUFFIXES)
    kind = kind_of(given.suffix.lower(), text)
    if kind == "shell":
        return load_script(given, text, arguments)
    if kind == "python":
        return _python(given, text)
    if kind == "json":
        return _deepspeed(given, text)
    wanted = "a job file (.yaml), a shell script, an sbatch script, a DeepSpeed or accelerate config, a Python program"
    raise FileError(name_or_path, f"neither suffix nor content say what kind of file this is; wanted is {wanted}")


def kind_of(suffix: str, text: str) -> str | None:
    """What a file is: "shell", "python", "json", or None where nobody can tell."""
    first = text.split("\n", 1)[0]
    if first.startswith("#!"):
        if re.search(r"\bpython[\d.]*\b", first):
            return "python"
        return "shell" if re.search(r"(?:ba|da|z|k|a)?sh\b", first) else None
    if suffix in SHELL_SUFFIXES:
        return "shell"
    if suffix == ".py":
        return "python"
    if suffix in _JSON_SUFFIXES or text.lstrip("\ufeff \t\r\n").startswith("{"):
        return "json"
    return (
        "shell" if "#SBATCH" in text or re.search(r"^\s*(deepspeed|torchrun|accelerate launch)\b", text, re.M) else None
    )


def read_exactly(path: Path, *, script: bool = False) -> str:
    """A text file's content with its line ends as they are. Raises FileError: too large, binary, not UTF-8.

    In a shell `script` comments may be in any encoding, Latin-1 or GBK; what is not UTF-8 in them is replaced.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise FileError(path, f"larger than {_LARGEST >> 20} MiB; no script or config is")
        data = path.read_bytes()
    except OSError as error:
        raise FileError(path, error.strerror or str(error)) from None
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise FileError(path, "binary: it holds a NUL byte; a text file is wanted", line)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if script and all(map(_foreign_in_comment, data.split(b"\n"))):
            return data.decode("utf-8", "replace")
        line = data.count(b"\n", 0, error.start) + 1
        raise FileError(path, f"not UTF-8 text (byte {error.start} is 0x{data[error.start]:02x})", line) from None


def _foreign_in_comment(line: bytes) -> bool:
    """Whether all that is not UTF-8 in a line stands behind a #."""
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return b"#" in line[: error.start]
    return True


def load_script(path: Path, text: str | None = None, arguments: Sequence[str] = ()) -> ResolvedJob:
    """A shell script as a job, called with these arguments where there are any. Raises FileError."""
    from dsdoctor.jobs.script.read import read_script
    from dsdoctor.jobs.script.resolve import resolve_script

    own = path.resolve().parent
    folders = [Path.cwd(), own, *list(own.parents)[:_ABOVE]]

    def open_script(name: str, beside: bool) -> tuple[str, str] | None:
        tried = (_found(folder, name) for folder in ([own] if beside else folders))
        found = next((one for one in tried if one is not None), None)
        if found is None:
            return None
        return read_exactly(found, script=True), str(path) if found.samefile(path) else _shown(found)

    script = read_script(read_exactly(path) if text is None else text, str(path), open_script, arguments or None)
    root = _started_in(path, script)

    def open_file(name: str) -> tuple[str, str] | None:
        found = _found(root, name)
        return (read_exactly(found), _shown(found)) if found is not None else None

    job = resolve_script(script, str(root), open_file)
    return _with_programs(job, script, root)


def _started_in(path: Path, script: Script) -> Path:
    """The folder that a script is started in, as far as the programs and configs that it names tell.

    Tried are the current folder, the script's and those above it; the current one when none of them has the files.
    """
    own = path.resolve().parent
    tried = [Path.cwd(), own, *list(own.parents)[:_ABOVE]]
    names = [
        posixpath.join(call.command.cwd, call.program.text)
        for call in script.calls
        if call.program is not None and not call.module and not isinstance(call.command.cwd, Unknown)
    ]
    configs = [
        word.text
        for call in script.calls[:20]
        for option, word in zip(call.arguments, call.arguments[1:], strict=False)
        if option.text in _CONFIG_OPTIONS and word.known
    ]
    given = [
        posixpath.join(call.command.cwd, word.text)
        for call in script.calls[:20]
        for word in call.arguments[1:2]
        if call.launcher == "llamafactory" and word.known and not isinstance(call.command.cwd, Unknown)
    ]
    wanted = [*names[:20], *configs, *given]
    return next((folder for name in wanted for folder in tried if _is_file(folder / name)), Path.cwd())


def _with_programs(job: ResolvedJob, script: Script, root: Path) -> ResolvedJob:
    """The job with the sources of the Python programs that it starts, where they are here."""
    from dsdoctor.jobs.program import read_program

    programs: dict[str, Program] = {}
    bad: list[BadFile] = []
    for call in script.calls:
        found = _source_of(call, root)
        if found is None or call.program is None or call.program.text in programs:
            continue
        try:
            programs[call.program.text] = read_program(read_exactly(found), _shown(found))
        except FileError as error:
            bad.append(BadFile(error.path, error.line, error.message, call.program.line))
    unusable = (*job.bad_files, *bad)
    parts = tuple(replace(part, programs=programs, bad_files=unusable) for part in job.parts)
    return replace(job, programs=programs, parts=parts, bad_files=unusable)


def _source_of(call: Call, root: Path) -> Path | None:
    if call.program is None or not call.program.known or isinstance(call.command.cwd, Unknown):
        return None
    name = call.program.text
    if call.module:
        name = name.replace(".", "/") + ".py"
    return _found(root, posixpath.join(call.command.cwd, name)) if name.endswith(".py") else None


def _found(root: Path, name: str) -> Path | None:
    """A file that a job names, None where it is not here."""
    if isinstance(name, Unknown) or "\0" in name or name.startswith("~"):
        return None
    path = root / name
    return path if _is_file(path) else None


def _is_file(path: Path) -> bool:
    with suppress(OSError, ValueError):
        return path.is_file()
    return False


def _shown(path: Path) -> str:
    """A path as short as it can be said: from the current folder, where it lies in it."""
    with suppress(ValueError):
        return str(path.resolve().relative_to(Path.cwd()))
    return str(path)


def _accelerate(path: Path) -> ResolvedJob | None:
    """The job that an accelerate config is a part of; None for another YAML file."""
    from dsdoctor.jobs.accelerate import accelerate_config, is_accelerate
    from dsdoctor.jobs.bare import bare_job
    from dsdoctor.jobs.relaxed import parse_relaxed

    text = yamlfile.read_text(path)
    if not re.search(
        r"^(?:compute_environment|distributed_type|deepspeed_config|fsdp_config|num_machines)\s*:", text, re.M
    ):
        return None
    value = yamlfile.parse(text, path)
    if not is_accelerate(value):
        return None
    config = accelerate_config(value, text, str(path))
    deepspeed = config.inline()
    notes: tuple[str, ...] = ()
    bad: list[BadFile] = []
    if config.config_file is not None:
        found = _found(Path.cwd(), config.config_file) or _found(path.parent, config.config_file)
        if found is None:
            notes = (f"{config.config_file}, which {path} names, is not here: its settings were not judged",)
        else:
            try:
                deepspeed = parse_relaxed(read_exactly(found), _shown(found))
            except FileError as error:
                bad.append(BadFile(error.path, error.line, error.message, config.line_of("deepspeed_config_file")))
    job = bare_job(str(path), deepspeed=deepspeed)
    return replace(job, accelerate=config, notes=notes, bad_files=tuple(bad))


def _deepspeed(path: Path, text: str) -> ResolvedJob:
    """A DeepSpeed config alone: nothing is known of the arguments that go with it."""
    from dsdoctor.jobs.bare import bare_job
    from dsdoctor.jobs.relaxed import parse_relaxed

    return bare_job(str(path), deepspeed=parse_relaxed(text, str(path)))


def _python(path: Path, text: str) -> ResolvedJob:
    """A Python program with the settings that are built in it."""
    from dsdoctor.jobs.bare import bare_job
    from dsdoctor.jobs.in_code import config_in_code
    from dsdoctor.jobs.program import read_program
    from dsdoctor.jobs.relaxed import parse_relaxed

    program = read_program(text, str(path))
    config, bad, notes = None, [], []
    named = program.settings.get("deepspeed")
    if not isinstance(named, str) or isinstance(named, Unknown):
        config = config_in_code(text, str(path))
    else:
        found = _found(Path.cwd(), named) or _found(path.parent, named)
        if found is None:
            notes.append(f"{named}, which line {program.lines['deepspeed']} names, is not here: it was not judged")
        else:
            try:
                config = parse_relaxed(read_exactly(found), _shown(found))
            except FileError as error:
                bad.append(BadFile(error.path, error.line, error.message, program.lines["deepspeed"]))
    job = bare_job(str(path), deepspeed=config, args=program.settings, lines=program.lines, script=path.name)
    return replace(job, programs={path.name: program}, bad_files=tuple(bad), notes=tuple(notes))
