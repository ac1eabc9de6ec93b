"""Writes dsdoctor/checks/data/deepspeed_keys.yaml from the sources of a DeepSpeed.

    python -m tests.checks.deepspeed_table [FOLDER] > dsdoctor/checks/data/deepspeed_keys.yaml

FOLDER is that of the package, the installed one's when it is left out. The reader is the one that hosts are asked with.
"""

from __future__ import annotations

import sys
import textwrap
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dsdoctor.hosts.config_reader.answer import config_keys
from dsdoctor.jobs.dsconfig import KNOWN_RELEASE

HEAD = f"""\
# The keys that a DeepSpeed config may have, by the block that they stand in ("" is the top). Written from the sources
# of DeepSpeed {KNOWN_RELEASE} by tests/checks/deepspeed_table.py; a test compares it with the installed DeepSpeed.
#
# refused     blocks in which DeepSpeed stops at a key that it does not know ("Extra inputs are not permitted")
# ignored     blocks in which it passes such a key over without a word
# inner       second names of keys, which DeepSpeed takes, and which transformers and accelerate do not look at
# flags       keys that are true or false and nothing else; optional_flags: or null
# old         names that were replaced; DeepSpeed takes them with a line in the log
# removed     keys that this release refuses, and older ones read
# schedulers  with their parameters
# needed      those of them without which a scheduler cannot be made
# earlier     further keys of the top that older releases read (written by hand)
"""
EMPTY = '""'
EARLIER = "fp32_allreduce"


def installed() -> Path:
    """The folder of the installed DeepSpeed, which is not imported. Raises LookupError."""
    spec = find_spec("deepspeed")
    if spec is None or not spec.submodule_search_locations:
        raise LookupError("no DeepSpeed is installed")
    return Path(spec.submodule_search_locations[0])


def table(keys: dict[str, Any]) -> str:
    """The file's text."""
    lines = [HEAD.rstrip()]
    for part in ("refused", "ignored", "inner", "flags", "optional_flags", "schedulers", "needed"):
        lines.append(f"{part}:")
        for block, words in keys[part].items():
            lines += [f"  {block or EMPTY}: >-", *_folded(words, 4)]
    lines += ["old:", *(f"  {name}: {new}" for name, new in keys["old"].items())]
    lines += ["removed: >-", *_folded(keys["removed"], 2), f"earlier: {EARLIER}"]
    return "\n".join(lines) + "\n"


def _folded(words: list[str], indent: int) -> list[str]:
    space = " " * indent
    return textwrap.wrap(" ".join(words), 118, initial_indent=space, subsequent_indent=space, break_on_hyphens=False)


if __name__ == "__main__":
    sys.stdout.write(table(config_keys(sys.argv[1] if len(sys.argv) > 1 else str(installed()))))
