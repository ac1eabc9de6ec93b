"""How an argument list travels through ssh: the one place that builds a shell line.

sshd hands the line to the user's login shell, which may be sh, bash, zsh, csh, tcsh or fish. Their rules for quotes
agree as long as no backslash, `!` or line break is quoted; an argument with one of these is written in octal, in ASCII
that means the same to all of them, and read back by the host's own `sh`.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

# The command runs below a waiting sh, not in its place: ssh answers 255 for a process killed by a signal, a shell
# answers 128 + the signal's number. 255 is also what ssh answers when the connection is lost, so a command's own 255
# is told apart by this line on standard error.
OWN_255 = b"dsdoctor: the command itself ended with 255\n"
_REPORT = f's=$?; [ $s = 255 ] && echo "{OWN_255.decode().strip()}" >&2; exit $s'
_IN_PLACE = 'exec "$@"'
_DECODE = 'eval "set -- $(printf %b "$1")"; '
_UNLIKE = frozenset("\\!\n\r")


def remote_command(argv: Sequence[str], limit: float | None = None) -> str:
    """The line for the login shell of a host that runs `argv` with every argument as it is.

    `limit` is in seconds: where the host has coreutils' `timeout`, the command does not outlive it by more than 7 s,
    even when the connection is gone.

    Raises:
        ValueError: no command, or a zero byte in an argument (which no command line can carry).
    """
    if not argv or any("\0" in argument for argument in argv):
        raise ValueError(f"not a command line: {list(argv)!r}")
    preface, argv = _parted(argv)
    command = '(exec "$@"); '  # exec: a program of that name, never a word of the shell
    if limit is not None:
        seconds = max(1, int(limit) + 1)
        timed = f'timeout -k 5 {seconds} "$@"'
        # A program that is not there is the shell's to tell of, not timeout's.
        both = 'command -v timeout >/dev/null 2>&1 && command -v "$1" >/dev/null 2>&1'
        command = f"if {both}; then {timed}; else {command}fi; "
    command = preface + command
    line = shlex.join(argv)
    if _UNLIKE.isdisjoint(line):
        return f"exec sh -c {shlex.quote(command + _REPORT)} sh {line}"
    return f"exec sh -c {shlex.quote(_DECODE + command + _REPORT)} sh {shlex.quote(_octal(line))}"


def prefaced(preface: str, argv: Sequence[str]) -> list[str]:
    """The command behind words of sh that do not end it ("umask 022; "), as a command of its own."""
    return ["sh", "-c", preface + _IN_PLACE, "sh", *argv]


def _parted(argv: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The words of :func:`prefaced`, which the sh that waits says as well as another would, and the command."""
    if [*argv[:2], *argv[3:4]] == ["sh", "-c", "sh"] and argv[2].endswith("; " + _IN_PLACE) and len(argv) > 4:
        preface = argv[2][: -len(_IN_PLACE)]
        if _UNLIKE.isdisjoint(preface):
            return preface, argv[4:]
    return "", argv


def _octal(line: str) -> str:
    """The text for `printf %b`: bytes that a quoted word could lose or change are written as backslash, 0, octal."""
    plain = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 /.,:;=+-_@%")
    return "".join(chr(byte) if byte in plain else f"\\0{byte:03o}" for byte in line.encode("utf-8", "surrogateescape"))


def take_own_255(stderr: bytes) -> tuple[bool, bytes]:
    """Whether standard error carries the line that stands for a command's own 255, and the rest of it."""
    before, line, after = stderr.rpartition(OWN_255)
    return bool(line), before + after


def exit_code(status: int) -> int:
    """The code of a command as subprocess has it, from what a shell says: 128 + n is death by signal n."""
    return 128 - status if 128 < status <= 192 else status
