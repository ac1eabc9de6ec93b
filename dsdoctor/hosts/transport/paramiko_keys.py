"""Logging in with paramiko: the agent's keys, key files, their certificates, and a password where there is one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import paramiko

from dsdoctor.hosts.shown import shown
from dsdoctor.hosts.transport.paramiko_route import LoginError
from dsdoctor.hosts.transport.ssh_settings import SshSettings


def authenticate(transport: paramiko.Transport, settings: SshSettings, password: str | None) -> None:
    """Log in with the first key that is taken, else with the password."""
    tried: list[str] = []
    further: list[str] = []
    for label, key in _keys(settings, tried):
        tried.append(label)
        try:
            further = transport.auth_publickey(settings.user, key)
        except paramiko.BadAuthenticationType as error:
            further = error.allowed_types
            break
        except paramiko.AuthenticationException as error:
            if not transport.is_active():
                raise LoginError("denied", f"{error}; {_tried(settings, tried)}") from None
            continue
        if not further:
            return
    if password is not None and transport.is_active():
        tried.append("password")
        with contextlib.suppress(paramiko.AuthenticationException):
            further = transport.auth_password(settings.user, password)
            if not further:
                return
    wants = f" (the host still wants {', '.join(further)})" if further else ""
    raise LoginError("denied", f"Permission denied{wants}; {_tried(settings, tried)}")


def _tried(settings: SshSettings, tried: list[str]) -> str:
    return f"user {settings.user}, tried: {', '.join(tried) or 'nothing, there is no key'}"


def _keys(settings: SshSettings, notes: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    """Keys to offer as ssh does: for each identity the agent's copy or the file; the agent's others before or after."""
    held = {bytes(key.asbytes()): key for key in paramiko.Agent().get_keys()} if settings.agent else {}
    from_files: list[tuple[str, paramiko.PKey]] = []
    for path in settings.identities:
        blob = _public_blob(path)
        if blob in held:
            from_files.append((f"agent key of {path}", held.pop(blob)))
        else:
            from_files += _from_file(path, settings.certificates, notes)
    others: list[tuple[str, paramiko.PKey]] = (
        []
        if settings.identities_only
        else [(f"agent key {key.comment or key.get_name()}", key) for key in held.values()]
    )
    yield from [*from_files, *others] if settings.named_identities else [*others, *from_files]


def _public_blob(path: Path) -> bytes:
    try:
        return bytes(paramiko.pkey.PublicBlob.from_file(f"{path}.pub").key_blob)
    except (OSError, ValueError):
        return b""


def _from_file(path: Path, certificates: tuple[Path, ...], notes: list[str]) -> list[tuple[str, paramiko.PKey]]:
    """A private key with each certificate that is for it, and alone; what cannot be used is noted with the reason."""
    if not path.exists():
        return []
    found = []
    try:
        plain = paramiko.PKey.from_path(path)
        plain.public_blob = None
        public = plain.asbytes()[4 + len(plain.get_name()) :]  # without the type: what a certificate repeats inside
        for certificate in dict.fromkeys([Path(f"{path}-cert.pub"), *certificates]):
            if certificate.exists() and public in paramiko.pkey.PublicBlob.from_file(str(certificate)).key_blob:
                certified = paramiko.PKey.from_path(path)
                certified.load_certificate(str(certificate))
                found.append((str(certificate), certified))
        found.append((str(path), plain))
    except Exception as error:  # the formats' errors have no type in common: cryptography's, paramiko's, Python's own
        reason = "it has a passphrase" if "encrypted" in str(error).lower() else str(error) or type(error).__name__
        notes.append(f"{path} cannot be used: {shown(reason)}")
    return found
