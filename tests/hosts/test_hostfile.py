"""Hostfiles: read as DeepSpeed reads them, our words behind, and errors that name line and mend."""

import io
import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dsdoctor.cluster import HostEntry
from dsdoctor.hosts.filters import filter_hosts
from dsdoctor.hosts.hostfile import MAX_BYTES, load_hostfile, local_entry, parse_hostfile
from dsdoctor.yamlfile import FileError
from tests.hosts import deepspeed_runner

DEEPSPEED = deepspeed_runner.load()

NAMES = st.from_regex(r"\A[a-z0-9_][a-z0-9_.-]{0,8}\Z").filter(lambda name: name.strip("."))
TAILS = st.sampled_from(
    ["", " # c", "  max_slots=8", " port=22", "\tgpu=A100 ifname=eno1", "x", " words don't matter", "#c", " type=V100"]
)
GOOD_LINES = st.builds(
    lambda lead, name, gap, slots, tail: f"{lead}{name}{gap}slots={slots}{tail}",
    st.sampled_from(["", " ", "\t"]),
    NAMES,
    st.sampled_from([" ", "  ", "\t", " \x0b", "\u3000"]),
    st.integers(0, 64) | st.sampled_from(["٣", "007"]),
    TAILS,
)
BAD_LINES = st.sampled_from(
    [
        "w1",
        "w1 slots = 4",
        "w1 max_slots=4",
        "w1 #slots=2",
        "slots=2",
        "w1 port=22 slots=2",
        "w1:4",
        "w1 Slots=2",
        "\ufeff",
    ]
)
OTHER_LINES = st.sampled_from(["", "   ", "# note", "  #w1 slots=2", "\x0c"])
FILES = st.lists(st.tuples(GOOD_LINES | GOOD_LINES | GOOD_LINES | BAD_LINES | OTHER_LINES, st.sampled_from("\n\r")))
RAW = st.lists(
    st.text(alphabet="w1a@:[]-. \t#=\n\r\x0b\x85\u2028é'\"\\/", max_size=12)
    | st.sampled_from([" slots=", "slots=4", "\n", " port=1"])
).map("".join)


def in_deepspeed(text):
    """What DeepSpeed makes of a file's text: hosts and slots in order, or None where it refuses."""
    try:
        lines = io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8").readlines()
        return dict(DEEPSPEED._parse_hostfile(lines))
    except ValueError:
        return None


@given(FILES)
def test_files_of_hosts_read_as_deepspeed_reads_them(lines):
    text = "".join(line + end for line, end in lines)
    expected = in_deepspeed(text)
    try:
        ours = {entry.name: entry.slots for entry in parse_hostfile(text).entries}
    except FileError:
        ours = None
    assert ours == expected
    assert ours is None or list(ours) == list(expected)


@given(RAW)
def test_whatever_deepspeed_refuses_is_refused_and_the_rest_agrees(text):
    expected = in_deepspeed(text)
    try:
        entries = parse_hostfile(text).entries
    except FileError:
        return  # more is refused than by DeepSpeed: names that no host can have, wrong values of our own words
    assert expected is not None
    assert [entry.slots for entry in entries] == list(expected.values())
    for entry, written in zip(entries, expected, strict=True):
        assert entry.name in written and entry.name[0] != "-" and "/" not in entry.name


@given(st.text(max_size=60))
def test_any_text_gives_hosts_or_a_file_error(text):
    try:
        assert parse_hostfile(text).entries
    except FileError as error:
        assert str(error).isprintable()


SPECS = st.lists(
    st.sampled_from("abcx").flatmap(
        lambda name: (
            st.just(name)
            | st.lists(st.integers(-1, 4).map(str) | st.sampled_from(["", "x", " 1"]), max_size=3).map(
                lambda slots: f"{name}:{','.join(slots)}"
            )
            | st.just(f"{name}:0:1")
        )
    ),
    max_size=4,
).map("@".join)


@given(st.lists(st.integers(0, 4), min_size=3, max_size=3), SPECS, st.booleans())
def test_filters_leave_what_deepspeed_leaves(slots, text, include):
    pool = dict(zip("abc", slots, strict=True))
    entries = tuple(HostEntry(name, count) for name, count in pool.items())
    try:
        expected = DEEPSPEED.parse_inclusion_exclusion(pool, *((text, "") if include else ("", text)))
    except ValueError:
        expected = None
    try:
        left = filter_hosts(entries, *((text, None) if include else (None, text)))
        ours = {e.name: list(range(e.slots)) if e.devices is None else list(e.devices) for e in left}
    except FileError:
        ours = None
    assert ours == (expected or None)  # DeepSpeed goes on with no host and fails with IndexError
    assert ours is None or list(ours) == list(expected)


def test_our_words_behind_the_slots():
    text = "alice@w1 slots=2 port=2222 python='/opt/my env/bin/python' workdir=~/run ifname=eno1"
    text += " gpu='A100 40G' # x='\n"
    (entry,) = parse_hostfile(text).entries
    assert entry == HostEntry(
        name="w1",
        slots=2,
        user="alice",
        port=2222,
        python="/opt/my env/bin/python",
        workdir="~/run",
        ifname="eno1",
        gpu="A100 40G",
        line=1,
    )
    assert parse_hostfile(text).warnings == ()


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ("w1 slots=2 gup=V100", "gup=V100 is not read; did you mean gpu=V100?"),
        ("w1 slots=2 type=V100", "type=V100 is not read; did you mean gpu=V100?"),
        ("w1 slots=2 Port=22", "Port=22 is not read; did you mean port=22?"),
        (
            "w1 slots=2 rack=7",
            "rack=7 is not read; known words: port=, user=, python=, workdir=, ifname=, gpu=",
        ),
        ("w1 slots=4x", "slots=4x is read as 4; put a space after the number"),
        ("w1 slots=0", "w1 has slots=0: no process will run there; put # before the line to leave it out"),
        ("w1 slots=2 don't", "nothing from don't on is read: a quote is not closed"),
        (
            "w1:22 slots=2",
            "deepspeed takes w1:22 for a host's name and cannot reach it; write w1 slots=… port=22",
        ),
        (
            "[fe80::1%eno1] slots=2",
            "deepspeed's --include and pdsh break on the colons of fe80::1%eno1; give the host a name",
        ),
    ],
)
def test_what_deepspeed_accepts_and_nobody_means_is_a_warning(line, warning):
    assert parse_hostfile("# first\n" + line, "hosts").warnings == (f"hosts:2: {warning}",)


@pytest.mark.parametrize("word", ["max_slots=8", "max-slots=8", "# gup=3", "#gup=3"])
def test_words_of_other_launchers_and_comments_are_no_warning(word):
    assert parse_hostfile(f"w1 slots=2 {word}").warnings == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "w1 slots = 4",
            "w1 slots = 4 is no host line; slots= follows the name, with no space around '='; write: w1 slots=4",
        ),
        (
            "w1 port=3 slots=4 gpu=a",
            "w1 port=3 slots=4 gpu=a is no host line; slots= follows the name, with no space around '=';"
            " write: w1 slots=4 port=3 gpu=a",
        ),
        ("w1", "w1 is no host line; wanted: w1 slots=N with N the number of its GPUs"),
        ("slots=4", "slots=4 is no host line; the host's name is missing; wanted: NAME slots=N"),
        ("w1 slots=5000", "slots=5000 is more than any host has (at most 4096)"),
        ("w1 slots=" + "9" * 5000, "slots=99999999999999999999… is more than any host has (at most 4096)"),
        ("w1 slots=1 port=x", "port=x: port= wants a number from 1 to 65535"),
        ("w1 slots=1 port=0", "port=0: port= wants a number from 1 to 65535"),
        ("w1 slots=1 port=22 port=23", "port= is given twice for w1; keep one"),
        ("w1 slots=1 python='/a", "the quote in python='/a is not closed"),
        ("w1 slots=1 python=-c", "python=-c: python= wants the path or name of a Python on that host"),
        (
            "w1 slots=1 ifname=eno1,eno2",
            "ifname=eno1,eno2: ifname= wants the name of one network interface, at most 15 characters",
        ),
        ("w1:22 slots=1 port=23", "w1:22 says port 22, port=23 says another; keep one"),
        ("a@w1 slots=1 user=b", "a@w1 says user a, user=b says another; keep one"),
        ("w1:0 slots=1", "w1:0: a port is a number from 1 to 65535"),
        ("@w1 slots=1", " in @w1 is no user name; wanted: user@host"),
        ("w0 slots=1", "host w0 is named twice, first in line 1; keep one line with all its slots"),
        ("bob@w0 slots=1", "host w0 is named twice, first in line 1; keep one line with all its slots"),
    ],
)
def test_errors_name_the_line_and_the_mend(line, message):
    with pytest.raises(FileError) as caught:
        parse_hostfile(f"w0 slots=1\n{line}\n", "hosts")
    assert str(caught.value) == f"hosts:2: {message}"


@pytest.mark.parametrize(
    "name",
    [
        "-oProxyCommand=touch${IFS}x",
        "w1;reboot",
        "$(id)",
        "`id`",
        "a|b",
        "w&",
        "w\x1b[31m",
        "../w",
        "..",
        "w*",
        "w[1-4]",
        "w1:x",
    ],
)
def test_names_that_must_not_reach_ssh_or_a_path_are_refused(name):
    with pytest.raises(FileError, match="is no host name") as caught:
        parse_hostfile(f"{name} slots=1")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_a_file_without_hosts(text):
    with pytest.raises(FileError, match="names no host; wanted is one line a host, as in: worker-1 slots=8"):
        parse_hostfile(text)


def test_addresses_lose_their_brackets():
    entries = parse_hostfile("a@[fe80::1]:2222 slots=1\n::1 slots=1\n192.0.2.7 slots=1").entries
    assert [(entry.name, entry.user, entry.port) for entry in entries] == [
        ("fe80::1", "a", 2222),
        ("::1", None, None),
        ("192.0.2.7", None, None),
    ]
    assert [entry.name for entry in filter_hosts(entries, "::1")] == ["::1"]
    assert filter_hosts(entries, "192.0.2.7:0")[0].name == "192.0.2.7"


def test_the_line_ends_of_other_systems(tmp_path):
    path = tmp_path / "hosts"
    path.write_bytes(b"w1 slots=2\r\nw2 slots=4 gpu=V100\r\n")
    assert [(entry.name, entry.slots, entry.gpu) for entry in load_hostfile(path).entries] == [
        ("w1", 2, None),
        ("w2", 4, "V100"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("w1 slots=2".encode("utf-16"), r"not UTF-8 text \(byte 0 is 0xff\); save it as UTF-8 \(from Windows: iconv"),
        (b"\xef\xbb\xbfw1 slots=2", r":1: a byte order mark stands before the first host .*; sed -i '1s/"),
        (b"#" * (MAX_BYTES + 1), "larger than 4 MiB"),
    ],
)
def test_files_that_are_no_hostfiles(tmp_path, content, message):
    path = tmp_path / "hosts"
    path.write_bytes(content)
    with pytest.raises(FileError, match=message):
        load_hostfile(path)


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(FileError, match="no such file; deepspeed would go on without it, on this machine alone"):
        load_hostfile(tmp_path / "none")
    with pytest.raises(FileError, match="Is a directory"):
        load_hostfile(tmp_path)
    with pytest.raises(FileError, match="larger than 4 MiB"):
        load_hostfile("/dev/zero")


def test_a_hostfile_may_be_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("w1 slots=2\n",))
    writer.start()
    assert load_hostfile(path).entries[0].name == "w1"
    writer.join()


def test_ten_thousand_hosts_with_a_bad_word_each_are_read_at_once():
    text = "".join(f"w{number} slots=8 gup=A100\n" for number in range(10_000))
    hostfile = parse_hostfile(text, "hosts")
    assert len(hostfile.entries) == 10_000
    assert len(hostfile.warnings) == 21
    assert hostfile.warnings[-1] == "hosts: 9980 more warnings of this kind"


def test_a_line_of_a_million_words_ends():
    hostfile = parse_hostfile("w1 slots=1" + " x" * 1_000_000)
    assert re.search("nothing from x x x .* on is read: too many unknown words|more warnings", hostfile.warnings[-1])


@pytest.mark.parametrize(
    ("include", "exclude", "message"),
    [
        ("worker-1", "w2", "only one of the two can be given"),
        ("worker-01", None, "the hostfile has no host 'worker-01'; did you mean worker-1?"),
        ("zz", None, "--include zz: the hostfile has no host 'zz'; hosts: worker-1, w2"),
        ("worker-1:2", None, "--include worker-1:2: worker-1 has no slot 2; it has slots 0 to 1"),
        ("worker-1:a", None, "--include worker-1:a: slot 'a' of worker-1 is no number; wanted as in HOST:0,1"),
        (None, "worker-1@w2", "--exclude worker-1@w2: leaves no host of the hostfile"),
    ],
)
def test_filters_that_cannot_be_meant(include, exclude, message):
    entries = parse_hostfile("worker-1 slots=2\nw2 slots=2").entries
    with pytest.raises(FileError) as caught:
        filter_hosts(entries, include, exclude)
    assert message in str(caught.value)


def test_filters_set_the_devices():
    entries = parse_hostfile("w1 slots=4\nw2 slots=2").entries
    assert filter_hosts(entries) == entries
    left = filter_hosts(entries, include="w2@w1:3,1,1")
    assert [(entry.name, entry.devices, entry.processes) for entry in left] == [("w1", (1, 3), 2), ("w2", None, 2)]
    again = filter_hosts(left, exclude="w1:3")
    assert [(entry.name, entry.devices) for entry in again] == [("w1", (1,)), ("w2", None)]


@given(st.text(alphabet="ab:@,0 []'$", max_size=10))
def test_any_filter_gives_hosts_or_a_file_error(text):
    assume(text)
    entries = parse_hostfile("a slots=2\nb slots=2").entries
    try:
        assert filter_hosts(entries, include=text)
    except FileError as error:
        assert str(error).isprintable()


@pytest.mark.parametrize(
    ("line", "local"),
    [
        ("localhost slots=2", True),
        ("127.0.0.1 slots=2 python=/usr/bin/python3", True),
        ("[::1] slots=1", True),
        ("localhost slots=2 port=2222", False),
        ("alice@localhost slots=2", False),
        ("localhost.example.org slots=2", False),
    ],
)
def test_this_machine_in_a_hostfile_needs_no_ssh(line, local):
    assert parse_hostfile(line).entries[0].local is local


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "hostfiles").iterdir()), ids=lambda path: path.name
)
def test_the_sample_hostfiles(path):
    hostfile = load_hostfile(path)
    assert hostfile.warnings == ()
    assert {entry.name: entry.slots for entry in hostfile.entries} == in_deepspeed(path.read_text())


def test_this_machine_is_a_host_too():
    assert local_entry(2) == HostEntry(name="localhost", slots=2, local=True)


@pytest.mark.parametrize("scope", ["eth0\ufeff", "\x9dth0", "e\u202e0", "eth/0", "a=b", ""])
def test_an_interface_behind_an_address_is_printable(scope):
    with pytest.raises(FileError, match="is no host name"):
        parse_hostfile(f"[fe80::1%{scope}] slots=1")
    assert parse_hostfile("[fe80::1%br-lan.7] slots=1").entries[0].name == "fe80::1%br-lan.7"
