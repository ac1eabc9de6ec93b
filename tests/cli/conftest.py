"""Commands run in this process, on folders of snapshots: a healthy pair of hosts, and one with two things wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dsdoctor.cli import check  # noqa: F401 - before the default hostfile is replaced: its help names the real one
from dsdoctor.cli._group import dsdoctor

ROOT = Path(__file__).parent.parent.parent
COMPOSED = ROOT / "tests" / "snapshots" / "composed" / "a100pair"


@pytest.fixture(autouse=True)
def quiet_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No default hostfile, no state outside the test's folder, a folder of its own to stand in."""
    monkeypatch.setattr("dsdoctor.hosts.examine.DEFAULT_HOSTFILE", str(tmp_path / "no-such-hostfile"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # commands run as processes of their own are those of this tree
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("NO_COLOR", "FORCE_COLOR", "DSDOCTOR_DEBUG", "DSDOCTOR_SSH_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    """Snapshots of two hosts with nothing wrong."""
    return Path(shutil.copytree(COMPOSED, tmp_path / "healthy"))


@pytest.fixture
def ill(tmp_path: Path) -> Path:
    """The same with a second NCCL owner and 1024 open files on n2."""
    folder = Path(shutil.copytree(COMPOSED, tmp_path / "ill"))
    path = folder / "n2.json"
    snapshot = json.loads(path.read_text())
    sections = snapshot["sections"]
    (owner, *_) = sections["nccl"]["value"]["owners"]
    sections["nccl"]["value"]["owners"].append({**owner, "name": "nvidia-nccl-cu11", "version": "2.14.3"})
    sections["limits"]["value"]["nofile"] = {"soft": 512, "hard": 4096}
    path.write_text(json.dumps(snapshot))
    return folder


def run(*arguments: object, **settings: Any) -> Result:
    """A command line, run; a traceback of a bug fails the test at once."""
    result = CliRunner().invoke(dsdoctor, [str(word) for word in arguments], **settings)
    assert result.exit_code != 4, result.output
    return result
