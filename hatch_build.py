"""Puts the compiled form of the log rules into a wheel, and beside the rules of an editable install.

139 YAML files take 0.1 s to read, their compiled form 4 ms. It is never committed, and never used when it is older than
the rules (the loader compares digests): who edits a rule has nothing to run.
"""

from __future__ import annotations

import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledRules(BuildHookInterface[Any]):
    """Runs before a wheel is put together."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the compiled form into the tree that is being built."""
        sys.path.insert(0, self.root)
        from dsdoctor.logs.rules import COMPILED, FOLDER, compile_rules

        (FOLDER / COMPILED).write_bytes(compile_rules())
        build_data["artifacts"].append(f"dsdoctor/rules/{COMPILED}")
