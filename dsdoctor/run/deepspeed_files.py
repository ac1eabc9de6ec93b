"""Reads the .deepspeed_env files of this machine, where DeepSpeed's own launcher looks for them."""

from __future__ import annotations

import os
from pathlib import Path

from dsdoctor.plan.deepspeed_env import EnvFile, parse_env_file


def read_deepspeed_env() -> tuple[EnvFile, ...]:
    """The files that DeepSpeed's runner would read if it were started here, in its order: the later one wins.

    $DS_ENV_FILE, or .deepspeed_env, at home and then in the current folder. Source: launcher/runner.py of DeepSpeed
    0.19.8. A file that is not there or cannot be read counts as none.
    """
    name = os.environ.get("DS_ENV_FILE") or ".deepspeed_env"
    found: dict[Path, EnvFile] = {}
    for folder in ("~", "."):
        try:
            path = Path(folder, name).expanduser()
            real = path.resolve()
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except (OSError, RuntimeError, ValueError):  # a folder, a loop of links, no home, a name no file can have
            continue
        found.pop(real, None)  # one file by two names, as in a session that stands at home
        found[real] = parse_env_file(text, str(path))
    return tuple(found.values())
