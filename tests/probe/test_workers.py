"""Sections in forked processes: one process while nothing hangs, more as soon as something does."""

from __future__ import annotations

import json
import os
import shutil
import signal
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


def together(folder: Path, number: int) -> Sections:
    """Sections that each end when all of them have begun: where one after the other is worked on, none ever does."""

    def waits(name: str) -> Callable[[Any], int]:
        def section(_: Any) -> int:
            (folder / name).touch()
            while len(list(folder.iterdir())) < number:
                time.sleep(0.01)
            return os.getpid()

        return section

    return {f"w{each}": waits(f"w{each}") for each in range(number)}


def test_one_process_does_it_all_where_nothing_hangs(
    survey: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe.workers, "STALL_SECONDS", 600.0)  # a machine that is busy hangs, too
    found = survey({f"s{number}": pid for number in range(40)}, timeout=600)
    assert len({section["value"] for section in found.values()}) == 1
    assert {section["value"] for section in found.values()} != {os.getpid()}


@pytest.mark.parametrize("number", [4, 30])
def test_sections_that_wait_are_not_waited_for(
    survey: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Nor by the thirtieth: as long as there is time, what comes after those that hang gets its turn at once."""
    monkeypatch.setattr(probe.workers, "STALL_SECONDS", 0.02)
    monkeypatch.setattr(probe.workers, "SECTION_SECONDS", 300.0)
    found = survey(together(tmp_path, number), timeout=600)
    assert len({section["value"] for section in found.values()}) == number


def test_many_that_hang_cost_the_others_nothing(
    survey: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe.workers, "STALL_SECONDS", 0.02)
    monkeypatch.setattr(probe.workers, "SECTION_SECONDS", 2.0)
    hanging: Sections = {f"h{number}": lambda _: time.sleep(3600) for number in range(20)}
    found = survey({**hanging, "last": pid}, timeout=600)
    assert "value" in found["last"]
    errors = {section.get("error") for name, section in found.items() if name != "last"}
    assert errors == {"no answer within 2.0 seconds"}


def test_where_little_time_is_left_all_wait_less(
    survey: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moments add up to half the time at most, however many hang."""
    ask = probe.question.Ask({"timeout": 10})
    ask.sections = [f"s{number}" for number in range(30)]
    monkeypatch.setattr(ask, "left", lambda: 8.0)
    asked = probe.workers.Survey(ask, -1)
    assert asked.stall() == pytest.approx(8 / 62)
    asked.sections = dict.fromkeys(ask.sections[:29], "{}")
    assert asked.stall() == 0.25  # the rest may take it
    monkeypatch.setattr(ask, "left", lambda: -1.0)
    assert asked.stall() == 0.0


def test_all_that_are_given_up_are_ended_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alone would take the whole patience, and the answer come when nobody waits for it any more."""
    monkeypatch.setattr(probe.workers, "ENDING", 0.1)
    deaf = [deaf_worker() for _ in range(6)]
    sent: list[tuple[int, int]] = []
    kill = os.kill
    monkeypatch.setattr(probe.workers.os, "kill", lambda pid, number: sent.append((pid, number)) or kill(pid, number))
    told = probe.workers.ended(deaf, gone=False)
    assert told == ["was killed by signal 9 (SIGKILL)"] * 6
    pids = [worker.pid for worker in deaf]
    assert sent == [(pid, signal.SIGTERM) for pid in pids] + [(pid, signal.SIGKILL) for pid in pids]
    assert probe.stopping.WORKING == []


def deaf_worker() -> probe.workers.Worker:
    """A process that will not end when it is told to."""
    worker = probe.workers.Worker()
    worker.pipe, outward = os.pipe()
    worker.pid = os.fork()
    if worker.pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(outward, b"x")
        time.sleep(120)
        os._exit(0)
    os.close(outward)
    os.read(worker.pipe, 1)
    probe.stopping.WORKING.append(worker.pid)
    return worker


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
