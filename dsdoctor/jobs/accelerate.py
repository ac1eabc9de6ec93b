"""accelerate's YAML configs: machines, processes, precision, and the DeepSpeed settings that they hold or name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dsdoctor import yamlfile
from dsdoctor.jobs.job import DeepSpeedConfig

# Keys that only accelerate's configs have (accelerate/commands/config/config_args.py, 1.15).
_OWN = frozenset({"compute_environment", "distributed_type", "deepspeed_config", "fsdp_config", "num_machines"})

# What accelerate makes of its own DeepSpeed keys (DeepSpeedPlugin.__post_init__ in utils/dataclasses.py, 1.15).
TO_DEEPSPEED = {
    "zero_stage": "zero_optimization.stage",
    "offload_optimizer_device": "zero_optimization.offload_optimizer.device",
    "offload_param_device": "zero_optimization.offload_param.device",
    "gradient_accumulation_steps": "gradient_accumulation_steps",
    "gradient_clipping": "gradient_clipping",
    "zero3_save_16bit_model": "zero_optimization.stage3_gather_16bit_weights_on_model_save",
}


@dataclass(frozen=True)
class AccelerateConfig:
    """A config of accelerate: its values, its text, and the DeepSpeed config file that it names."""

    path: str
    value: dict[str, Any]
    text: str = ""
    deepspeed: dict[str, Any] = field(default_factory=dict)  # its deepspeed_config block

    @property
    def config_file(self) -> str | None:
        """The DeepSpeed config that it names, None where it has the settings itself, or none."""
        named = self.deepspeed.get("deepspeed_config_file")
        return str(named) if named else None

    def line_of(self, key: str) -> int | None:
        """The line on which a key stands."""
        return yamlfile.line_of(self.text, key)

    def inline(self) -> DeepSpeedConfig | None:
        """The DeepSpeed config that its own keys make; None where it names a file, or does not use DeepSpeed."""
        if not self.deepspeed or self.config_file is not None:
            return None
        made: dict[str, Any] = {}
        for key, dotted in TO_DEEPSPEED.items():
            value = self.deepspeed.get(key)
            if value in (None, "none", "auto"):
                continue
            *parents, last = dotted.split(".")
            place = made
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        return DeepSpeedConfig(path=self.path, value=made)


def is_accelerate(value: Any) -> bool:
    """Whether a YAML file's value is a config of accelerate and no job file."""
    return isinstance(value, dict) and "stages" not in value and bool(_OWN & value.keys())


def accelerate_config(value: dict[str, Any], text: str, source: str) -> AccelerateConfig:
    """The config out of a file's value."""
    block = value.get("deepspeed_config")
    return AccelerateConfig(path=source, value=value, text=text, deepspeed=block if isinstance(block, dict) else {})
