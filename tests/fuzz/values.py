"""Names of hosts, variables and words of any text: a plan is made or refused, and what it prints acts on no screen."""

from collections.abc import Iterator

from dsdoctor.escape import escape
from dsdoctor.plan.layers import NAME, Setting
from dsdoctor.plan.model import Command, PlanError
from dsdoctor.plan.shell import as_shell, command_line
from dsdoctor.yamlfile import FileError
from tests.plan.test_any_text import ODD, two
from tests.plan.test_plan import JOB, made

LONGEST = 2000  # bytes of an input


def one(data: bytes) -> None:
    """A part each, ended by a zero byte: two hosts, a variable's name and value, and words of a command."""
    first, second, name, value, *words = [*data.decode("utf-8", "surrogateescape").split("\0"), "", "", "", ""]
    first, second = first or "a", second or "b"
    cluster = two(first, second if second != first else f"{second}2")
    named = NAME.fullmatch(name) is not None and name.isascii()
    settings = [Setting(name, value, "command line", "--env")] if named else []
    try:
        planned = made(cluster, JOB, *settings)
    except (PlanError, FileError) as refused:
        assert str(refused)
        return
    if named and name != "DSDOCTOR_RUN":
        assert planned.hosts[0].env[name].real_value == value
    for line in as_shell(planned).split("\n"):
        assert escape(line) == line, line
    for each in planned.hosts:
        line = command_line(planned, Command(each.name, ("true", *words), "/"))
        assert escape(line) == line, line


def seeds() -> Iterator[bytes]:
    """Names and values that were ever trouble."""
    yield f"node0\0node1\0ODD\0{ODD}\0-n\0--".encode()
    yield b"-oProxyCommand=id\0$(id)\0HF_TOKEN\0hf_abc\0`id`\n"
    yield b"a\0b\0PATH\0/usr/bin:$HOME\0\\x41\0!!\0\xff\xfe"
    yield "主机\0[fe80::1]\0NCCL_SOCKET_IFNAME\0=eth0\0中文\r\n".encode()


def words() -> Iterator[str]:
    """What shells act on, and names that the plan judges."""
    yield from ("$(", "`", "\\", "'", '"', ";", "&&", "|", ">", "<(", "!", "$'", "~", "*", "\x1b[2J", "\r", "é", "🙂")
    yield from ("NCCL_SOCKET_IFNAME", "CUDA_VISIBLE_DEVICES", "MASTER_ADDR", "PATH", "LD_PRELOAD", "HF_TOKEN", "user@")
