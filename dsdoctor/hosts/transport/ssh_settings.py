"""The user's ssh settings for one host, as far as paramiko can follow them; what it cannot is refused, never dropped.

The ssh client itself honours everything. This is for paramiko alone: each setting is one that is followed here, one
that has no bearing on a command without a terminal, or a reason to refuse the host.
"""

from __future__ import annotations

import getpass
import glob
import os
import pwd
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLLOWED = """
hostname user port identityfile identitiesonly identityagent certificatefile proxyjump proxycommand hostkeyalias
userknownhostsfile globalknownhostsfile
"""
# Nothing here makes a connection that ssh would refuse, or leads to another machine than ssh would.
_NO_BEARING = """
addkeystoagent batchmode challengeresponseauthentication checkhostip clearallforwardings compression compressionlevel
connectionattempts connecttimeout controlmaster controlpath controlpersist dynamicforward enableescapecommandline
escapechar exitonforwardfailure fingerprinthash forkafterauthentication forwardagent forwardx11 forwardx11timeout
forwardx11trusted gatewayports gssapiauthentication gssapidelegatecredentials hashknownhosts ignoreunknown ipqos
kbdinteractiveauthentication localcommand localforward loglevel logverbose nohostauthenticationforlocalhost
numberofpasswordprompts obscurekeystroketiming passwordauthentication permitlocalcommand preferredauthentications
pubkeyauthentication rekeylimit remoteforward requesttty sendenv serveralivecountmax serveraliveinterval stdinnull
streamlocalbindmask streamlocalbindunlink stricthostkeychecking syslogfacility tcpkeepalive tunnel tunneldevice
updatehostkeys usekeychain verifyhostkeydns visualhostkey warnweakcrypto xauthlocation
"""
FOLLOWED = frozenset(_FOLLOWED.split())
NO_BEARING = frozenset(_NO_BEARING.split())
_MATCH_WORDS = frozenset({"all", "host", "originalhost", "user", "localuser"})
_DEFAULT_KEYS = ("id_rsa", "id_ecdsa", "id_ed25519")
_LINE = re.compile(r"\s*(\w+)(?:\s*=\s*|\s+)(.*?)\s*$")
_SYSTEM = Path("/etc/ssh")


class UnsupportedSettingError(Exception):
    """The settings ask for something that only ssh itself can do; the message says what, where, and the way out."""


@dataclass(frozen=True)
class SshSettings:
    """How a host is reached: every value final, `~` and tokens replaced."""

    alias: str  # as the hostfile or a ProxyJump has it
    hostname: str
    port: int
    user: str
    host_key_name: str  # under which known_hosts is searched, without the port
    identities: tuple[Path, ...]
    certificates: tuple[Path, ...]
    identities_only: bool  # no key of the agent but those whose .pub is named
    named_identities: bool  # IdentityFile was set: its keys go first
    agent: bool
    proxy_jump: tuple[str, ...]
    proxy_command: str | None
    known_hosts: tuple[Path, ...]
    key_alias: bool  # HostKeyAlias: known_hosts is searched for it as it is


def read_settings(host: str, user: str | None, port: int | None, config_file: str | Path | None = None) -> SshSettings:
    """The settings of ~/.ssh/config and /etc/ssh/ssh_config (or of `config_file` alone) for a host.

    `user` and `port` are the hostfile's and outrank them.

    Raises:
        UnsupportedSettingError: something in them that paramiko cannot do.
    """
    from paramiko import SSHConfig
    from paramiko.ssh_exception import ConfigParseError

    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # as ssh does: not $HOME
    if config_file is not None:
        text = _read(Path(config_file), home / ".ssh", required=True)
    else:
        # Both as one text: of each setting the first value counts. `Host *` ends the last block of the user's.
        text = f"{_read(home / '.ssh/config', home / '.ssh')}\nHost *\n{_read(_SYSTEM / 'ssh_config', _SYSTEM)}"
    given = f"{f'User {user}' if user else ''}\n{f'Port {port}' if port else ''}"  # they fill %r and %p, too
    try:
        found = SSHConfig.from_text(f"{given}\nHost *\n{text}").lookup(host)
    except (ConfigParseError, ValueError, KeyError) as error:
        raise UnsupportedSettingError(f"the ssh settings cannot be read: {error}") from None
    first = next((key for key in found if key in ("proxyjump", "proxycommand")), None)  # ssh takes the first of the two
    settings: dict[str, Any] = {
        key: value
        for key, value in found.items()
        if value is not None and (key == first or key not in ("proxyjump", "proxycommand"))
    }
    _refuse_unknown(settings, host)
    alias = settings.get("hostkeyalias")
    named: list[str] | None = settings.get("identityfile")
    hostname = settings.get("hostname", host)
    return SshSettings(
        alias=host,
        hostname=hostname,
        port=_number(settings.get("port", "22")),
        user=settings.get("user") or getpass.getuser(),
        host_key_name=alias or hostname,
        identities=_paths(named if named is not None else [f"{home}/.ssh/{name}" for name in _DEFAULT_KEYS], home),
        certificates=_paths([settings.get("certificatefile", "none")], home),
        identities_only=settings.get("identitiesonly", "no").lower() == "yes",
        named_identities=named is not None,
        agent=settings.get("identityagent", "SSH_AUTH_SOCK") != "none",
        proxy_jump=_jumps(settings.get("proxyjump", "none")),
        proxy_command=settings.get("proxycommand"),
        known_hosts=(
            *_paths(_split(settings.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")), home),
            *_paths(
                _split(settings.get("globalknownhostsfile", f"{_SYSTEM}/ssh_known_hosts {_SYSTEM}/ssh_known_hosts2")),
                home,
            ),
        ),
        key_alias=alias is not None,
    )


def _read(path: Path, folder: Path, required: bool = False) -> str:
    """A file's text, made fit for paramiko's parser; refuses Include and the kinds of Match that it would get wrong."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        if required:
            raise UnsupportedSettingError(f"{path}: {error.strerror}") from None
        return ""
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.match(line)
        key, value = (match[1].lower(), match[2]) if match else ("", "")
        if key == "include" and _included(value, folder):
            raise UnsupportedSettingError(f"{path}:{number}: Include is not followed by paramiko. {_WAY_OUT}")
        if key == "match":
            odd = [word for word in _match_words(value) if word not in _MATCH_WORDS]
            if odd:
                raise UnsupportedSettingError(
                    f"{path}:{number}: Match {odd[0]} cannot be decided by paramiko. {_WAY_OUT}"
                )
        if key == "include" or not line.strip():
            continue
        commented = '"' not in line and key not in ("proxycommand", "localcommand", "remotecommand")
        lines.append(re.sub(r"\s#.*$", "", line) if commented else line)
    return "\n".join(lines)


_WAY_OUT = "Use the ssh client for this host (install openssh-client)."


def _included(value: str, folder: Path) -> bool:
    """Whether an Include line names a file that exists, or one whose name has to be worked out."""
    for pattern in _split(value):
        if "%" in pattern or "$" in pattern:
            return True
        if glob.glob(str(folder / Path(pattern).expanduser())):  # noqa: PTH207 - absolute patterns, too
            return True
    return False


def _match_words(value: str) -> list[str]:
    """The criteria of a Match line, without their arguments and negations."""
    words, criteria = _split(value), []
    while words:
        word = words.pop(0).lower().lstrip("!")
        name, equals, _ = word.partition("=")
        criteria.append(name)
        if name not in ("all", "canonical", "final") and not equals and words:
            words.pop(0)
    return criteria


def _refuse_unknown(settings: dict[str, Any], host: str) -> None:
    for key, value in settings.items():
        shown = f"{key} {value}"
        if key == "canonicalizehostname" and value == "no":
            continue
        if key == "identityagent" and value not in ("none", "SSH_AUTH_SOCK"):
            raise UnsupportedSettingError(
                f"{host}: {shown}: paramiko knows the agent of SSH_AUTH_SOCK only. {_WAY_OUT}"
            )
        if key not in FOLLOWED and key not in NO_BEARING:
            raise UnsupportedSettingError(f"{host}: the ssh setting {shown} is not followed by paramiko. {_WAY_OUT}")
        left = value if isinstance(value, str) else " ".join(value)
        if key in FOLLOWED and re.search(r"%[^%]|\$\{", left):
            raise UnsupportedSettingError(f"{host}: {shown}: paramiko cannot fill this in. {_WAY_OUT}")


def _jumps(value: str) -> tuple[str, ...]:
    if value.lower() == "none":
        return ()
    if "://" in value:
        raise UnsupportedSettingError(f"proxyjump {value}: only [user@]host[:port] is followed by paramiko. {_WAY_OUT}")
    return tuple(value.replace(" ", "").split(","))


def _number(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", value):
        raise UnsupportedSettingError(f"port {value} in the ssh settings is no number")
    return int(value)


def _split(value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError:
        return value.split()


def _paths(words: list[str], home: Path) -> tuple[Path, ...]:
    """Files named in the settings; `none` names none."""
    return tuple(
        home / word[2:] if word.startswith("~/") else Path(word) for word in words if word and word.lower() != "none"
    )
