"""Settings of an accelerate config beside the DeepSpeed config that it names."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import check
from dsdoctor.jobs.accelerate import AccelerateConfig
from dsdoctor.report.model import Evidence, Finding, Fix, Severity

_NAMED_TWICE = frozenset(
    {
        *("gradient_accumulation_steps", "gradient_clipping", "zero_stage", "offload_optimizer_device"),
        *("offload_param_device", "offload_param_nvme_path", "offload_optimizer_nvme_path", "zero3_save_16bit_model"),
    }
)


@check(severity=Severity.ERROR, since="0.1")
def accelerate_settings_ignored(context: JobContext) -> Iterator[Finding]:
    """An accelerate config names a deepspeed_config_file and has settings that belong into that file.

    ## Why it matters
    accelerate stops at the start: "When using `deepspeed_config_file`, the following accelerate config variables will
    be ignored …". mixed_precision counts among them.

    ## How to fix it
    Say them in the DeepSpeed config, and take them out of accelerate's.

    ## Source
    accelerate/utils/dataclasses.py, DeepSpeedPlugin._deepspeed_config_checks, and commands/launch.py (1.15).
    """
    config = context.job.accelerate
    if config is None or config.config_file is None:
        return
    found = named_twice(config)
    if found:
        yield accelerate_settings_ignored.finding(
            f"{', '.join(found)} {'stands' if len(found) == 1 else 'stand'} beside deepspeed_config_file: "
            f"{config.config_file}, and accelerate stops; they belong into that file",
            evidence=[
                Evidence(
                    text=f"{key}: {config.deepspeed.get(key, config.value.get(key))}",
                    source=config.path,
                    line=config.line_of(key),
                )
                for key in found
            ],
            fix=[Fix(f"Take {', '.join(found)} out of {config.path}, and write them into {config.config_file}")],
        )


def named_twice(config: AccelerateConfig) -> list[str]:
    """The keys at which accelerate stops, because the config names a DeepSpeed config beside them."""
    if config.config_file is None:
        return []
    found = [key for key in config.deepspeed if key in _NAMED_TWICE]
    return [*found, "mixed_precision"] if "mixed_precision" in config.value else found
