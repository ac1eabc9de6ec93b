"""The session that the job's commands get."""

from __future__ import annotations

import os

from .accounts import user_name
from .files import at, entries, read_or
from .question import Ask, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@section
def fact_session(ask: Ask) -> dict[str, Any]:
    """Source: the password database, /proc of this process and those above it, systemd-logind's files."""
    import pwd

    try:
        shell = pwd.getpwuid(os.getuid()).pw_shell
    except KeyError:
        shell = ""
    took, computed = shell_seconds(os.environ.get("DSDOCTOR_SHELL_AT", ""))
    return {
        "shell": shell,
        "shell_seconds": took,
        "shell_cpu_seconds": computed,
        "printed": "",  # the probe cannot see these two; who started it fills them in
        "setup": [],
        "logind": os.path.isdir(at("/run/systemd/sessions")),
        "login_session": login_session(read_or(at("/proc/self/cgroup"))),
        "remove_ipc": logind_setting("RemoveIPC", True),
        "kill_user_processes": logind_setting("KillUserProcesses", None),
        "lingers": os.path.exists(at("/var/lib/systemd/linger/" + user_name(os.getuid()))),
    }


def login_session(groups: str) -> str | None:
    """The session "12" of /session-12.scope, or "user@1000" of /user@1000.service, that a process's cgroups name."""
    for part in groups.replace("\n", "/").split("/"):
        session, user = part[len("session-") : -len(".scope")], part[len("user@") : -len(".service")]
        if part.startswith("session-") and part.endswith(".scope") and session:
            return session
        if part.startswith("user@") and part.endswith(".service") and user.isdigit():
            return "user@" + user
    return None


def shell_seconds(ready: str) -> tuple[float | None, float | None]:
    """What the login shell took, by the clock and of the processor; None for what cannot be told.

    `ready` is the uptime when it had come to the command, as /proc/uptime has it. The login shell is the process right
    below sshd; commands replace it or run below it, and its start stays. What it and the children that it waited for
    have computed is its own alone as long as this probe has not replaced it: behind its start files it only waits.
    """
    try:
        until = float(ready)
    except ValueError:
        return None, None
    pid = os.getpid()
    for _ in range(64):
        words = read_or(at("/proc/%d/stat" % pid)).rpartition(")")[2].split()
        if len(words) < 20:
            break  # another user's processes may be hidden
        parent = int(words[1])
        if read_or(at("/proc/%d/comm" % parent)).startswith(("sshd", "dropbear")):
            tick = float(os.sysconf("SC_CLK_TCK"))
            took, computed = until - int(words[19]) / tick, sum(map(int, words[11:15])) / tick
            # A container's uptime may be one of its own.
            return round(took, 2) if 0 <= took < 600 else None, round(computed, 2) if pid != os.getpid() else None
        pid = parent
    return None, None


def logind_setting(name: str, default: bool | None) -> bool | None:
    """A yes-or-no setting of systemd-logind, without any the compiled-in one as the shipped file's comment names it.

    Source: logind.conf(5): one main file, the first of four folders that has it, then the drop-ins of all folders in
    the order of their names, where a file hides others of its name in later folders.
    """
    folders = [at(place) for place in ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")]
    folders.append(at("/lib/systemd"))
    main = next((text for text in (read_or(folder + "/logind.conf") for folder in folders) if text), "")
    drop_ins: dict[str, str] = {}
    for folder in folders:
        for each in entries(folder + "/logind.conf.d"):
            if each.endswith(".conf"):
                drop_ins.setdefault(each, folder + "/logind.conf.d/" + each)
    texts = [main] + [read_or(drop_ins[each]) for each in sorted(drop_ins)]
    words = settings(name, "\n".join(texts), "") or settings(name, main, "#")
    return words[-1].lower() in ("yes", "true", "on", "1", "y", "t") if words else default


def settings(name: str, text: str, mark: str) -> list[str]:
    """The values that a file of systemd's gives a setting, in lines that begin with a mark."""
    found = []
    for line in text.split("\n"):
        left, equals, value = line.strip(" \t").partition("=")
        if equals and left.startswith(mark) and left[len(mark) :].strip(" \t") == name:
            word = value.strip(" \t")
            end = next((place for place, c in enumerate(word) if not (c.isalnum() or c == "_")), len(word))
            found += [word[:end]] if end else []
    return found
