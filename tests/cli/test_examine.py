"""From host options to a cluster: which file is taken, what is this machine, what the probe is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdoctor.cluster import HostEntry, Member, Reach
from dsdoctor.facts import HostFacts, Section, Snapshot
from dsdoctor.hosts import examine as room
from dsdoctor.hosts.examine import HostChoice, choose, examine, from_snapshots
from dsdoctor.jobs.job import Job, ResolvedJob, Stage
from dsdoctor.yamlfile import FileError


def host(name: str, gpus: int | None = None) -> HostFacts:
    value = {"status": "ok", "gpus": [{"index": n, "name": "A100"} for n in range(gpus)]} if gpus is not None else None
    sections = {"gpu": Section(value=value) if value else Section(error="no answer")}
    return HostFacts(Snapshot(host=name, sections=sections))


def test_no_hostfile_is_this_machine() -> None:
    (entry,) = choose(HostChoice()).entries
    assert (entry.name, entry.local, entry.slots) == ("localhost", True, 1)


def test_the_default_hostfile_is_taken_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("a slots=2\n")
    monkeypatch.setattr(room, "DEFAULT_HOSTFILE", str(hostfile))
    chosen = choose(HostChoice())
    assert [entry.name for entry in chosen.entries] == ["a"]
    assert chosen.source == str(hostfile)


def test_options_over_the_hostfile(tmp_path: Path) -> None:
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("a slots=4 python=/opt/a\nb slots=4\nc slots=4 nonsense=1\n")
    chosen = choose(HostChoice(str(hostfile), include="a:0,2@b", python="/opt/p"))
    assert [(entry.name, entry.devices, entry.python) for entry in chosen.entries] == [
        ("a", (0, 2), "/opt/p"),
        ("b", None, "/opt/p"),
    ]
    assert "nonsense" in chosen.warnings[0]


@pytest.mark.parametrize(
    ("line", "local"),
    [
        ("localhost slots=2", True),
        ("127.0.0.1 slots=2", True),
        ("localhost slots=2 port=2222", False),
        ("someone@localhost slots=2", False),
        ("localhost.example.org slots=2", False),
    ],
)
def test_which_lines_mean_this_machine(tmp_path: Path, line: str, local: bool) -> None:
    (tmp_path / "hostfile").write_text(line + "\n")
    (entry,) = choose(HostChoice(str(tmp_path / "hostfile"))).entries
    assert entry.local is local


def test_both_filters_are_refused() -> None:
    with pytest.raises(FileError):
        choose(HostChoice(include="localhost", exclude="localhost"))


@pytest.mark.parametrize(("gpus", "slots"), [(None, 1), (0, 1), (3, 3)])
def test_this_machine_has_as_many_slots_as_gpus(gpus: int | None, slots: int, monkeypatch) -> None:
    def gather(entries, **_):
        return tuple(Member(entry, Reach(True), host(entry.name, gpus)) for entry in entries)

    monkeypatch.setattr("dsdoctor.hosts.gather.gather", gather)
    assert examine(HostChoice()).members[0].entry.slots == slots


def test_what_the_probe_is_asked_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    (tmp_path / "hostfile").write_text("a slots=1 workdir=/scratch/a\nb slots=1 nonsense=1\n")
    asked = {}

    def gather(entries, **settings):
        asked.update(settings, names=[entry.name for entry in entries])
        members = tuple(Member(entry, Reach(True), host(entry.name, 8)) for entry in entries)
        for member in members:
            settings["on_progress"](member)
        return members

    monkeypatch.setattr("dsdoctor.hosts.gather.gather", gather)
    job = Job(name="j", stages=(Stage("s"),), python="/opt/job", setup=("module load x",), workdir="/work/j")
    resolved = ResolvedJob(job, "j.yaml", ".", None, (), {})
    transports: dict = {}
    choice = HostChoice(str(tmp_path / "hostfile"), transport="openssh", timeout=4.0)
    cluster = examine(choice, job=resolved, master_addr="192.0.2.1", transports=transports)
    assert asked["names"] == ["a", "b"]
    assert asked["config"] == {"targets": ["192.0.2.1", "a", "b"], "paths": ["/scratch/a", "/work/j"]}
    assert (asked["python"], asked["setup"]) == ("/opt/job", ("module load x",))
    assert (asked["timeout"], asked["connect_timeout"], asked["kind"]) == (4.0, 4.0, "openssh")
    assert asked["transports"] is transports
    assert [member.entry.slots for member in cluster] == [1, 1]  # a hostfile's slots are the user's word
    assert cluster.master_addr == "192.0.2.1"
    assert "nonsense" in capsys.readouterr().err


def test_progress_is_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Line:
        def show(self, text: str) -> None:
            shown.append(text)

    progress = room._Progress(["gpu01", "gpu02", "he\x1bad"], Line())
    progress(Member(HostEntry("gpu02", 1), Reach(True)))
    progress(Member(HostEntry("gpu01", 1), Reach(False)))
    assert shown == [
        "0 of 3 hosts examined, waiting for gpu[01-02], he\\x1bad",
        "1 of 3 hosts examined, waiting for gpu01, he\\x1bad",
        "2 of 3 hosts examined, waiting for he\\x1bad",
    ]


def test_snapshots_alone_make_a_cluster() -> None:
    cluster = from_snapshots(HostChoice(), {"a": host("a", 2), "b": host("b")}, "dir")
    assert [(member.name, member.entry.slots, member.reach.ok) for member in cluster] == [
        ("a", 2, True),
        ("b", 1, True),
    ]
    assert [
        member.name for member in from_snapshots(HostChoice(exclude="a"), {"a": host("a"), "b": host("b")}, "d")
    ] == ["b"]


def test_snapshots_under_a_hostfile(tmp_path: Path) -> None:
    (tmp_path / "hostfile").write_text("b slots=4\nc slots=4\n")
    choice = HostChoice(str(tmp_path / "hostfile"))
    first, second = from_snapshots(choice, {"a": host("a", 2), "b": host("b", 2)}, "dir")
    assert (first.name, first.entry.slots, first.facts.name) == ("b", 4, "b")
    assert (second.name, second.facts, second.reach.ok) == ("c", None, False)
    assert "dir holds no snapshot of c" in second.reach.detail
