"""Writes dsdoctor/checks/data/deepspeed_keys.json from the sources of a DeepSpeed.

    python -m tests.checks.deepspeed_table [FOLDER] > dsdoctor/checks/data/deepspeed_keys.json

FOLDER is that of the package, the installed one's when it is left out. The reader is the one that hosts are asked with.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsdoctor.hosts.config_reader.answer import config_keys

EARLIER = ["fp32_allreduce"]  # further keys of the top that older releases read


def installed() -> Path:
    """The folder of the installed DeepSpeed, which is not imported. Raises LookupError."""
    spec = find_spec("deepspeed")
    if spec is None or not spec.submodule_search_locations:
        raise LookupError("no DeepSpeed is installed")
    return Path(spec.submodule_search_locations[0])


def table(keys: dict[str, Any]) -> str:
    """The file's text."""
    parts = ("refused", "ignored", "inner", "flags", "optional_flags", "schedulers", "needed")
    value = {part: {block: " ".join(words) for block, words in keys[part].items()} for part in parts}
    return json.dumps({**value, "old": keys["old"], "removed": keys["removed"], "earlier": EARLIER}, indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table(config_keys(sys.argv[1] if len(sys.argv) > 1 else str(installed()))))
