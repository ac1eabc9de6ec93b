"""Any text as a value, a host's name or a path: planned without a crash, and no shell ever reads anything into it."""

from __future__ import annotations

import shutil
import subprocess

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dsdoctor.checks.env_values import reads_as
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import Section
from dsdoctor.plan.build import Wishes, plan
from dsdoctor.plan.deepspeed_env import parse_env_file
from dsdoctor.plan.layers import NAME, Setting, is_secret
from dsdoctor.plan.model import Command, names_unset, values_sent
from dsdoctor.plan.shell import as_shell, command_line, quote
from tests.plan.clusters import gpus, host, network
from tests.plan.test_plan import JOB, PATHS, job, made

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")

# Everything that an argument of a command can hold: no NUL, and bytes that are no UTF-8 as Python keeps them.
SPECIAL = "'\"$`\\;&|<>(){}*?!#~=- \n\t\udc80\udcff"
LETTERS = st.characters(exclude_characters="\0", exclude_categories=("Cs",)) | st.sampled_from(SPECIAL)
TEXT = st.text(LETTERS, max_size=60)
NAMES = st.text(LETTERS, min_size=1, max_size=20)
MODERATE = settings(max_examples=60, deadline=None)
ODD = "$(touch /tmp/x) `id` '\"\\ \n;&|<>*?~#!=-\x1b[2J中文🙂"


def in_bash(line: str) -> bytes:
    argv = ["bash", "--norc", "--noprofile", "-c", line.encode("utf-8", "surrogateescape")]
    done = subprocess.run(argv, check=True, capture_output=True, env={"LC_ALL": "C.UTF-8"}, timeout=30)
    assert done.stderr == b"", "a command that is not there, or a line that bash cannot read"
    return done.stdout


def in_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@MODERATE
@given(st.lists(TEXT, min_size=1, max_size=6))
@example([ODD, "", "-n", "x" * 70_000])
@example(["\\x41", "a\\\x07b", "\x7f'", "\x01" + "2"])
def test_a_quoted_word_is_the_same_word_in_bash(words: list[str]) -> None:
    line = f"printf '%s\\0' {' '.join(map(quote, words))}"
    assert in_bash(line) == b"".join(in_bytes(word) + b"\0" for word in words)


def two(first: str, second: str) -> Cluster:
    """Two hosts of these names."""
    cards = gpus("NVIDIA A100", 1, (8, 0))
    a = network("eth0", "192.0.2.4", {second: ("eth0", "192.0.2.5")})
    b = network("eth0", "192.0.2.5", {first: ("eth0", "192.0.2.4")})
    hosts: list[Member] = [host(first, network=a, gpu=cards), host(second, network=b, gpu=cards)]
    return Cluster(tuple(hosts))


@MODERATE
@given(st.dictionaries(st.from_regex(NAME, fullmatch=True).filter(str.isascii), TEXT, max_size=5))
@example({"A": ODD, "B": "", "LONG": "y" * 100_000, "DASH": "-i"})
def test_any_value_reaches_the_command_as_it_is(values: dict[str, str]) -> None:
    told = {name: value for name, value in values.items() if not is_secret(name, value) and name not in ("_", "PATH")}
    planned = made(two("a", "b"), JOB, *(Setting(name, value, "command line", "--env") for name, value in told.items()))
    command = planned.stages[0].command("b")
    assert {name: values_sent(planned.host("b").env, command.env)[name] for name in told} == told
    line = command_line(planned, Command("b", ("/usr/bin/env", "-0"), "/", command.env))
    got = dict(pair.split(b"=", 1) for pair in in_bash(line).rstrip(b"\0").split(b"\0"))
    assert {name: got[name.encode()] for name in told} == {name: in_bytes(value) for name, value in told.items()}


JUDGED = st.sampled_from(
    [
        *("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "NCCL_IB_DISABLE", "NCCL_IB_HCA", "NCCL_P2P_DISABLE"),
        *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NCCL_ASYNC_ERROR_HANDLING", "TORCH_NCCL_DUMP_ON_TIMEOUT"),
        *("NCCL_ALGO", "TORCH_DISTRIBUTED_DEBUG", "RANK", "PATH", "no_proxy", "http_proxy", "HF_TOKEN"),
    ]
)
WORDS = TEXT | st.sampled_from(["eth0", "=eth0", "^eth0", "0", "1", "0,1", "9" * 40, "GPU-", "MIG-a", "DETAIL", "Ring"])
ENVIRONMENT = st.dictionaries(JUDGED, WORDS, max_size=6)


@MODERATE
@given(ENVIRONMENT, ENVIRONMENT, st.dictionaries(JUDGED | NAMES, WORDS, max_size=4), TEXT)
@example(
    {"PATH": "***"}, {"PATH": "\\xff"}, {"NCCL_DEBUG ": " INFO", "NCCL_X\0": "\0"}, "A=b\n=\n# NCCL_DEBUG=\n$(id)=`id`"
)
def test_whatever_people_have_set_a_plan_is_made(
    first: dict[str, str], second: dict[str, str], conf: dict[str, str], lines: str
) -> None:
    cluster = two("a", "b")
    files = [{"path": "/etc/nccl.conf", "variables": conf, "reader": "nccl"}]
    for member, session in zip(cluster, (first, second), strict=True):
        assert member.facts is not None
        known = {"variables": {"HOME": "/root", **session}, "files": files, "secrets": ["HF_TOKEN"]}
        member.facts.snapshot.sections["environment"] = Section(value=known)
    text = JOB.replace("name: demo", "name: demo\nengine: deepspeed")
    read = (parse_env_file(lines, "~/.deepspeed_env"),)
    planned = plan(job(text), cluster, "demo-1", PATHS, Wishes(deepspeed_env=read))
    for each in planned.hosts:
        assert not set(values_sent(each.env)) & set(names_unset(each.env))
        assert reads_as(each.env["NCCL_IB_DISABLE"].value) != 0, "there is no InfiniBand"
        kept = each.env["GLOO_SOCKET_IFNAME"].value.split(",")
        assert set(kept) <= {"eth0", ""}, "no other interface is there"
    in_bash(f"PATH=/nowhere; ssh() {{ :; }}; rsync() {{ :; }}\n{as_shell(planned)}")


@MODERATE
@given(NAMES, NAMES, TEXT)
@example("a;id", "-oProxyCommand=id", ODD)
@example("$(id)", "`id`\n", "\nid\n")
def test_nothing_in_a_pasted_plan_is_run_but_ssh_and_rsync(first: str, second: str, value: str) -> None:
    if first == second:
        second += "2"
    planned = made(two(first, second), JOB, Setting("ODD", value, "command line", "--env"))
    planned = msgspec.structs.replace(planned, sync=msgspec.structs.replace(planned.sync, source=f"/{value}"))
    ssh = 'ssh() { while [ "$1" != -- ]; do shift; done; printf \'ssh %s\\0\' "$2"; }'
    stand_ins = f"{ssh}; rsync() {{ printf 'rsync\\0'; }}"
    text = as_shell(planned).replace(" &\n", "\n")  # one after the other, so that their words do not mix
    ran = in_bash(f"PATH=/nowhere; set -e; {stand_ins}\n{text}")
    assert set(ran.rstrip(b"\0").split(b"\0")) == {b"rsync", b"ssh " + in_bytes(first), b"ssh " + in_bytes(second)}
