"""Running the probe as the transports do: its modules on standard input of some interpreter."""

from __future__ import annotations

import base64
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.hosts import probe
from dsdoctor.hosts.gather import probe_pack
from dsdoctor.hosts.sent import BOOT

SOURCE = probe_pack()
for module in pkgutil.iter_modules(probe.__path__):  # tests name them as attributes of the package
    importlib.import_module(f"{probe.__name__}.{module.name}")


def run_probe(
    config: Any = None,
    *,
    python: Sequence[str] = (sys.executable,),
    env: Mapping[str | bytes, str | bytes] | None = None,
    cwd: Path | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[bytes]:
    """The probe's process, ended: `python -u -c BOOT CONFIG` with its modules on standard input."""
    packed = config if isinstance(config, str) else base64.b64encode(json.dumps(config or {}).encode()).decode()
    environment: dict[str | bytes, str | bytes] = {**os.environ, **(env or {})}
    argv = [*python, "-u", "-c", BOOT, packed]
    return subprocess.run(argv, input=SOURCE, capture_output=True, env=environment, cwd=cwd, timeout=120, **options)


def read_answer(output: bytes) -> dict[str, Any]:
    """The JSON between the marker lines, which stand there once, each on a line of its own."""
    lines = output.decode("ascii").split("\n")
    assert lines.count(probe.BEGIN) == lines.count(probe.END) == 1
    begin = lines.index(probe.BEGIN)
    assert lines[begin + 2] == probe.END
    answer: dict[str, Any] = json.loads(lines[begin + 1])
    return answer


def examine(config: Any = None, **options: Any) -> dict[str, Any]:
    """The probe's answer; it must have ended well and printed nothing else."""
    done = run_probe(config, **options)
    assert done.returncode == 0
    assert done.stderr == b""
    return read_answer(done.stdout)


def value(answer: dict[str, Any], section: str) -> Any:
    """The value of a section that must have one."""
    assert "error" not in answer["sections"][section], answer["sections"][section]
    return answer["sections"][section]["value"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that stands for `/` while sections are called in this process."""
    folder = tmp_path / "root"
    folder.mkdir()
    monkeypatch.setattr(probe.files, "ROOT", str(folder))
    probe.files.MEMO.clear()
    yield folder
    probe.files.MEMO.clear()


def lay(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files below a folder, their parents made."""
    for name, content in files.items():
        path = folder / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
