"""Snapshots on disk: what is saved is what is loaded, and a file that is none says what it is and what to do."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsdoctor.facts import SCHEMA, HostFacts, Section, Snapshot
from dsdoctor.hosts import snapshots
from dsdoctor.yamlfile import FileError

OS = {"hostname": "a", "kernel": "6.1", "machine": "x86_64", "distribution": "Debian GNU/Linux 12 (bookworm)"}


def facts(host: str = "a", origin: str = "recorded on paper", **sections: Any) -> HostFacts:
    values = {name: Section(value=value) for name, value in ({"os": OS} | sections).items()}
    return HostFacts(Snapshot(host=host, origin=origin, recorded_at="2026-01-02T03:04:05Z", sections=values))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    held = {"a": facts("a"), "b": facts("b", shm={"total_bytes": 1, "free_bytes": 1})}
    files = snapshots.save(held, tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["a.json", "b.json"]
    loaded = snapshots.load(tmp_path / "new" / "folder")
    assert {name: host.snapshot for name, host in loaded.items()} == {
        name: host.snapshot for name, host in held.items()
    }
    assert snapshots.load(files[1])["b"].shm.total_bytes == 1
    assert sorted(path.name for path in (tmp_path / "new/folder").iterdir()) == ["a.json", "b.json"]


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    snapshots.save({"a": facts(origin="recorded on Monday")}, tmp_path)
    snapshots.save({"a": facts(origin="recorded on Tuesday")}, tmp_path)
    assert snapshots.load(tmp_path)["a"].snapshot.origin == "recorded on Tuesday"


def test_an_interrupted_write_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots.save({"a": facts(origin="recorded on Monday")}, tmp_path)

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        snapshots.save({"a": facts(origin="recorded on Tuesday")}, tmp_path)
    assert snapshots.load(tmp_path)["a"].snapshot.origin == "recorded on Monday"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_two_at_once_leave_whole_files(tmp_path: Path) -> None:
    big = {"distributions": [{"name": f"p{number}", "version": "1"} for number in range(2000)]}
    writers = [
        threading.Thread(
            target=snapshots.save, args=({"a": facts(origin=f"recorded on {number}", packages=big)}, tmp_path)
        )
        for number in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert snapshots.load(tmp_path)["a"].snapshot.origin.startswith("recorded on ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@given(st.lists(st.text(min_size=1, max_size=40), unique=True, min_size=1, max_size=5))
def test_every_host_name_makes_a_file_of_its_own(names: list[str]) -> None:
    try:
        files = [snapshots.file_name(name) for name in names]
    except UnicodeEncodeError:
        assert any("\ud800" <= character <= "\udfff" for name in names for character in name)
        return
    assert len(set(files)) == len(names)
    for file in files:
        assert file.isascii() and "/" not in file and "\0" not in file and not file.startswith((".", "-", " "))


@pytest.mark.parametrize("name", ["..", "../up", "-rf", "a b", "fe80::1%eth0", "caf\u00e9", "a\nb", ".hidden"])
def test_odd_host_names(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    snapshots.save({name: facts(name)}, folder)
    assert list(snapshots.load(folder)) == [name]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def gpu(*names: str) -> dict[str, Any]:
    return {"status": "ok", "gpus": [{"index": index, "name": name} for index, name in enumerate(names)]}


@pytest.mark.parametrize(
    ("said", "sections", "wanted"),
    [
        ("", {}, "recorded on Debian GNU/Linux 12 (bookworm), x86_64, 2026-01-02"),
        (
            "recorded by dsdoctor 0.1",
            {"gpu": gpu("A100", "A100", "V100"), "torch": {"version": "2.1.2+cu121"}},
            "recorded by dsdoctor 0.1 on Debian GNU/Linux 12 (bookworm), x86_64, 2 x A100 and 1 x V100, "
            "torch 2.1.2+cu121, 2026-01-02",
        ),
        (
            "",
            {"gpu": gpu(), "torch": {"version": None}},
            "recorded on Debian GNU/Linux 12 (bookworm), x86_64, no GPU seen, no torch, 2026-01-02",
        ),
        ("", {"os": "nonsense"}, "recorded on an unknown system, 2026-01-02"),
        ("recorded on a machine in Berlin", {}, "recorded on a machine in Berlin"),
        ("composed by hand", {}, "composed by hand"),
    ],
)
def test_every_saved_snapshot_says_where_it_comes_from(
    tmp_path: Path, said: str, sections: dict[str, Any], wanted: str
) -> None:
    snapshots.save({"a": facts(origin=said, **sections)}, tmp_path)
    assert snapshots.load(tmp_path)["a"].snapshot.origin == wanted


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON: "),
        (b'{"schema": "dsdoctor.facts/1", "host": "a"', "not JSON: "),
        (b"\xff\xfe", "not JSON: "),
        (b"[" * 100_000, "not JSON: "),
        (b"[]", "not a snapshot of facts: it names no schema"),
        (b"{}", "not a snapshot of facts: it names no schema"),
        (b'{"schema": 7}', "not a snapshot of facts: its schema is 7"),
        (b'{"schema": "dsdoctor.report/1"}', "its schema is 'dsdoctor.report/1'"),
        (b'{"schema": "dsdoctor.facts/2", "hosts": []}', "made by a newer dsdoctor: its schema is dsdoctor.facts/2"),
        (b'{"schema": "dsdoctor.facts/x"}', "made by another dsdoctor: "),
        (b'{"schema": "dsdoctor.facts/1"}', "missing required field `host`"),
        (
            b'{"schema": "dsdoctor.facts/1", "host": "a", "sections": []}',
            "Expected `object`, got `array` - at `$.sections`",
        ),
    ],
)
def test_a_file_that_is_no_snapshot(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    for place in (file, tmp_path):
        with pytest.raises(FileError) as raised:
            snapshots.load(place)
        assert raised.value.path == str(file)
        assert message in raised.value.message
        assert "save the facts again with: dsdoctor check --save-facts DIR" in raised.value.message


def test_a_folder_without_snapshots_and_no_folder_at_all(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(FileError, match="no snapshot"):
        snapshots.load(tmp_path)
    with pytest.raises(FileError, match="no such file or folder"):
        snapshots.load(tmp_path / "gone")


def test_two_snapshots_of_one_host(tmp_path: Path) -> None:
    snapshots.save({"a": facts()}, tmp_path)
    (tmp_path / "copy.json").write_bytes((tmp_path / "a.json").read_bytes())
    with pytest.raises(FileError, match=r"copy.json: a second snapshot of host a; the first is .*a.json"):
        snapshots.load(tmp_path)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="file"):
        snapshots.save({"a": facts()}, tmp_path / "file")
    (tmp_path / "a.json").mkdir()
    with pytest.raises(FileError, match=r"a\.json"):
        snapshots.save({"a": facts()}, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "file"]


def test_unreadable_and_enormous(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(FileError, match="directory"):
        snapshots.load(tmp_path)
    (tmp_path / "folder.json").rmdir()
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(snapshots.SIZE_LIMIT + 1)
    with pytest.raises(FileError, match="larger than 64 MiB"):
        snapshots.load(tmp_path)


def test_a_file_is_json_that_a_person_can_read(tmp_path: Path) -> None:
    (file,) = snapshots.save({"a": facts()}, tmp_path)
    text = file.read_text()
    assert json.loads(text)["schema"] == SCHEMA
    assert '\n   "value": {\n    "hostname": "a"' in text and text.endswith("}\n")


@pytest.mark.parametrize("place", ["recorded", "composed"])
def test_the_snapshots_of_this_repository_are_whole(place: str) -> None:
    folder = Path(__file__).parent.parent / "snapshots" / place
    files = sorted(folder.rglob("*.json"))
    assert files
    for file in files:
        (host,) = snapshots.load(file).values()
        assert host.snapshot.origin.startswith((place, "recorded"))
        for name in HostFacts.sections():
            section = host.snapshot.sections.get(name)
            if section is not None and section.error is None:
                msgspec.to_builtins(getattr(host, name))
