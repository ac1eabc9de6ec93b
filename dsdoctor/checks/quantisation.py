"""Whether a job asks bitsandbytes for quantised weights or optimizers, and where it says so."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext, is_true
from dsdoctor.jobs import dsconfig
from dsdoctor.report.model import Evidence

_QUANTISED = ("load_in_8bit", "load_in_4bit", "quantization_bit", "use_8bit", "use_4bit")
_ZERO = ("zero_quantized_weights", "zero_quantized_gradients", "zero_quantized_nontrainable_weights")


def quantises(context: JobContext) -> Iterator[Evidence]:
    """Every setting by which the job uses weights or an optimizer in 8 or 4 bits."""
    for stage, name, value in context.argument(*_QUANTISED):
        if is_true(value) or str(value) in ("4", "8"):
            yield context.cite(f"{name}: {value} (stage {stage.name})")
    for stage, name, value in context.argument("optim"):
        if "8bit" in str(value) or str(value).startswith("paged_"):
            yield context.cite(f"{name}: {value} (stage {stage.name})")
    for key in _ZERO:
        dotted = f"zero_optimization.{key}"
        if context.deepspeed and is_true(dsconfig.get(context.deepspeed, dotted)):
            line = dsconfig.line_of(context.deepspeed, dotted)
            yield Evidence(text=f"{dotted}: true", source=context.deepspeed.path, line=line)
