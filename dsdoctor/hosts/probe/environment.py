"""The environment, and the files that set it."""

from __future__ import annotations

import os
import re

from .accounts import home_folder
from .files import at, entries, read
from .masking import RELEVANT, secret, visible
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


@section
def fact_environment(ask: Ask) -> dict[str, Any]:
    """Source: this process's environment, NCCL's and DeepSpeed's files, and what shells read at their start.

    NCCL reads $NCCL_CONF_FILE or else ~/.nccl.conf, then /etc/nccl.conf (src/misc/param.cc); DeepSpeed reads
    $DS_ENV_FILE or else .deepspeed_env, at home and then in the folder that it is started in (launcher/runner.py).
    """
    relevant = [(name, value) for name, value in sorted(os.environ.items()) if RELEVANT.search(name)]
    home = home_folder()
    nccl = [os.environ.get("NCCL_CONF_FILE") or os.path.join(home, ".nccl.conf"), at("/etc/nccl.conf")]
    folders = [os.path.expanduser("~"), working_folder()] + [path for role, path in ask.places if role == "work"]
    launch = [os.path.join(folder, os.environ.get("DS_ENV_FILE") or ".deepspeed_env") for folder in folders if folder]
    shell = [os.path.join(home, name) for name in (".bashrc", ".bash_profile", ".profile", ".zshrc", ".zshenv")]
    shell += [at("/etc/environment"), at("/etc/bash.bashrc"), at("/etc/bashrc"), at("/etc/profile")]
    folder = at("/etc/profile.d")
    shell += [os.path.join(folder, name) for name in entries(folder) if name.endswith(".sh")]
    return {
        "variables": visible(relevant),
        "secrets": [name for name, _ in relevant if secret(name)],
        "files": config_files(nccl, parse_nccl_conf, "nccl") + config_files(launch, parse_deepspeed_env, "deepspeed"),
        "shell_files": [row for row in config_files(shell, parse_shell, "shell") if row["variables"]],
    }


def working_folder() -> str:
    """The folder that this process was started in; empty where that is gone."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def config_files(
    paths: list[str], parse: Callable[[str], tuple[list[tuple[str, str]], list[int]]], reader: str
) -> list[dict[str, Any]]:
    """The files that are there, parsed; one that two paths lead to is there once."""
    rows = []
    places: dict[str, str] = {}
    for path in paths:
        places.setdefault(os.path.realpath(path), path)
    for path in places.values():
        try:
            pairs, bad = parse(read(path))
        except (OSError, ValueError):
            continue  # not there, or not this user's to read: the job could not read it either
        secrets = [name for name, _ in pairs if secret(name)]
        known = {"path": path, "variables": visible(pairs), "bad_lines": bad, "reader": reader, "secrets": secrets}
        rows.append(known)
    return rows


def parse_nccl_conf(text: str) -> tuple[list[tuple[str, str]], list[int]]:
    """NAME=value as NCCL takes it: nothing is stripped, the first of two wins, `#` counts as a line's first letter."""
    pairs: dict[str, str] = {}
    bad = []
    for index, line in enumerate(text.split("\n"), 1):
        name, equals, value = line.partition("=")
        if line.startswith("#"):
            continue
        if equals:
            pairs.setdefault(name, value)
        elif line.strip():
            bad.append(index)
    return list(pairs.items()), bad


def parse_deepspeed_env(text: str) -> tuple[list[tuple[str, str]], list[int]]:
    """NAME=value as DeepSpeed takes it: both stripped, the last of two wins; any line without `=` stops the launch."""
    pairs: dict[str, str] = {}
    bad = []
    for index, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.partition("=")
        if equals:
            pairs[name.strip()] = value.strip()
        else:
            bad.append(index)
    return list(pairs.items()), bad


def parse_shell(text: str) -> tuple[list[tuple[str, str]], list[int]]:
    """The plain assignments of a shell's start file that matter to training; what is computed there is not followed."""
    import shlex

    pairs: dict[str, str] = {}
    for line in text.splitlines():
        if not re.match(r"\s*(?:export\s+|declare\s+-x\s+|typeset\s+-x\s+)?[A-Za-z_]\w*=", line):
            continue
        try:
            words = shlex.split(line.replace(";", " ; "), comments=True)
        except ValueError:
            continue  # a quotation that goes on in the next line
        words = [word for word in words if word not in ("export", "declare", "typeset", "-x", ";")]
        assigned = dict(word.split("=", 1) for word in words if re.match(r"[A-Za-z_]\w*=", word))
        if any(word not in assigned and word.partition("=")[0] not in assigned for word in words):
            continue  # a command with variables before it sets nothing
        pairs.update((name, value) for name, value in assigned.items() if RELEVANT.search(name))
    return list(pairs.items()), []
