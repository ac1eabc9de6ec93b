"""Runs the tests: those of the little cluster, which mostly wait, beside all others.

    python -m tests.side_by_side [--reports FOLDER] [PYTEST OPTION…]

What the others print comes as it is printed, what the cluster's tests print when they are done. With `--reports` each
leaves a JUnit file in the folder. Ctrl-C ends both.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

CLUSTER = "tests/cluster"
PARTS = {"cluster": (CLUSTER,), "others": ("tests", f"--ignore={CLUSTER}")}


def main(words: list[str]) -> int:
    """Run both and return the exit code of the one that failed, 0 when none did."""
    reports: Path | None = None
    if words[:1] == ["--reports"]:
        reports, words = Path(words[1]), words[2:]
    with tempfile.TemporaryFile() as kept:
        started = {}
        for name, chosen in PARTS.items():
            report = [f"--junitxml={reports / name}.xml"] if reports is not None else []
            output = kept if name == "cluster" else None
            argv = [sys.executable, "-m", "pytest", *chosen, *report, *words]
            started[name] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        codes = [process.wait() for process in reversed(started.values())]
        kept.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(kept.read())
        sys.stdout.flush()
    return next((code for code in codes if code != 0), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
