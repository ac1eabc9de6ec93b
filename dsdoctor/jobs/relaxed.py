"""DeepSpeed configs with comments and commas too many: DeepSpeed reads them (as Hjson), transformers does not."""

from __future__ import annotations

import re

from dsdoctor.jobs.dsconfig import parse_config
from dsdoctor.jobs.job import DeepSpeedConfig, Looseness

NOT_JSON = re.compile(
    r"""(?P<text>"(?:[^"\\\n]|\\.)*")|(?P<comment>//[^\n]*|\#[^\n]*|/\*.*?\*/)|(?P<comma>,)(?=(?:\s|//[^\n]*|\#[^\n]*"""
    r"""|/\*.*?\*/)*[}\]])""",
    re.DOTALL,
)


def parse_relaxed(text: str, source: str) -> DeepSpeedConfig:
    """The config, with every place where its text is not JSON and was passed over.

    Raises:
        FileError: it is neither JSON nor JSON with comments and commas before closing brackets.
    """
    loose: list[Looseness] = []

    def blanked(found: re.Match[str]) -> str:
        if found["text"]:
            return found[0]
        line = text.count("\n", 0, found.start()) + 1
        what = "a comment" if found["comment"] else "a comma before a closing bracket"
        loose.append(Looseness(line, what, found[0].split("\n", 1)[0][:60]))
        return re.sub(r"[^\n]", " ", found[0])

    config = parse_config(NOT_JSON.sub(blanked, text), source)
    return DeepSpeedConfig(path=source, value=config.value, text=config.text, loose=tuple(loose))
