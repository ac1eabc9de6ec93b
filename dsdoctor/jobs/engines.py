"""What of a job file goes with which engine: said when the file is read, before any host is looked at."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from dsdoctor.yamlfile import FileError, line_of

if TYPE_CHECKING:
    from dsdoctor.jobs.job import Job, ResolvedJob

Engine = Literal["torchrun", "deepspeed", "python", "program"]
Rendezvous = Literal["static", "c10d"]

# Words of the launchers that say where the ranks are and meet: the plan's to give, host by host.
_TORCHRUN_SETS = (
    *("--nnodes", "--nproc-per-node", "--node-rank", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id", "--rdzv-conf"),
    *("--standalone", "--local-addr", "--master-addr", "--master-port", "--log-dir", "--tee", "--redirects"),
    *("-m", "--module", "--no-python", "-r", "-t"),
)
_DEEPSPEED_SETS = (
    *("--node-rank", "--master-addr", "--master-port", "--world-info", "--module", "--no-python", "--save-pid"),
    "--enable-each-rank-log",
)
_LAUNCHERS = {"torchrun": _TORCHRUN_SETS, "deepspeed": _DEEPSPEED_SETS}
_DEEPSPEED_WORD = re.compile(r"\$\{?deepspeed\b")


def check_engine(job: Job, source: str, text: str) -> None:
    """Refuse keys of a job that its engine has no use for, and an engine without what it needs.

    Raises:
        FileError: names the key, its value, what goes with the engine instead.
    """
    if job.engine == "program":
        _check_program(job, source, text)
    else:
        _check_script(job, source, text)
    if job.rendezvous is not None and job.engine != "torchrun":
        raise FileError(
            source,
            f"rendezvous: {job.rendezvous} is torchrun's, and engine: {job.engine} has none. Leave rendezvous: out, or "
            "write engine: torchrun",
            line_of(text, "rendezvous"),
        )
    if job.launcher_args and job.engine not in _LAUNCHERS:
        mend = "write the words into command:" if job.engine == "program" else "leave launcher_args: out"
        raise FileError(
            source,
            f"launcher_args: engine: {job.engine} starts no launcher that could take them; {mend}",
            line_of(text, "launcher_args"),
        )
    for word in map(str, job.launcher_args):
        name = re.sub(r"^--?[\w-]+", lambda found: found[0].replace("_", "-"), word.partition("=")[0])
        if name in _LAUNCHERS.get(job.engine, ()):
            raise FileError(
                source,
                f"launcher_args: {word} is set by the plan, for each host its own; leave it out",
                line_of(text, "launcher_args"),
            )


def check_deepspeed_is_used(job: ResolvedJob) -> None:
    """Refuse a DeepSpeed config that a program is never told about: it would be judged and then not used.

    Raises:
        FileError: a stage's words hold no ${deepspeed}.
    """
    if job.job.engine != "program" or job.deepspeed is None:
        return
    for stage in job.stages:
        words = [*map(str, job.job.command), *_texts(stage.args.values())]
        if not any(_DEEPSPEED_WORD.search(word) for word in words):
            raise FileError(
                job.source,
                f"deepspeed: {job.deepspeed.path} is not used by stage {stage.name}: with engine: program the config "
                "is handed on only where command: or args: say ${deepspeed}",
            )


def program_of(job: Job) -> str:
    """What is started and by what, as text: two jobs that differ in it are different work."""
    words = (job.module, job.script, *job.command, *job.launcher_args)
    return " ".join([job.engine, *(str(word) for word in words if word is not None)])


def _check_program(job: Job, source: str, text: str) -> None:
    for key in ("module", "script"):
        value = getattr(job, key)
        if value is not None:
            raise FileError(
                source,
                f"{key}: {value} goes with an engine that starts Python; engine: program starts command:. Write it "
                "there, or choose engine: torchrun, deepspeed or python",
                line_of(text, key),
            )
    if not job.command or not str(job.command[0]):
        raise FileError(
            source,
            "engine: program needs command:, the words to start on every host, as in "
            "command: [accelerate, launch, train.py]",
            line_of(text, "command") or line_of(text, "engine"),
        )
    for word in job.command:
        if "\0" in str(word):
            raise FileError(source, f"command: {word!r} holds a NUL character", line_of(text, "command"))


def _check_script(job: Job, source: str, text: str) -> None:
    if job.command:
        named = " and module:" if job.module else " and script:" if job.script else ""
        raise FileError(
            source,
            f"command:{named} with engine: {job.engine}: command: goes with engine: program alone. Write "
            "engine: program, or name the Python program by module: or script:",
            line_of(text, "command"),
        )
    if (job.module is None) == (job.script is None):
        raise FileError(source, "exactly one of module: and script: says what is started", line_of(text, "script"))


def _texts(values: Iterable[Any]) -> list[str]:
    found: list[str] = []
    for value in values:
        found += [str(item) for item in (value if isinstance(value, list) else [value])]
    return found
