"""Secrets where everybody on a host can read them: an argument of a program is shown by `ps` and kept with the run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from dsdoctor.jobs.job import ResolvedJob, StageSettings
from dsdoctor.plan.layers import SECRET, holds_secret
from dsdoctor.plan.model import PlanError

# Names that end in such a word and mean letters of a text, or a column of a table.
_NO_SECRETS = re.compile(
    r"(?:pad|eos|bos|unk|sep|cls|mask|special|image|video|audio|stop|sort|foreign|primary)_\w+$", re.I
)
_SHORTEST = 8  # characters of something worth hiding
_WAY = (
    "an argument is shown to everybody on the hosts by ps, and is written into the run's directory. Hand it on as a "
    "variable, which travels over standard input: --env HF_TOKEN takes it from the environment here"
)


def exposed_secrets(job: ResolvedJob) -> Iterator[str]:
    """Warnings about arguments whose names say that they are secret.

    Raises:
        PlanError: an argument's value has the shape of a well-known token, or is an address with a password.
    """
    seen = set()
    for stage in job.stages:
        for name, text in _texts(stage):
            if holds_secret(text):
                raise PlanError(f"stage {stage.name}: the value of {name} looks like a secret, and {_WAY}")
            if _named_so(name) and len(text) >= _SHORTEST and name not in seen:
                seen.add(name)
                yield f"{name} is an argument of the program, and by its name a secret: {_WAY}"


def _named_so(name: str) -> bool:
    plain = name.lstrip("-").replace("-", "_").rpartition(".")[2]
    return bool(SECRET.search(plain)) and not _NO_SECRETS.match(plain)


def _texts(stage: StageSettings) -> Iterator[tuple[str, str]]:
    for name, value in stage.args.items():
        items: list[Any] = value if isinstance(value, list) else [value]
        yield from ((name, item) for item in items if isinstance(item, str) and "${" not in item)
