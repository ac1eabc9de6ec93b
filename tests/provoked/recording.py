"""Keeps the log of a failure: with neutral places in it, and with what it was recorded on."""

from __future__ import annotations

import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

from tests.provoked.failure import RECORDED, Failure
from tests.provoked.sandbox import Outcome

INDEX = RECORDED / "index.json"
PACKAGES = ("torch", "deepspeed", "transformers", "accelerate", "peft")


def record(failure: Failure, outcome: Outcome) -> None:
    """Replace the recorded log of a failure and its entry in the index."""
    RECORDED.mkdir(exist_ok=True)
    failure.log.write_bytes(neutral(outcome))
    known = index()
    known[failure.name] = {
        "python": platform.python_version(),
        **{name: metadata.version(name).partition("+")[0] for name in PACKAGES},
    }
    entries = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known)]
    INDEX.write_text("{\n" + ",\n".join(entries) + "\n}\n", encoding="utf-8")


def index() -> dict[str, dict[str, str]]:
    """What each recorded log was recorded with: versions by package."""
    if not INDEX.exists():
        return {}
    found: dict[str, dict[str, str]] = json.loads(INDEX.read_text(encoding="utf-8"))
    return found


def neutral(outcome: Outcome) -> bytes:
    """The log with the places of this machine replaced: the job's folder, the interpreter, the home."""
    repository = Path(__file__).resolve().parents[2]
    places = {
        str(outcome.folder / "job"): "/home/alice/job",
        str(outcome.folder / "home"): "/home/alice",
        str(outcome.folder): "/home/alice/scratch",
        str(Path(sys.prefix)): "/opt/venv",
        str(Path(sys.base_prefix)): "/opt/python",
        str(repository): "/opt/dsdoctor",
        str(Path.home()): "/home/bob",
        "/root": "/home/bob",  # the user of the little cluster
    }
    text = outcome.log
    for place in sorted(places, key=len, reverse=True):
        if len(place) > 1 and not place.startswith("/usr"):
            text = re.sub(re.escape(place.encode()) + rb"(?![\w-])", places[place].encode(), text)
    return text
