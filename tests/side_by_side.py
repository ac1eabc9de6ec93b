"""Runs the tests: those of the little cluster, which mostly wait, beside all others.

    python -m tests.side_by_side [--reports FOLDER] [PYTEST OPTION…]

What the others print comes as it is printed, what the cluster's tests print when they are done. With `--reports` each
leaves a JUnit file in the folder. Ctrl-C ends both.

The two halves slow each other down, and a test that waits for something may find it late. So when no more than a few
tests failed, those are run once more with nothing beside them; one that then passes is named, and fails nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CLUSTER = "tests/cluster"
PARTS = {"cluster": (CLUSTER,), "others": ("tests", f"--ignore={CLUSTER}")}
A_FEW = 5
FAILED = 1  # pytest's exit code for tests that failed, and nothing worse


@dataclass(frozen=True)
class Part:
    """One half of the tests."""

    name: str
    memory: Path  # where pytest remembers what failed
    reports: Path | None
    words: tuple[str, ...]

    def argv(self, run: str, *more: str) -> list[str]:
        """The command of a run of this half."""
        report = [f"--junitxml={self.reports / f'{self.name}{run}.xml'}"] if self.reports is not None else []
        memory = ["-o", f"cache_dir={self.memory}"]
        return [sys.executable, "-m", "pytest", *PARTS[self.name], *memory, *report, *self.words, *more]

    def failed(self) -> list[str]:
        """What failed in the last run."""
        path = self.memory / "v" / "cache" / "lastfailed"
        return sorted(json.loads(path.read_text())) if path.exists() else []

    def again(self) -> int:
        """Run the few that failed once more, and say which they were; gives pytest's exit code."""
        failed = self.failed()
        if not 0 < len(failed) <= A_FEW:
            return FAILED
        print(f"\n{self.name}: once more, with nothing beside them: {', '.join(failed)}", flush=True)
        return subprocess.run(self.argv("-again", "--last-failed"), stdin=subprocess.DEVNULL, check=False).returncode


def main(words: list[str]) -> int:
    """Run both and return the exit code of the one that failed, 0 when none did."""
    reports: Path | None = None
    if words[:1] == ["--reports"]:
        reports, words = Path(words[1]), words[2:]
    with tempfile.TemporaryFile() as kept, tempfile.TemporaryDirectory() as memory:
        parts = [Part(name, Path(memory) / name, reports, tuple(words)) for name in PARTS]
        outputs = [kept if part.name == "cluster" else None for part in parts]
        started = [
            subprocess.Popen(part.argv(""), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            for part, output in zip(parts, outputs, strict=True)
        ]
        codes = [process.wait() for process in started]
        kept.seek(0)
        sys.stdout.flush()
        sys.stdout.buffer.write(kept.read())
        sys.stdout.flush()
        codes = [part.again() if code == FAILED else code for part, code in zip(parts, codes, strict=True)]
    return next((code for code in codes if code != 0), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
