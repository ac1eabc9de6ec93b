"""The environment of a job's commands, and their session."""

from __future__ import annotations

import msgspec


class ConfigFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file that sets NCCL variables: /etc/nccl.conf, ~/.nccl.conf, .deepspeed_env."""

    path: str
    variables: dict[str, str] = {}
    bad_lines: tuple[int, ...] = ()  # without "=": NCCL ignores them, DeepSpeed's launcher dies of them
    reader: str = ""  # nccl | deepspeed | shell; empty in older snapshots
    secrets: tuple[str, ...] = ()  # names only


class EnvironmentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The variables a job on this host would get that matter to training. Values of secrets never leave the host."""

    variables: dict[str, str] = {}
    secrets: tuple[str, ...] = ()  # names only
    files: tuple[ConfigFile, ...] = ()
    shell_files: tuple[ConfigFile, ...] = ()  # what ~/.bashrc and the like assign: a job may not get it


class SessionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The session that a command gets on the host: the login shell around it, and what systemd-logind does with it.

    `printed` is what the login shell wrote to standard output before the command began, at most 2,000 characters;
    `setup` are the job's setup lines, which have all been run without a failure before the probe.
    """

    shell: str = ""  # the user's login shell
    shell_seconds: float | None = None  # from its start to the command's; None where that cannot be told
    shell_cpu_seconds: float | None = None  # what it computed meanwhile, and what it called
    printed: str = ""
    setup: tuple[str, ...] = ()
    logind: bool = False  # systemd-logind keeps track of sessions here
    login_session: str | None = None  # what of logind's this session is in: "12", "user@1000"; None: nothing
    remove_ipc: bool | None = None  # RemoveIPC=: shared memory of a user without a session is removed
    kill_user_processes: bool | None = None  # KillUserProcesses=
    lingers: bool = False  # the user counts as logged in for good
