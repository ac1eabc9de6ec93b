"""A hostfile of any text: hosts with slots, or a refusal that names the file."""

from collections.abc import Iterator
from pathlib import Path

from dsdoctor.escape import escape
from dsdoctor.hosts.hostfile import parse_hostfile
from dsdoctor.yamlfile import FileError

LONGEST = 2000  # bytes of an input
HOSTFILES = Path(__file__).resolve().parent.parent.parent / "hostfiles"


def one(data: bytes) -> None:
    """Names are unique, slots and ports are possible, and what is said of them can be shown."""
    try:
        hostfile = parse_hostfile(data.decode("utf-8", "replace"), "hostfile")
    except FileError as refused:
        assert str(refused).startswith("hostfile")
        return
    names = [entry.name for entry in hostfile.entries]
    assert names and len(names) == len(set(names))
    for entry in hostfile.entries:
        assert entry.slots >= 0
        assert entry.name == escape(entry.name) and not entry.name.startswith("-")
        assert entry.port is None or 0 < entry.port < 65536


def seeds() -> Iterator[bytes]:
    """Those of the package, and the grammar."""
    for path in sorted(HOSTFILES.iterdir()):
        yield path.read_bytes()
    yield b"worker-1 slots=8 port=2222 user=alice python=/opt/venv/bin/python workdir=/data ifname==eno1 gpu=a100\n"
    yield b"# hosts\r\n[fe80::1%eth0] slots=1\n10.0.0.1\tslots=2 # two\n"


def words() -> Iterator[str]:
    """Its words."""
    yield from (
        " slots=",
        " port=",
        " user=",
        " python=",
        " workdir=",
        " ifname=",
        " gpu=",
        "#",
        "localhost",
        "[::1]",
        "@",
        "\ufeff",
    )
