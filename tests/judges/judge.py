"""The real transformers and DeepSpeed as a judge: a worker that is asked what becomes of a pair."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.judges.pairs import Pair

ROOT = Path(__file__).parent.parent.parent


class Judge:
    """A worker with everything loaded; :meth:`ask` answers with what really became of a pair."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, pair: Pair) -> dict[str, Any]:
        """Start the pair's training and tell how it went. Raises RuntimeError when the worker is gone."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(pair.as_asked()) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def judge() -> Iterator[Judge]:
    """A judge for as long as it is wanted. What its libraries print is not kept."""
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.judges.worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env=quiet,
    ) as process:  # fmt: skip
        yield Judge(process)
        assert process.stdin is not None
        process.stdin.close()
