"""Whether two folders are the same by their lists alone: every way in which a copy may differ, held against rsync."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dsdoctor.plan.copies import NEVER_COPIED
from dsdoctor.run.sync.host_side import MARKER, OWN
from dsdoctor.run.sync.unchanged import Listing, list_command, list_here, listing

EXCLUDE = (*(f"/{name}" for name in OWN), *NEVER_COPIED, "/outputs/", "*.log", "deep/er/cache", "/one/exact.txt")


def there(folder: Path, exclude: Sequence[str] = EXCLUDE) -> Listing | None:
    """The list of a folder as a host makes it."""
    command = list_command(str(folder), exclude, marked=True)
    assert command is not None
    return listing(subprocess.run(["sh", "-c", command], capture_output=True, check=False).stdout.split(b"\0")[:-1])


def rsync(source: Path, target: Path, *more: str, exclude: Sequence[str] = EXCLUDE) -> str:
    argv = ["rsync", "-rlpt", "-s", "--delete-delay", *(f"--exclude={each}" for each in exclude), *more]
    return subprocess.run([*argv, f"{source}/", f"{target}/"], capture_output=True, text=True, check=True).stdout


def is_same(source: Path, target: Path, exclude: Sequence[str] = EXCLUDE) -> bool:
    here = list_here(str(source), exclude)
    return here is not None and here == there(target, exclude)


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with names of every kind, and dsdoctor's copy of it."""
    source, target = tmp_path / "-so urce'\"$x", tmp_path / "copy"
    names = ("train.py", "pkg/model.py", "new\nline", "Größe 漢字", "-dash", "a // b", "deep/er/kept", "one/other.txt")
    for name in names:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the text of {name}")
        os.utime(path, (1_700_000_000, 1_700_000_000.25))
    (source / os.fsdecode(b"not-\xff-utf8")).write_bytes(b"x")
    (source / "empty").mkdir()
    (source / "link.py").symlink_to("train.py")
    (source / "pkg" / "run.sh").write_text("true")
    (source / "pkg" / "run.sh").chmod(0o755)
    os.link(source / "train.py", source / "hard.py")
    target.mkdir()
    (target / MARKER).touch()
    rsync(source, target)
    return source, target


def test_a_copy_is_the_same_and_what_is_left_out_on_either_side_does_not_count(trees: tuple[Path, Path]) -> None:
    source, target = trees
    assert is_same(source, target)
    left_out = ("pkg/__pycache__/model.cpython-311.pyc", "outputs/result.json", "pkg/a.log", "x/deep/er/cache/f")
    for tree, names in (
        (source, (".git/config", "one/exact.txt")),
        (target, (*left_out[:3], ".dsdoctor-tokens/t", "deep/er/cache")),
    ):
        for name in names:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text("left out")
    assert is_same(source, target), "as rsync has it, which leaves all of that alone"
    assert rsync(source, target, "-n", "--itemize-changes").replace(".d..t...... ./\n", "").count("deleting") == 0


def _put(name: str, text: str = "more") -> Callable[[Path], object]:
    return lambda tree: (tree / name).write_text(text)


def _dated(seconds: float) -> Callable[[Path], object]:
    return lambda tree: os.utime(tree / "train.py", (0, seconds))


def _same_size_other_time(tree: Path) -> None:
    size = (tree / "train.py").stat().st_size
    (tree / "train.py").write_text("#" * size)


def _link_for_file(tree: Path) -> None:
    (tree / "pkg/model.py").rename(tree / "pkg/model.log")  # which is left out
    (tree / "pkg/model.py").symlink_to("model.log")


def _file_for_folder(tree: Path) -> None:
    (tree / "empty").rmdir()
    (tree / "empty").touch()


def _other_target(tree: Path) -> None:
    (tree / "link.py").unlink()
    (tree / "link.py").symlink_to("pkg/run.sh")


DIFFERENCES: dict[str, Callable[[Path], object]] = {
    "longer": _put("train.py", "a longer text than the one that was there"),
    "same size, other time": _same_size_other_time,
    "older": _dated(1_600_000_000),
    "gone": lambda tree: (tree / "new\nline").unlink(),
    "beside it": _put("pkg/extra.py"),
    "empty folder beside it": lambda tree: (tree / "pkg/extra").mkdir(),
    "empty folder gone": lambda tree: (tree / "empty").rmdir(),
    "mode of a file": lambda tree: (tree / "pkg/run.sh").chmod(0o644),
    "mode of a folder": lambda tree: (tree / "pkg").chmod(0o700),
    "mode of the top": lambda tree: tree.chmod(0o750),
    "other target": _other_target,
    "link for a file": _link_for_file,
    "file for a folder": _file_for_folder,
    "other name": lambda tree: (tree / "-dash").rename(tree / "--dash"),
    "pipe beside it": lambda tree: os.mkfifo(tree / "pipe"),
    "whole tree gone": lambda tree: shutil.rmtree(tree),
    "what an interrupted copy put aside": lambda tree: (tree / ".~tmp~").mkdir(),
}


@pytest.mark.parametrize("differ", DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_copy_that_differs_is_never_the_same(trees: tuple[Path, Path], differ: Callable[[Path], object]) -> None:
    source, target = trees
    differ(target)
    assert not is_same(source, target)


@pytest.mark.parametrize("differ", [change for name, change in DIFFERENCES.items() if "top" not in name])
def test_nor_is_one_of_which_this_machine_has_changed(
    trees: tuple[Path, Path], differ: Callable[[Path], object]
) -> None:
    source, target = trees
    differ(source)
    assert not is_same(source, target)


def test_a_folder_s_own_time_does_not_count(trees: tuple[Path, Path]) -> None:
    source, target = trees
    os.utime(target / "pkg", (1, 1))
    assert is_same(source, target)


def test_a_folder_that_is_not_dsdoctor_s_own_is_not_told_of(trees: tuple[Path, Path]) -> None:
    source, target = trees
    (target / MARKER).unlink()
    assert there(target) is None
    assert not is_same(source, target)


@pytest.mark.parametrize("pattern", ["a/**/b", "**", "x[12]", "/one/*.txt", "- x", "+ x", "!", "", "/", "a/../b", "né"])
def test_a_pattern_that_find_may_read_otherwise_is_rsync_s(pattern: str) -> None:
    assert list_command("/code", (*EXCLUDE, pattern), marked=True) is None


@pytest.mark.parametrize(
    "pattern", ["*.p?", "d/", "d", "/d", "/d/", "d/e", "d/e/", "f*", "*", "/d/e/f.py", ".*", "e/f.py"]
)
def test_a_pattern_leaves_out_what_it_leaves_out_for_rsync(tmp_path: Path, pattern: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for name in ("d/e/f.py", "x/d/e/f.py", "e/d", "f.px", "fd", "x/fd/d", ".d", "x/.e/f"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    target.mkdir()
    rsync(source, target, exclude=[pattern])
    here, copied = list_here(str(source), [pattern]), list_here(str(target), [])
    assert here is not None
    assert here == copied


def test_many_files_are_rsync_s_own(trees: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = trees
    monkeypatch.setattr("dsdoctor.run.sync.unchanged.MOST", 5)
    assert not is_same(source, target)


def test_another_find_says_nothing(trees: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = trees
    find = tmp_path / "bin" / "find"
    find.parent.mkdir()
    find.write_text("#!/bin/sh\necho 'find: -printf: unknown primary or operator' >&2\nexit 1\n")
    find.chmod(0o755)
    monkeypatch.setenv("PATH", str(find.parent), prepend=os.pathsep)
    assert list_here(str(source), EXCLUDE) is None
    assert there(target) is None
