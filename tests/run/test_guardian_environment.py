"""What the guardian's command finds in its environment: the session's, less what is taken away, and the order's."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from dsdoctor.run.guard import BOOT
from dsdoctor.run.sent import sent_source

SOURCE = sent_source()
SHOW = "import sys; sys.stdout.write(open('/proc/self/environ', 'rb').read().hex())"


def environ_of(session: dict[str, str], order: dict[str, object]) -> dict[bytes, bytes]:
    """What a command is given where the guardian is started in that session."""
    whole = {"argv": [sys.executable, "-c", SHOW], "cwd": "/", "lifeline_seconds": 30, "grace_seconds": 1, **order}
    given = b"%d\n%s%s\n" % (len(SOURCE), SOURCE, json.dumps(whole).encode())
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", BOOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=session
    )
    assert process.stdin and process.stdout
    process.stdin.write(given)
    process.stdin.flush()
    frames = [json.loads(line) for line in process.stdout.read().splitlines() if line.startswith(b"{")]
    process.stdin.close()
    process.stdout.close()
    process.wait(timeout=20)
    text = "".join(frame["x"] for frame in frames if frame["e"] == "line" and frame["s"] == "o")
    pairs = bytes.fromhex(text).rstrip(b"\0").split(b"\0")
    return dict(pair.split(b"=", 1) for pair in pairs)


@pytest.mark.parametrize("coerced", ["0", "1"])
def test_values_are_utf_8_whatever_the_session_s_locale(coerced: str) -> None:
    plain = {"PATH": os.environ["PATH"], "LC_ALL": "C", "PYTHONUTF8": coerced, "PYTHONCOERCECLOCALE": coerced}
    got = environ_of(plain, {"env": {"ODD": "中文 é \udcff\n", "EMPTY": ""}, "unset": []})
    assert got == {
        **{k.encode(): v.encode() for k, v in plain.items()},
        b"ODD": "中文 é ".encode() + b"\xff\n",
        b"EMPTY": b"",
    }


def test_what_is_taken_away_is_gone_and_what_is_set_wins() -> None:
    session = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "GONE": "1", "BOTH": "old", "KEPT": "a b"}
    got = environ_of(session, {"env": {"BOTH": "new"}, "unset": ["GONE", "NEVER_THERE"]})
    assert {name: got.get(name) for name in (b"GONE", b"BOTH", b"KEPT")} == {
        b"GONE": None,
        b"BOTH": b"new",
        b"KEPT": b"a b",
    }
