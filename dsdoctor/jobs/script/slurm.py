"""What a script asks Slurm for in its #SBATCH lines: nodes, GPUs of each, time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dsdoctor.jobs.script.model import Word

_SHORT = {"-N": "--nodes", "-t": "--time", "-G": "--gpus", "-n": "--ntasks"}
# sbatch(1), --time: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, with :seconds
_TIME = re.compile(r"(?:(?P<days>\d{1,5})-)?(?P<rest>\d{1,9}(?::\d{1,9}){0,2})")


@dataclass(frozen=True)
class Request:
    """The request; None for what it does not name. `lines` are those of the options, by name."""

    nodes: int | None = None
    gpus: int | None = None  # of each node
    seconds: int | None = None  # the time limit
    lines: dict[str, int] = field(default_factory=dict)


def request_of(directives: Sequence[Word]) -> Request:
    """What the words of the #SBATCH lines ask for; of an option that is given twice the last counts."""
    given = dict(_options(directives))
    nodes = _nodes(given["--nodes"].text) if "--nodes" in given else None
    gpus = None
    for name in ("--gpus-per-node", "--gres"):
        if name in given and gpus is None:
            gpus = _gpus(given[name].text, name == "--gres")
    if gpus is None and "--gpus" in given:
        total = _gpus(given["--gpus"].text, gres=False)
        gpus = total // (nodes or 1) if total is not None and total % (nodes or 1) == 0 else None
    seconds = _seconds(given["--time"].text) if "--time" in given else None
    return Request(nodes, gpus, seconds, {name: word.line for name, word in given.items()})


def _options(words: Sequence[Word]) -> Iterator[tuple[str, Word]]:
    """The options with their values: `--nodes=2`, `--nodes 2`, `-N 2`, `-N2`."""
    for place, word in enumerate(words):
        name, equals, value = word.text.partition("=")
        if name.startswith("--"):
            following = words[place + 1] if place + 1 < len(words) else None
            if equals:
                yield name, Word(value, word.line)
            elif following is not None and not following.text.startswith("-"):
                yield name, following
        elif word.text[:2] in _SHORT:
            if len(word.text) > 2:
                yield _SHORT[word.text[:2]], Word(word.text[2:].lstrip("="), word.line)
            elif place + 1 < len(words):
                yield _SHORT[word.text], words[place + 1]


def _nodes(text: str) -> int | None:
    """`2`, or `2-2`; a true range is left open."""
    least, _, most = text.partition("-")
    return int(least) if least.isdecimal() and most in ("", least) and 0 < int(least) < 1 << 20 else None


def _gpus(text: str, gres: bool) -> int | None:
    """`4`, `a100:4`; of --gres: `gpu`, `gpu:4`, `gpu:a100:4`, among others parted by commas."""
    for part in text.split(","):
        words = part.split("(")[0].split(":")
        if gres and words[0] != "gpu":
            continue
        last = words[-1]
        if last.isdecimal():
            return int(last) if 0 < int(last) < 1 << 12 else None
        return 1 if gres else None
    return None


def _seconds(text: str) -> int | None:
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    parts = [int(part) for part in found["rest"].split(":")]
    if found["days"] is not None:
        hours, minutes, seconds = [*parts, 0, 0][:3]
        return ((int(found["days"]) * 24 + hours) * 60 + minutes) * 60 + seconds
    if len(parts) == 3:
        return (parts[0] * 60 + parts[1]) * 60 + parts[2]
    return parts[0] * 60 + (parts[1] if len(parts) == 2 else 0)
