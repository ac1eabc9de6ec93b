"""Runs the tests: those of the little cluster, which mostly wait, in two parts beside all others.

    python -m tests.side_by_side [--reports FOLDER] [PYTEST OPTION…]

What the others print comes as it is printed, what the cluster's tests print when they are done. With `--reports` each
leaves a JUnit file in the folder. Ctrl-C ends all.

The parts slow each other down, and a test that waits for something may find it late. So when no more than a few
tests failed, those are run once more with nothing beside them; one that then passes is named, and fails nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CLUSTER = Path("tests/cluster")
BEFALLEN = {"test_detached.py", "test_fault_matrix.py", "test_faults.py", "test_retry.py", "test_watch.py"}
A_FEW = 5
FAILED = 1  # pytest's exit code for tests that failed, and nothing worse


@dataclass(frozen=True)
class Part:
    """A part of the tests."""

    name: str
    chosen: tuple[str, ...]  # files, or words for pytest
    memory: Path  # where pytest remembers what failed
    reports: Path | None
    words: tuple[str, ...]

    def argv(self, run: str, *more: str) -> list[str]:
        """The command of a run of this part."""
        report = [f"--junitxml={self.reports / f'{self.name}{run}.xml'}"] if self.reports is not None else []
        memory = ["-o", f"cache_dir={self.memory}"]
        return [sys.executable, "-m", "pytest", *self.chosen, *memory, *report, *self.words, *more]

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


def parts() -> dict[str, tuple[str, ...]]:
    """What pytest is asked for in each part: the cluster's runs that something befalls, its other tests, the others."""
    files = sorted(CLUSTER.glob("test_*.py"))
    befallen = tuple(str(file) for file in files if file.name in BEFALLEN)
    return {
        **({"befallen": befallen} if befallen else {}),
        "cluster": tuple(str(file) for file in files if file.name not in BEFALLEN),
        "others": ("tests", f"--ignore={CLUSTER}"),
    }


def main(words: list[str]) -> int:
    """Run all parts and return the exit code of one that failed, 0 when none did."""
    reports: Path | None = None
    if words[:1] == ["--reports"]:
        reports, words = Path(words[1]), words[2:]
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for name, chosen in parts().items():
            part = Part(name, chosen, Path(folder) / name, reports, tuple(words))
            output = None if name == "others" else (Path(folder) / f"{name}.log").open("w+b")
            process = subprocess.Popen(part.argv(""), stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            started.append((part, process, output))
        codes = [process.wait() for _, process, _ in started]
        for _, _, output in started:
            if output is not None:
                output.seek(0)
                sys.stdout.buffer.write(output.read())
                output.close()
        sys.stdout.flush()
        codes = [part.again() if code == FAILED else code for (part, _, _), code in zip(started, codes, strict=True)]
    return next((code for code in codes if code != 0), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
