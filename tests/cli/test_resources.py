"""The shipped folders are found in a checkout and in a wheel that was really built."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dsdoctor.resources import folder

ROOT = Path(__file__).parent.parent.parent
COMPILED = "dsdoctor/rules/compiled.json"
FOLDERS = ("launch", "templates", "hostfiles")


@pytest.mark.parametrize("name", FOLDERS)
def test_in_a_checkout_the_folders_beside_the_package_are_taken(name: str) -> None:
    assert folder(name) == ROOT / name


def test_a_folder_that_is_not_there_is_told() -> None:
    with pytest.raises(FileNotFoundError, match=r"no-such: not found in this installation"):
        folder("no-such")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = target.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.mark.slow
def test_the_wheel_holds_every_shipped_file_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if not name.endswith("/")}
    for name in FOLDERS:
        here = {str(path.relative_to(ROOT)) for path in (ROOT / name).rglob("*") if path.is_file()}
        wanted = {f"dsdoctor/_data/{path}" for path in here if "__pycache__" not in path}
        assert wanted
        assert {path for path in names if path.startswith(f"dsdoctor/_data/{name}/")} == wanted
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"dsdoctor"}
    sent = ("dsdoctor/hosts/probe/answer.py", "dsdoctor/hosts/arriving.py", "dsdoctor/run/guardian/main.py")
    for needed in (*sent, "dsdoctor/rules/cuda-oom.yaml", COMPILED):
        assert needed in names


@pytest.mark.slow
def test_the_wheel_works_away_from_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", *arguments] if sys.version_info >= (3, 11) else [sys.executable, *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100)

    where = run("-c", "import dsdoctor.resources as r; print(r.folder('launch'))")
    assert where.stdout.strip() == str(tmp_path / "site" / "dsdoctor" / "_data" / "launch"), where.stderr
    jobs = run("-m", "dsdoctor", "jobs")
    assert "order_1" in jobs.stdout, jobs.stderr
    page = run("-m", "dsdoctor", "check", "--format", "html")
    assert page.stdout.startswith("<!doctype html>"), page.stderr
    assert "explain" in run("-m", "dsdoctor", "--help").stdout
