"""`dsdoctor check` on this machine beside the reports people paste into issues, in the same environment."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.timing import side_by_side, table


def main() -> str:
    """Time the reports."""
    python = sys.executable
    beside = Path(python).parent
    commands = {
        "dsdoctor check": [python, "-m", "dsdoctor", "check"],
        "torch.utils.collect_env": [python, "-m", "torch.utils.collect_env"],
    }
    for name, argv in {"ds_report": ["ds_report"], "accelerate env": ["accelerate", "env"]}.items():
        if shutil.which(argv[0], path=str(beside)):
            commands[name] = [str(beside / argv[0]), *argv[1:]]
    return table(side_by_side(commands), "torch.utils.collect_env")
