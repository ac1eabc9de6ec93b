"""What our checks say of drawn pairs of DeepSpeed config and arguments, against what transformers and DeepSpeed do.

Each pair is written down as a script with its config and its program, and judged by `dsdoctor check`'s own checks; then
the same pair is really started on the CPU, for two or three steps. Agreed is where it raised and we called an error, or
ran and we called none, and where what we say of a run that starts - a rate of 0, the scheduler, the precision - is so.
`DSDOCTOR_BENCH_PAIRS` says how many are drawn (600), and Ctrl-C ends it early; the result of those that were drawn is
kept in recorded/judges.json, with the releases.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.judges.agreement import Disagreement, compared, known, untouched
from tests.judges.judge import judge
from tests.judges.pairs import Pair, draw
from tests.judges.told import releases, told

PAIRS = int(os.environ.get("DSDOCTOR_BENCH_PAIRS", "600"))
FIRST = 10_000  # the seeds of the sweep: none that the checks were written with
RECORDED = Path(__file__).parent / "recorded" / "judges.json"


@dataclass
class Tally:
    """What was counted: all pairs, those that raised, and by what is wrong in them how many there were and agreed."""

    pairs: int = 0
    raised: int = 0
    by_fault: Counter[str] = field(default_factory=Counter)
    agreed: Counter[str] = field(default_factory=Counter)
    differing: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, seed: int, pair: Pair, seen: dict[str, Any], difference: Disagreement | None) -> None:
        """Count one pair."""
        self.pairs += 1
        self.raised += seen["raised"] is not None
        for fault in pair.faults or ["nothing"]:
            self.by_fault[fault] += 1
            self.agreed[fault] += difference is None
        if difference is not None:
            example = {"seed": seed, "config": pair.config, "argv": pair.argv, "alone": pair.alone}
            self.differing.setdefault(difference.kind, []).append({**example, "detail": difference.detail})

    @property
    def share(self) -> float:
        """The share that agreed."""
        return 1 - sum(map(len, self.differing.values())) / self.pairs


def main() -> str:
    """Draw, ask both, keep the result, and return the tables."""
    tally = Tally()
    with judge() as bench, tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        for seed in range(FIRST, FIRST + PAIRS):
            pair = draw(random.Random(seed).choice)
            seen = bench.ask(pair)
            if wrong := untouched(pair, seen):
                raise RuntimeError(f"seed {seed}: nothing is wrong in this pair, and it raises: {wrong}")
            tally.add(seed, pair, seen, compared(told(pair, Path(folder)).findings, seen))
    _keep(tally)
    return _tables(tally)


def _keep(tally: Tally) -> None:
    RECORDED.parent.mkdir(exist_ok=True)
    kinds = {
        kind: {"pairs": len(found), "why": _why(kind), "example": min(found, key=lambda one: len(str(one)))}
        for kind, found in sorted(tally.differing.items())
    }
    body = {
        "releases": releases(),
        "seeds": [FIRST, FIRST + tally.pairs - 1],
        "pairs": tally.pairs,
        "raised": tally.raised,
        "agreed": round(tally.share, 4),
        "by_fault": {fault: [tally.agreed[fault], count] for fault, count in sorted(tally.by_fault.items())},
        "disagreements": kinds,
    }
    RECORDED.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _why(kind: str) -> str | None:
    return next((one.why for one in known() if kind.startswith(one.kind)), None)


def _tables(tally: Tally) -> str:
    names = ", ".join(f"{name} {version}" for name, version in releases().items())
    lines = [f"{tally.pairs} pairs, {tally.raised} raised; agreed {tally.share:.1%} ({names})", ""]
    lines += ["| what is wrong in the pair | pairs | agreed |", "|---|---|---|"]
    lines += [
        f"| {fault.replace('_', ' ')} | {count} | {tally.agreed[fault]} |"
        for fault, count in tally.by_fault.most_common()
    ]
    lines += ["", "| disagreement | pairs | why |", "|---|---|---|"]
    for kind, found in sorted(tally.differing.items(), key=lambda item: -len(item[1])):
        lines.append(f"| {kind} | {len(found)} | {_why(kind) or 'not explained'} |")
    return "\n".join(lines)
