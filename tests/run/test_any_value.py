"""Any value on its real way to a rank: the line that ssh hands to a login shell, the guardian, the rank's environment.

What arrives is compared with what was sent, byte for byte, in every login shell that is installed here.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dsdoctor.hosts.gather import with_setup
from dsdoctor.hosts.sent import BOOT, framed
from dsdoctor.hosts.transport.quoting import remote_command
from dsdoctor.plan.layers import NAME
from dsdoctor.plan.model import Command, EnvVar
from dsdoctor.run.guard import order_for
from dsdoctor.run.sent import sent_source
from tests.run.plans import plan_of

SHELLS = ("sh", "dash", "bash", "zsh", "tcsh", "fish")
# As a rank finds it: whatever Python, or a shell between, would make of it is left out.
RANK = "import shutil\nfor name in ('cmdline', 'environ'): shutil.copyfile('/proc/self/' + name, name)"
MARKS = "'\"$`\\;&|<>(){}*?!#~=-^%@ \n\r\t\x01\x1b\x7f\udc80\udcff"
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)) | st.sampled_from(MARKS), max_size=40)
VARIABLES = st.dictionaries(st.from_regex(NAME, fullmatch=True).filter(str.isascii), TEXT, max_size=4)
# Folder names: no slash, and not so long that no disk has room for them.
FOLDER = TEXT.map(lambda text: text.replace("/", "_")[:40]).filter(lambda text: text not in ("", ".", ".."))
HARM = "$(touch harmed) `touch harmed` ; touch harmed & touch harmed | touch harmed\n touch harmed\n!! \\"
OF_OTHERS = ("PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "PWD", "OLDPWD", "SHLVL", "_")


def in_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    if shutil.which(request.param) is None:
        pytest.skip(f"no {request.param} (Debian: apt-get install {request.param})")
    return str(request.param)


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, max_size=4), VARIABLES, FOLDER, TEXT)
@example(
    [HARM, "", "-n", "--", "x" * 5000], {"ODD": HARM, "EMPTY": "", "LONG": "é" * 3000}, HARM.replace("/", "_"), HARM
)
def test_what_a_rank_gets_is_what_was_sent(
    shell: str, tmp_path: Path, words: list[str], variables: dict[str, str], folder: str, setup: str
) -> None:
    place = Path(os.fsdecode(in_bytes(f"{tmp_path}/{folder}")))
    place.mkdir(exist_ok=True)
    told = {name: value for name, value in variables.items() if name not in OF_OTHERS}
    plan = plan_of({"one": {"a": "true"}}, tmp_path)
    argv = (sys.executable, "-c", RANK, *words)
    env = {name: EnvVar(name, value, "for the test") for name, value in told.items()}
    command = Command("a", argv, str(place), env)
    stage = msgspec.structs.replace(plan.stages[0], commands=(command,))
    order = {**order_for(plan, stage, "a", 60, 1), "spool": None}
    lines = [f"export NOTED={shlex.quote(setup)}"]  # what a person writes there is bash, to the letter
    line = remote_command(with_setup([sys.executable, "-u", "-c", BOOT], lines))
    sent = framed(sent_source()) + json.dumps(order).encode("ascii") + b"\n"
    running = subprocess.Popen(
        [shell, "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdin.write(sent)
    running.stdin.flush()
    output = running.stdout.read()  # to its end: the guardian reads our end as its lifeline
    running.stdin.close()
    assert running.wait(timeout=60) == 0, output
    assert (place / "cmdline").read_bytes() == b"".join(in_bytes(word) + b"\0" for word in argv)
    got = dict(pair.split(b"=", 1) for pair in (place / "environ").read_bytes().rstrip(b"\0").split(b"\0") if pair)
    assert {name: got[name.encode()] for name in told} == {name: in_bytes(value) for name, value in told.items()}
    assert told.get("NOTED") or got[b"NOTED"] == in_bytes(setup)
    assert not list(tmp_path.rglob("harmed"))
