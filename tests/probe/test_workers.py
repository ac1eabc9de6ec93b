"""Sections in forked processes: one process while nothing hangs, more as soon as something does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.hosts import probe
from tests.probe.conftest import lay

Sections = dict[str, Callable[[Any], Any]]


@pytest.fixture
def survey(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Surveys sections of the test's own; gives what they came to."""
    monkeypatch.setattr(probe.workers.signal, "signal", lambda *_: None)  # this process's own stay as they are

    def surveyed(sections: Sections, **config: Any) -> dict[str, Any]:
        for name in list(probe.question.SECTIONS):
            monkeypatch.delitem(probe.question.SECTIONS, name)
        for name, function in sections.items():
            monkeypatch.setitem(probe.question.SECTIONS, name, function)
        found = probe.workers.survey(probe.question.Ask(config))
        assert list(found) == list(sections)
        assert probe.stopping.WORKING == []
        return {name: json.loads(section) for name, section in found.items()}

    return surveyed


def pid(_: Any) -> int:
    return os.getpid()


def slow(_: Any) -> int:
    time.sleep(1.0)
    return os.getpid()


def test_one_process_does_it_all_where_nothing_hangs(survey: Callable[..., dict[str, Any]]) -> None:
    found = survey({f"s{number}": pid for number in range(40)})
    assert len({section["value"] for section in found.values()}) == 1
    assert {section["value"] for section in found.values()} != {os.getpid()}


def test_a_section_that_waits_is_not_waited_for(survey: Callable[..., dict[str, Any]]) -> None:
    begun = time.monotonic()
    found = survey({"a": slow, "b": slow, "c": slow, "d": slow, "e": pid})
    assert time.monotonic() - begun < 3.5  # one after the other: 4
    assert len({section["value"] for section in found.values()}) >= 4


def test_many_that_hang_cost_the_others_nothing(survey: Callable[..., dict[str, Any]]) -> None:
    begun = time.monotonic()
    hanging: Sections = {f"h{number}": lambda _: time.sleep(60) for number in range(20)}
    found = survey({**hanging, "last": pid}, timeout=4)
    assert time.monotonic() - begun < 20
    assert "value" in found["last"]
    assert {section.get("error") for name, section in found.items() if name != "last"} <= {
        "no answer within 2.0 seconds",
        "no time was left for it",
    }


def test_a_crash_costs_its_section_alone(survey: Callable[..., dict[str, Any]]) -> None:
    found = survey({"a": pid, "b": lambda _: os.kill(os.getpid(), 9), "c": pid, "d": lambda _: os._exit(3), "e": pid})
    assert found["b"]["error"] == "its process was killed by signal 9 (SIGKILL)"
    assert found["d"]["error"] == "its process ended with status 3"
    assert len({found[name]["value"] for name in "ace"}) == 3


def test_an_answer_larger_than_a_pipe(survey: Callable[..., dict[str, Any]]) -> None:
    found = survey({"a": lambda _: "x" * 3_000_000, "b": pid})
    assert len(found["a"]["value"]) == 3_000_000


@pytest.mark.parametrize("library", ["libc.so.6", "libm.so.6", "libnccl.so.2", "no such.so", ""])
def test_the_loaders_cache_as_ldconfig_prints_it(library: str) -> None:
    if shutil.which("ldconfig", path="/usr/sbin:/sbin") is None:
        pytest.skip("needs ldconfig")
    probe.files.MEMO.clear()
    assert probe.loader.loader_cache(library) == (probe.loader.told_cache(library) if library else [])


def test_a_cache_of_its_own(tmp_path: Path, root: Path) -> None:
    """A cache that ldconfig made; one of another form, cut off or empty, is no reason to fail."""
    program = shutil.which("ldconfig", path="/usr/sbin:/sbin")
    libc = next(iter(probe.loader.told_cache("libc.so.6")), None)
    if program is None or libc is None:
        pytest.skip("needs ldconfig and glibc")
    folder = tmp_path / "libraries"
    folder.mkdir()
    shutil.copy(Path(libc).resolve(), folder / "libc.so.6")
    lay(root, {"etc/ld.so.conf": f"{folder}\n"})
    asked = [program, "-C", str(root / "etc/ld.so.cache"), "-f", str(root / "etc/ld.so.conf")]
    assert subprocess.run(asked, check=False, capture_output=True).returncode == 0
    assert str(folder / "libc.so.6") in probe.loader.loader_cache("libc.so.6")
    whole = (root / "etc/ld.so.cache").read_bytes()
    for broken in (whole[:60], b"ld.so-1.7.0\0" + bytes(50), b"x" + whole[20:] + b"\0libc.so.6\0"):
        probe.files.MEMO.clear()
        (root / "etc/ld.so.cache").write_bytes(broken)
        assert isinstance(probe.loader.loader_cache("libc.so.6"), list)
    probe.files.MEMO.clear()
    (root / "etc/ld.so.cache").unlink()
    assert probe.loader.loader_cache("libc.so.6") == []
