"""known_hosts as OpenSSH reads it: patterns, hashed names, revoked keys; paramiko's reader fails on many."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Known:
    """What known_hosts says about one name. Keys are type and blob as they travel on the wire."""

    keys: tuple[tuple[str, bytes], ...] = ()
    revoked: tuple[bytes, ...] = ()
    authorities: tuple[str, ...] = ()  # file:line of each @cert-authority that would vouch for the host
    places: tuple[str, ...] = ()  # file:line of each key

    @property
    def types(self) -> tuple[str, ...]:
        """The kinds of key that are known, in the files' order."""
        return tuple(dict.fromkeys(kind for kind, _ in self.keys))


def host_name_in_file(host: str, port: int) -> str:
    """The name under which ssh looks for a host: `host`, or `[host]:port` at another port than 22."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def lookup(name: str, files: Iterable[Path]) -> Known:
    """All that the files say about a name. A missing file is an empty one, a broken line is passed over, as in ssh."""
    keys: list[tuple[str, bytes]] = []
    revoked: list[bytes] = []
    authorities: list[str] = []
    places: list[str] = []
    for path in files:
        for number, marker, names, kind, blob in _lines(path):
            if not _matches(name, names):
                continue
            if marker == "@revoked":
                revoked.append(blob)
            elif marker == "@cert-authority":
                authorities.append(f"{path}:{number}")
            elif not marker:
                keys.append((kind, blob))
                places.append(f"{path}:{number}")
    return Known(tuple(keys), tuple(revoked), tuple(authorities), tuple(places))


def _lines(path: Path) -> Iterator[tuple[int, str, str, str, bytes]]:
    """Line number, marker, names, type and blob of every line that can be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#"):
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        yield number, marker, words[0], words[1], blob


def _matches(name: str, names: str) -> bool:
    """Whether the first word of a line means a name: a hash of it, or patterns of which none is negated."""
    if names.startswith("|1|"):
        return _hashed(name, names)
    found = False
    for pattern in names.lower().split(","):
        plain = pattern[1:] if pattern.startswith("!") else pattern
        # Only * and ? are wild in ssh: a bracket belongs to [host]:port.
        if fnmatch.fnmatchcase(name, plain.replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _hashed(name: str, word: str) -> bool:
    """`|1|salt|hash`: HMAC-SHA1 of the name with the salt, both in base64 (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in word[3:].split("|"))
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
