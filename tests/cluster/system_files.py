"""What a host's own /etc and home hold: name, names of the others, ssh keys, sshd's settings."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# No DNS, no LDAP: c10d looks peers' names up and complains loudly when that fails.
NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files\nservices: files\nprotocols: files\n"

# One key exchange that every client offers: the newer default costs 100 ms more of processor time a connection.
# 0.0.0.0 is the host's own network namespace; sshd takes at most 16 single addresses.
SSHD_CONFIG = """\
Port 22
ListenAddress 0.0.0.0
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile .ssh/authorized_keys
KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 200:30:400
MaxSessions 100
PidFile /run/sshd.pid
Subsystem sftp internal-sftp
"""


@dataclass(frozen=True)
class SshKey:
    """A key pair as ssh-keygen writes it."""

    private: str
    public: str


def host_files(name: str, own: SshKey, user: SshKey, known: str, names: str) -> dict[str, tuple[str, int]]:
    """The files of one host: path -> text and mode."""
    return {
        "/etc/hostname": (f"{name}\n", 0o644),
        "/etc/hosts": (names, 0o644),
        "/etc/resolv.conf": ("", 0o644),
        "/etc/nsswitch.conf": (NSSWITCH, 0o644),
        "/etc/passwd": (passwd(Path("/etc/passwd").read_text(encoding="utf-8", errors="replace")), 0o644),
        "/etc/shadow": ("root:*:19000:0:99999:7:::\n", 0o600),  # key only; "!" would lock the account
        "/etc/ssh/sshd_config": (SSHD_CONFIG + newer_sshd_settings(), 0o644),
        "/etc/ssh/ssh_host_ed25519_key": (own.private, 0o600),
        "/etc/ssh/ssh_host_ed25519_key.pub": (own.public, 0o644),
        "/root/.ssh/authorized_keys": (user.public, 0o600),
        "/root/.ssh/id_ed25519": (user.private, 0o600),
        "/root/.ssh/id_ed25519.pub": (user.public, 0o644),
        "/root/.ssh/known_hosts": (known, 0o600),
    }


def names_file(addresses: Mapping[str, str]) -> str:
    """/etc/hosts: every host by name, on its address on the NIC and never on 127.0.1.1."""
    return "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in addresses.items())


def known_hosts(addresses: Mapping[str, str], keys: Mapping[str, SshKey]) -> str:
    """Everybody's host key, by name and by address."""
    return "".join(
        f"{name},{address} {' '.join(keys[name].public.split()[:2])}\n" for name, address in addresses.items()
    )


def passwd(machine: str) -> str:
    """The machine's accounts with root's shell and home set: ssh sessions must be bash whatever root uses here."""
    return re.sub(r"^root:.*$", "root:x:0:0:root:/root:/bin/bash", machine, count=1, flags=re.MULTILINE)


@cache
def newer_sshd_settings() -> str:
    """Settings that older servers would refuse: from 9.8 on sshd shuts clients out for a while after failures."""
    banner = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    version = re.search(r"OpenSSH_(\d+)\.(\d+)", banner)
    if version is None or tuple(map(int, version.groups())) < (9, 8):
        return ""
    return "PerSourcePenalties no\n"
