"""The environment, and the files that set it."""

from __future__ import annotations

import os

from .accounts import home_folder
from .files import at, entries, read
from .masking import relevant, secret, visible
from .question import Ask, section
from .shell_files import parse_shell

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
    kept = [(name, value) for name, value in sorted(os.environ.items()) if relevant(name)]
    home = home_folder()
    nccl = [os.environ.get("NCCL_CONF_FILE") or os.path.join(home, ".nccl.conf"), at("/etc/nccl.conf")]
    folders = [os.path.expanduser("~"), working_folder()] + [path for role, path in ask.places if role == "work"]
    launch = [os.path.join(folder, os.environ.get("DS_ENV_FILE") or ".deepspeed_env") for folder in folders if folder]
    shell = [os.path.join(home, name) for name in (".bashrc", ".bash_profile", ".profile", ".zshrc", ".zshenv")]
    shell += [at("/etc/environment"), at("/etc/bash.bashrc"), at("/etc/bashrc"), at("/etc/profile")]
    folder = at("/etc/profile.d")
    shell += [os.path.join(folder, name) for name in entries(folder) if name.endswith(".sh")]
    return {
        "variables": visible(kept),
        "secrets": [name for name, _ in kept if secret(name)],
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
