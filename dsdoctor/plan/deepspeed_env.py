"""`.deepspeed_env` as DeepSpeed's runner reads it, for hosts on which a shell would have worked its values out.

The runner splits each line at its first `=`, strips both sides, puts a value with odd characters between double quotes,
and has a shell on every host run `export NAME=VALUE;`. Source: launcher/runner.py and launcher/multinode_runner.py of
DeepSpeed 0.19.8. dsdoctor starts `deepspeed.launcher.launch` itself, so the runner never reads the file: its variables
are a layer of the plan instead.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_ODD = re.compile(r"[^\w@%+=:,./-]")  # add_export
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_MARK = "\ue000{}\ue001"  # stands for a variable's value while the quotes around it are read
# What a shell has and a job has no business with: HOME of the head is not the home on the hosts.
_OF_A_SHELL = re.compile(
    r"(?:HOME|PWD|OLDPWD|USER|LOGNAME|SHELL|HOSTNAME|TERM|SHLVL|MAIL|DISPLAY|XDG_\w+|SSH_\w+|DBUS_\w+|LS_COLORS|_)"
)


@dataclass(frozen=True)
class EnvFile:
    """A .deepspeed_env on the machine that launches: its lines of the form NAME=VALUE, and the numbers of the others.

    A name in `lines` may be no name (a comment that holds a `=`); a later line wins over an earlier one.
    """

    path: str
    lines: tuple[tuple[str, str], ...]
    bad_lines: tuple[int, ...] = ()


class NotTakenError(Exception):
    """A line that gives no variable; the message is the reason."""


def parse_env_file(text: str, path: str) -> EnvFile:
    """Read a file's text."""
    lines, bad = [], []
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.partition("=")
        if equals:
            lines.append((name.strip(), value.strip()))
        else:
            bad.append(number)
    return EnvFile(path, tuple(lines), tuple(bad))


def bad_lines_told(file: EnvFile) -> str | None:
    """What is to be said of lines that DeepSpeed's own launcher stops at; None when there are none."""
    if not file.bad_lines:
        return None
    numbers = ", ".join(map(str, file.bad_lines[:10])) + (" …" if len(file.bad_lines) > 10 else "")
    return f"{file.path}, line {numbers}: no = in it, at which DeepSpeed's own launcher stops; passed over here"


def settings_of(files: Iterable[EnvFile]) -> dict[str, tuple[str, str]]:
    """Name to value and path, the last file and the last line winning."""
    return {name: (value, file.path) for file in files for name, value in file.lines}


def as_on_host(name: str, value: str, session: Mapping[str, str]) -> str:
    """The value that ranks on a host would get, where a session has the variables `session`.

    Raises:
        NotTakenError: the line gives no variable, one that belongs to a shell, or a value that cannot be told here.
    """
    if not _NAME.fullmatch(name):
        raise NotTakenError(f"{name!r} is no name for a variable")
    if _OF_A_SHELL.fullmatch(name):
        raise NotTakenError("it belongs to the shell it was taken from, not to a job on other hosts")
    if not _ODD.search(value):
        return value
    if "`" in value or "$(" in value or "\ue000" in value:
        raise NotTakenError("a shell would run what stands in it")
    values: list[str] = []

    def mark(match: re.Match[str]) -> str:
        variable = match[1] or match[2]
        if variable not in session:
            raise NotTakenError(f"${variable} in it is not known on this host")
        values.append(session[variable])
        return _MARK.format(len(values) - 1)

    text = _VARIABLE.sub(mark, f'"{value}"')
    try:
        words = shlex.split(f"X={text}")
    except ValueError as error:
        raise NotTakenError(f"a shell cannot read it ({error})") from None
    if len(words) != 1:
        raise NotTakenError("a shell would take it for several words")
    word = words[0].removeprefix("X=")
    return re.sub(_MARK.format(r"(\d+)"), lambda match: values[int(match[1])], word)
