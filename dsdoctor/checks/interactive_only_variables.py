"""Variables that a terminal has and the job does not get."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.checks.rank_settings import setting
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import HostFacts
from dsdoctor.report.model import Evidence, Finding, Fix, Severity, Skipped

# What changes how a job runs; PATH and the like are set anew by most start files.
_MATTERS = re.compile(
    r"NCCL_|TORCH_(?:NCCL_|FR_|DISTRIBUTED_DEBUG|CUDA_ARCH_LIST|EXTENSIONS_DIR)|GLOO_|CUDA_(?!PATH)|PYTORCH_|HF_|"
    r"TRANSFORMERS_|TRITON_|DS_|DEEPSPEED_|OMP_NUM_THREADS$|LD_LIBRARY_PATH$|LD_PRELOAD$|TOKENIZERS_PARALLELISM$|UCX_|"
    r"\w+_(?:proxy|PROXY)$"
)


@check(severity=Severity.INFO, since="0.1")
def interactive_only_variables(
    host: HostFacts, entry: HostEntry, context: JobContext | None
) -> Iterator[Finding | Skipped]:
    """A shell's start file sets variables that the job's environment on the host does not have, or has otherwise.

    ## Why it matters
    A command over ssh is no interactive shell: most ~/.bashrc end at their first lines for it. And a session of screen
    or tmux keeps what it was started with, whatever was written into the file since. A job then runs without what its
    owner sees at the prompt, on one host or on all.

    ## How to fix it
    Put what the job needs into env: of its job file, where every host gets it. In a session that is older than the
    file: `source ~/.bashrc`, or begin a new one.

    ## Source
    bash(1), INVOCATION. The environment is the one in which the probe found itself, which is how the job is started.
    """
    if context is not None and context.planned:
        return
    missing, other = [], []
    for file in host.environment.shell_files:
        if file.path.startswith("/etc/"):  # for all users and kinds of shells, with conditions around its lines
            continue
        for name, value in file.variables.items():
            if not _MATTERS.match(name):
                continue
            got = setting(name, host, entry, context)
            if got is None:
                missing.append((name, value, file.path))
            elif not _holds(got.value, value):
                other.append((name, value, file.path))
    # Where the probe ran in the user's own session, it is that session which lacks them.
    where = "this session" if entry.local else "a job that is started over ssh"
    if missing:
        yield _finding(host, missing, f"{_names(missing)}: set by {_files(missing)}, and {where} does not get it", {})
    if other:
        env = host.environment.variables
        yield _finding(host, other, f"{_names(other)}: {where} has another value than {_files(other)} sets", env)


def _holds(value: str, assigned: str) -> bool:
    """Whether a value is what an assignment makes, as far as that can be told; parts with a $ are not known."""
    parts = [part for part in assigned.split(":") if "$" not in part]
    return value == assigned or ("$" in assigned and all(part in value.split(":") for part in parts))


def _names(rows: list[tuple[str, str, str]]) -> str:
    return ", ".join(dict.fromkeys(name for name, _, _ in rows))


def _files(rows: list[tuple[str, str, str]]) -> str:
    return " and ".join(dict.fromkeys(path for _, _, path in rows))


def _finding(host: HostFacts, rows: list[tuple[str, str, str]], message: str, env: dict[str, str]) -> Finding:
    seen = [
        Evidence(text=f"{path}: {name}={value}" + (f"; here {env[name]}" if name in env else ""), source=host.name)
        for name, value, path in rows
    ]
    plain = {name: value for name, value, _ in rows if "$" not in value}
    return interactive_only_variables.finding(
        message, evidence=seen, fix=[Fix("Put what the job needs into env: of its job file", env=plain)]
    )
