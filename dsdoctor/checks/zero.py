"""What a DeepSpeed config says of ZeRO."""

from __future__ import annotations

from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig


def stage_of(config: DeepSpeedConfig | None) -> int | None:
    """ZeRO's stage as DeepSpeed takes it: 3, 3.0, "3" and true are numbers to pydantic.

    0 where the config names none, None where there is no config or no number.
    """
    if config is None:
        return None
    stage = dsconfig.get(config, "zero_optimization.stage")
    if stage is None:
        return 0
    if isinstance(stage, str):
        return int(stage) if stage.strip().isdecimal() and len(stage) < 9 else None
    return int(stage) if isinstance(stage, int | float) and stage == stage // 1 else None
