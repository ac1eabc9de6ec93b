"""What the probe was asked, and the sections that can be asked for."""

from __future__ import annotations

import os
import time

from .files import unique

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

DEFAULT_SECONDS = 20.0  # for everything
SECTIONS: dict[str, Callable[[Ask], Any]] = {}


class Ask:
    """What the probe was asked: names to resolve and route to, paths to measure, how long it may take, and for what.

    `places` are folders that the job writes to, each with its role; `inputs` are the paths that the job names, each
    with its role and where it is on this host; `variables` are the job's own of those that name caches. `sections`
    names those wanted; without it, and for names that this probe does not know, there is no restriction.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.targets = unique(str(name) for name in config.get("targets") or () if name)
        self.paths = unique(str(path) for path in config.get("paths") or () if path)
        self.places = [(str(role), str(path)) for role, path in config.get("places") or () if path]
        self.inputs = [dict(order) for order in config.get("inputs") or ()]
        self.variables = dict(os.environ, **(config.get("variables") or {}))
        wanted = [name for name in config.get("sections") or () if name in SECTIONS]
        self.sections = [name for name in SECTIONS if name in wanted] if wanted else list(SECTIONS)
        self.timeout = min(600.0, max(0.5, float(config.get("timeout") or DEFAULT_SECONDS)))
        self.deadline = time.monotonic() + self.timeout

    def left(self) -> float:
        """Seconds until the probe must have answered."""
        return self.deadline - time.monotonic()


def section(function: Callable[[Ask], Any]) -> Callable[[Ask], Any]:
    """Register `fact_NAME` as the section NAME."""
    SECTIONS[function.__name__[len("fact_") :]] = function
    return function
