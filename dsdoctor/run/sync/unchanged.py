"""Whether a folder has already what a copy would bring: both sides list their files in one command, and nothing runs.

A host whose list equals this machine's has all that rsync's quick check compares: type, size, time and mode of every
file, the target of every link, every folder with its mode, and nothing beside them that is not excluded. No list, or
one that differs, says nothing: then rsync looks. A folder's time is not compared; Python's caches move it in every run.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Sequence

from dsdoctor.run.sync.host_side import MARKER

MOST = 50_000  # files, folders and links; of more, rsync's own way is the shorter one
LOCAL_SECONDS = 60.0
END = b"whole"  # the last record; those of find hold two slashes

# What two of them say of one file differs where rsync would copy it. A host's clock or disk may know only seconds:
# then the lists differ, and rsync, which compares seconds, finds nothing to do.
_RECORDS = (("f", "%P//f %m %s %T@"), ("l", "%P//l %l"), ("d", "%P//d %m"))
_OTHER = "%P//other"  # sockets, pipes, devices: rsync passes them over and says so
# Patterns that find and rsync understand alike; `*` and `?` of rsync end at a slash, those of `-path` do not.
_NAME = re.compile(r"[\w.+=@%,:?*-]+", re.ASCII)
_PATH = re.compile(r"/?[\w.+=@%,:-]+(/[\w.+=@%,:-]+)*", re.ASCII)

Listing = frozenset[bytes]


def list_command(folder: str, exclude: Sequence[str], marked: bool) -> str | None:
    """The line of sh that lists a folder, each record ended by a zero byte; None where find cannot be told all of it.

    `marked` lists it only where it carries dsdoctor's marker.
    """
    tests = [_test(pattern) for pattern in exclude]
    if "\n" in folder or None in tests:
        return None
    words = " -o ".join(test for test in tests if test)
    left_out = rf"\( {words} \) -prune -o " if words else ""
    shown = " -o ".join(rf"-type {kind} -printf '{record}\0'" for kind, record in _RECORDS)
    top = r"-path . -printf '%P//d %m\0' -o "  # first: a pattern such as .* matches its name
    find = rf"LC_ALL=C find . {top}{left_out}{shown} -o -printf '{_OTHER}\0'"
    claimed = f"[ -f {MARKER} ] && " if marked else ""
    said = rf"cd -- {shlex.quote(folder)} && {claimed}{find} && printf '{END.decode()}\0'"
    return f"({said}) </dev/null 2>/dev/null"  # a shell of its own: one that stayed there would count as a user


def _test(pattern: str) -> str | None:
    """What find says for a pattern of rsync's that leaves something out; None where the two differ."""
    plain = pattern.removesuffix("/")
    kind = "-type d " if plain != pattern else ""
    if "**" not in plain and _NAME.fullmatch(plain):
        return f"{kind}-name {shlex.quote(plain)}"
    if _PATH.fullmatch(plain) and not {".", ".."} & set(plain.split("/")):
        return f"{kind}-path {shlex.quote('.' + plain if plain.startswith('/') else '*/' + plain)}"
    return None


def listing(records: Sequence[bytes]) -> Listing | None:
    """The records of a list that is whole, and that a copy without a word about it would bring."""
    if not records or records[-1] != END or len(records) > MOST:
        return None
    return None if any(record.endswith(b"//other") for record in records) else frozenset(records)


def list_here(folder: str, exclude: Sequence[str]) -> Listing | None:
    """This machine's own list of a folder."""
    command = list_command(folder, exclude, marked=False)
    if command is None:
        return None
    null = subprocess.DEVNULL
    try:
        done = subprocess.run(
            ["sh", "-c", command], stdin=null, stdout=subprocess.PIPE, stderr=null, timeout=LOCAL_SECONDS, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return listing(done.stdout.split(b"\0")[:-1])
