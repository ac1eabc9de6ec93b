"""Where a stage's time goes, and what of it is training."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass
class Clock:
    """Seconds a part of the stage took."""

    since: float
    seconds: dict[str, float]

    def lap(self, part: str) -> None:
        """Count the time since the last lap to a part."""
        now = time.monotonic()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.since
        self.since = now

    def rounded(self) -> dict[str, float]:
        """The seconds so far."""
        return {part: round(seconds, 2) for part, seconds in self.seconds.items()}


def spent(stages_seconds: Sequence[Mapping[str, float]]) -> str:
    """One line: what part of the stages' time is training, and what the rest went into.

    A stage's saving is not among it, which comes after the line is written.
    """
    parts: dict[str, float] = {}
    for seconds in stages_seconds:
        for part, value in seconds.items():
            parts[part] = parts.get(part, 0.0) + value
    whole, training = sum(parts.values()), parts.pop("training", 0.0)
    rest = sorted(((value, part) for part, value in parts.items() if value >= 0.05), reverse=True)
    share = round(100 * training / whole) if whole else 0
    return (
        f"of {whole:.1f} s in {len(stages_seconds)} stage{'s' * (len(stages_seconds) != 1)}, {training:.1f} s "
        f"({share} %) are training" + "".join(f", {part} {value:.1f}" for value, part in rest)
    )


def collect_again() -> None:
    """Have Python look for cyclic garbage again, and leave what the imports brought out of it, which stays anyway.

    Only where the program was started with that switched off: looking through a million objects of torch's and
    transformers' modules over and over is a sixth of what their import costs.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
