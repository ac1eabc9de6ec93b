"""The table of what DeepSpeed takes in optimizer, scheduler and zero_optimization (`data/deepspeed_parts.yaml`)."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from dsdoctor import yamlfile
from dsdoctor.checks import tables
from dsdoctor.checks.config_keys import Basis


class ConfigParts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The optimizers and schedulers with their parameters, and the values of zero_optimization by kind."""

    optimizers: dict[str, frozenset[str]]
    schedulers: dict[str, frozenset[str]]  # of the table of keys
    torch: dict[str, frozenset[str]]
    torch_schedulers: dict[str, frozenset[str]]
    needed: dict[str, frozenset[str]]
    whole: dict[str, int]
    devices: tuple[str, ...]

    def parameters(self, block: str, kind: Any) -> frozenset[str]:
        """The parameters of an optimizer or a scheduler; empty where they are not known."""
        if not isinstance(kind, str):
            return frozenset()
        known = self.optimizers.get(kind.lower()) if block == "optimizer" else self._of_scheduler(kind)
        return known or frozenset()

    def _of_scheduler(self, kind: str) -> frozenset[str] | None:
        return self.schedulers.get(kind) or self.torch_schedulers.get(kind)

    def has(self, block: str, kind: str) -> bool:
        """Whether DeepSpeed can make an optimizer or a scheduler of that name."""
        own = kind.lower() in self.optimizers if block == "optimizer" else kind in self.schedulers
        return own or kind in self.torch[block]


def parts_of(basis: Basis) -> ConfigParts:
    """The table with the schedulers of the release that is judged by."""
    table = config_parts()
    if not basis.keys.schedulers:
        return table
    return msgspec.structs.replace(table, schedulers=basis.keys.schedulers, needed=basis.keys.needed)


@cache
def config_parts() -> ConfigParts:
    """The table; its names stand in it as words of one text."""
    name = "deepspeed_parts.yaml"
    content = tables.text("data", name)
    value = yamlfile.parse(content, name)
    if isinstance(value, dict):
        for key in ("optimizers", "torch", "torch_schedulers"):
            value[key] = {kind: words.split() for kind, words in value[key].items()}
        keys = tables.config_keys().keys
        value.update(schedulers=keys.schedulers, needed=keys.needed)
    return yamlfile.convert(value, ConfigParts, name, content)
