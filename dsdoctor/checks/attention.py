"""Whether a job asks for flash attention, and where it says so."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.checks.context import JobContext, is_true
from dsdoctor.report.model import Evidence

# transformers' attn_implementation, its older switch, and what LLaMA-Factory and FastChat call it.
_NAMES = ("attn_implementation", "attention_implementation")
_SWITCHES = ("use_flash_attention_2", "use_flash_attn", "use_flash_attention", "flash_attn", "flash_attention")


def asked_for(context: JobContext | None) -> Iterator[Evidence]:
    """Every argument by which the job asks for the package flash-attn."""
    for stage, name, value in context.argument(*_NAMES, *_SWITCHES) if context else ():
        word = str(value).strip().lower()
        if word in ("flash_attention_2", "flash_attention_3", "fa2", "fa3") or (
            name.lstrip("-").replace("-", "_") in _SWITCHES and is_true(value)
        ):
            yield context.cite(f"{name}: {value} (stage {stage.name})") if context else Evidence(text=name)
