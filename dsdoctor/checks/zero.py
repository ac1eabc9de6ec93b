"""What a DeepSpeed config says of ZeRO."""

from __future__ import annotations

from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig


def stage_of(config: DeepSpeedConfig | None) -> int | None:
    """ZeRO's stage; 0 where the config names none, None where there is no config or no number."""
    if config is None:
        return None
    stage = dsconfig.get(config, "zero_optimization.stage")
    if stage is None:
        return 0
    return stage if isinstance(stage, int) and not isinstance(stage, bool) else None
