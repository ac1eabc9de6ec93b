"""The commands of the fixes: how a line is run on a host, as root, or with the job's own interpreter.

Host names, paths and versions come from files and from hosts, so every word is quoted here.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts


def on_host(entry: HostEntry, command: str, *, terminal: bool = False) -> str:
    """A shell line that runs `command` on the host; `terminal` where it may ask for a password."""
    if entry.local:
        return command
    return " ".join(["ssh", *(["-t"] if terminal else []), *ssh_words(entry), quote(command)])


def quote(command: str) -> str:
    """A command as one word of the shell, in double quotes where that is safe and reads better."""
    if "'" in command and not any(sign in command for sign in '"$`\\!'):
        return f'"{command}"'
    return shlex.quote(command)


def ssh_words(entry: HostEntry) -> list[str]:
    """The port option and the destination, as ssh takes them."""
    options = ["-p", str(entry.port)] if entry.port else []
    destination = f"{entry.user}@{entry.name}" if entry.user else entry.name
    if destination.startswith("-"):  # ssh would take it for an option
        options.append("--")
    return [*options, shlex.quote(destination)]


def as_root(host: HostFacts, entry: HostEntry, command: str, *, fed_by: str = "") -> str:
    """A shell line that runs `command` on the host as root, with the output of `fed_by` as its input."""
    pipe = f"{fed_by} | " if fed_by else ""
    try:
        root = host.os.uid == 0 and not (entry.user and entry.user != host.os.user)
    except FactUnavailable:
        root = False
    if root:
        return on_host(entry, pipe + command)
    return on_host(entry, f"{pipe}sudo {command}", terminal=True)


def run_python(host: HostFacts, code: str) -> str:
    """The command that runs a line of Python with the job's interpreter, on the host itself."""
    return f"{_interpreter(host)[0]} -c {quote(code)}"


def uninstall(host: HostFacts, names: Iterable[str]) -> str:
    """The command that uninstalls packages from the job's environment, on the host itself."""
    words = " ".join(shlex.quote(name) for name in names)
    interpreter, has_pip = _interpreter(host)
    if has_pip:
        return f"{interpreter} -m pip uninstall -y {words}"
    return f"uv pip uninstall --python {interpreter} {words}"


def install(host: HostFacts, *requirements: str, force: bool = False) -> str:
    """The command that installs into the job's environment, on the host itself.

    `force` replaces what is there and touches no dependency: for a package whose files were overwritten by another.
    """
    words = " ".join(shlex.quote(requirement) for requirement in requirements)
    interpreter, has_pip = _interpreter(host)
    if has_pip:
        return f"{interpreter} -m pip install {'--force-reinstall --no-deps ' if force else ''}{words}"
    return f"uv pip install --python {interpreter} {'--reinstall --no-deps ' if force else ''}{words}"


def where_set(entry: HostEntry, variable: str) -> str:
    """A shell line that looks for a variable in the files that shells read at their start on the host."""
    files = "~/.bashrc ~/.bash_profile ~/.profile ~/.zshenv /etc/environment /etc/profile.d/*"
    return on_host(entry, f"grep -ns {shlex.quote(variable)} {files}")


def _interpreter(host: HostFacts) -> tuple[str, bool]:
    """The job's interpreter, and whether pip is in its environment (uv makes environments without)."""
    try:
        executable = shlex.quote(host.python.executable)
    except FactUnavailable:
        return "python", True
    try:
        return executable, host.packages.version("pip") is not None or not host.packages.distributions
    except FactUnavailable:
        return executable, True
