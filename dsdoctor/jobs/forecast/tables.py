"""The forecasts' own data files, read once: what layers keep for their backward pass, and what cards can compute.

This is the one module of the package that opens files.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from dsdoctor import yamlfile

Terms = dict[str, float]  # size -> bytes a token


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one layer, one of the decoder's, and all that lies outside the layers keep; see data/activations.yaml."""

    layer: Terms
    outside: Terms
    decoder: Terms = {}


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of card: a pattern for NVML's name, and dense peak rates in TFLOPS."""

    name: str
    fp32: float
    fp16: float | None  # tensor cores, accumulating in fp32
    bf16: float | None
    source: str


@cache
def activations() -> dict[str, dict[str, Kept]]:
    """By family, then by "precision attention trained|frozen"."""
    found: dict[str, dict[str, Kept]] = _read("activations.yaml", dict[str, dict[str, Kept]])
    return found


@cache
def cards() -> tuple[Card, ...]:
    """The cards whose rates are known."""
    found: tuple[Card, ...] = _read("gpus.yaml", tuple[Card, ...])
    return found


def _read(name: str, kind: Any) -> Any:
    content = (files("dsdoctor.jobs.forecast") / "data" / name).read_text(encoding="utf-8")
    return yamlfile.convert(yamlfile.parse(content, name), kind, name, content)
