"""`progress.json` of a run's directory: the last word on how far the present stage is, for `status` and others."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsdoctor.run.events import Progressed

NAME = "progress.json"
SCHEMA = "dsdoctor.progress/1"


def write_progress(folder: Path, progress: Progressed) -> None:
    """Replace the file, whole or not at all; not forced to the disk, since it is soon replaced. Raises OSError."""
    body: dict[str, Any] = {"schema": SCHEMA, "time": round(time.time(), 3), **asdict(progress)}
    body["hosts"] = {name: {"step": step, "speed": speed} for name, (step, speed) in progress.hosts.items()}
    draft = folder / f".{NAME}.{os.getpid()}"
    draft.write_text(json.dumps(_finite(body), indent=1), encoding="utf-8")
    draft.replace(folder / NAME)


def read_progress(folder: Path) -> dict[str, Any] | None:
    """What the file says: the fields of `Progressed`, and `time` (seconds since the epoch). None when there is none."""
    try:
        value = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and value.get("schema") == SCHEMA else None


def _finite(value: Any) -> Any:
    """NaN and infinity as words: JSON has no numbers for them."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
