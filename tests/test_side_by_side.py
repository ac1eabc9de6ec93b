"""The parts of the tests: what fails is run once more alone, and counts only when it fails again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SETTINGS = '[tool.pytest.ini_options]\naddopts = "--import-mode=importlib"\n'
ONCE = """\
import pathlib

import pytest


@pytest.mark.parametrize("name", ["a b", "c[é]"])
def test_at_the_second_try(name):
    flag = pathlib.Path(__file__).with_name(str(len(name)))
    there = flag.exists()
    flag.touch()
    assert there
"""


def run(root: Path, others: str, cluster: str) -> subprocess.CompletedProcess[str]:
    """Run the parts of a small tree of tests."""
    (root / "tests/cluster").mkdir(parents=True)
    (root / "reports").mkdir()
    (root / "pyproject.toml").write_text(SETTINGS)
    shutil.copy(HERE / "side_by_side.py", root / "tests")
    (root / "tests/test_others.py").write_text(others)
    (root / "tests/cluster/test_cluster.py").write_text(cluster)
    argv = [sys.executable, "-m", "tests.side_by_side", "--reports", "reports", "-q"]
    return subprocess.run(argv, cwd=root, capture_output=True, text=True, check=False)


def test_what_fails_once_is_named_and_fails_nothing(tmp_path: Path) -> None:
    ended = run(tmp_path, ONCE, "def test_well(): pass")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "others: once more, with nothing beside them: tests/test_others.py::test_at_the_second_try[a b], " in (
        ended.stdout
    )
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == [
        "cluster.xml",
        "others-again.xml",
        "others.xml",
    ]
    argv = [sys.executable, HERE / "ci_summary.py", *sorted((tmp_path / "reports").iterdir())]
    said = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
    assert said.count("failed beside the other parts of the tests, passed alone: tests.test_others: ") == 2


@pytest.mark.parametrize(
    ("others", "cluster", "code"),
    [
        pytest.param("def test_never(): assert False", "def test_well(): pass", 1, id="fails-again"),
        pytest.param("def test_well(): pass", "def test_never(): assert False", 1, id="fails-again-on-the-cluster"),
        pytest.param("import nothing_of_that_name", "def test_well(): pass", 2, id="cannot-be-read"),
        pytest.param(
            ONCE.replace('["a b", "c[é]"]', "['x' * n for n in range(1, 9)]"), "def test_well(): pass", 1, id="many"
        ),
    ],
)
def test_what_fails_for_good(tmp_path: Path, others: str, cluster: str, code: int) -> None:
    ended = run(tmp_path, others, cluster)
    assert ended.returncode == code, ended.stdout + ended.stderr
