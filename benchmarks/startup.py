"""What `dsdoctor --help` costs beyond the interpreter itself, beside the launchers' own help."""

from __future__ import annotations

import sys

from benchmarks.timing import side_by_side, table


def main() -> str:
    """Time the help pages."""
    python = sys.executable
    results = side_by_side(
        {
            "python -c pass": [python, "-c", "pass"],
            "dsdoctor --help": [python, "-m", "dsdoctor", "--help"],
            "dsdoctor check --help": [python, "-m", "dsdoctor", "check", "--help"],
            "torchrun --help": [python, "-m", "torch.distributed.run", "--help"],
        }
    )
    bare, ours = results[0].median, results[1].median
    return (
        f"{table(results, 'python -c pass')}\n\n`dsdoctor --help` costs {ours - bare:.3f} s more than `python -c pass`."
    )
