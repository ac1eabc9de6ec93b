"""Opening a paramiko connection: the way to the port, jump hosts, the host's key, the login.

The host's key must stand in known_hosts; there is no other policy. Algorithms that OpenSSH's client no longer offers
are switched off.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import paramiko

from dsdoctor.cluster import ReachProblem
from dsdoctor.hosts.transport import known_hosts
from dsdoctor.hosts.transport.paramiko_keys import authenticate
from dsdoctor.hosts.transport.paramiko_route import Limit, LoginError, Way, proxy, tcp
from dsdoctor.hosts.transport.ssh_messages import classify, condense
from dsdoctor.hosts.transport.ssh_settings import SshSettings, UnsupportedSettingError, read_settings

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else it prints its own tracebacks

MAX_JUMPS = 8
TURN_SECONDS = 2.0  # after which an idle connection looks whether it is to send a sign of life
_OLD = {
    "keys": ["ssh-rsa", "ssh-dss"],
    "pubkeys": ["ssh-rsa", "ssh-dss"],
    "kex": ["diffie-hellman-group1-sha1", "diffie-hellman-group14-sha1", "diffie-hellman-group-exchange-sha1"],
    "ciphers": ["aes128-cbc", "aes192-cbc", "aes256-cbc", "blowfish-cbc", "3des-cbc"],
    "macs": ["hmac-md5", "hmac-md5-96", "hmac-sha1-96"],
}
_SIGNATURES = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}  # the names under which a kind of host key is offered


def log_in(
    settings: SshSettings, way: Way, limit: Limit, password: str | None, config_file: str | Path | None, depth: int = 0
) -> paramiko.Transport:
    """A transport on which commands can be run.

    Raises:
        LoginError: with the problem; what was opened is held by `way`.
    """
    sock = _socket(settings, way, limit, config_file, depth)
    with _explained(settings, way, limit):
        transport = paramiko.Transport(sock, disabled_algorithms=_OLD)
        way.hold(sock.close)
        way.hold(transport.close)
        name, known = _known(settings)
        transport.banner_timeout = transport.handshake_timeout = limit.left()
        options = transport.get_security_options()
        options.ciphers = sorted(options.ciphers, key=lambda cipher: "gcm" not in cipher)  # one pass, not two, a packet
        if known.types:  # or the host shows a key of a kind that is not in known_hosts
            ours = [name for kind in known.types for name in _SIGNATURES.get(kind, (kind,))]
            ours = [name for name in ours if name in options.key_types]
            options.key_types = (*ours, *(name for name in options.key_types if name not in ours))
        transport.start_client(timeout=limit.left())
        if not transport.initial_kex_done:
            raise LoginError("timeout", f"{settings.alias}: no answer to the key exchange within {limit.seconds:g} s")
        _check_key(settings, name, known, transport.get_remote_server_key())
        transport.auth_timeout = limit.left()
        authenticate(transport, settings, password)
    return transport


def rest(transport: paramiko.Transport, way: Way) -> None:
    """Let a connection that is through wait for its host in long turns: a tenth of a second each adds up over hosts."""
    sock = transport.sock
    if isinstance(sock, socket.socket):  # what ends it must wake it, then; a jump host's channel cannot be woken
        way.hold(partial(sock.shutdown, socket.SHUT_RDWR))
        sock.settimeout(TURN_SECONDS)


def _socket(settings: SshSettings, way: Way, limit: Limit, config_file: str | Path | None, depth: int) -> Any:
    """What leads to the host's port: a socket, a pair with a ProxyCommand, or a channel of a jump host."""
    if settings.proxy_command is not None:
        return proxy(settings.proxy_command, way)
    if not settings.proxy_jump:
        return tcp(settings, way, limit)
    if depth >= MAX_JUMPS:
        raise LoginError("unsupported", f"{settings.alias}: ProxyJump leads in a circle")
    *before, last = settings.proxy_jump
    user, _, address = last.rpartition("@")
    name, colon, port = address.rpartition(":")
    try:
        hop = read_settings(name if colon else address, user or None, int(port) if colon else None, config_file)
    except ValueError:
        raise LoginError("unsupported", f"ProxyJump {last}: wanted is [user@]host[:port]") from None
    except UnsupportedSettingError as error:
        raise LoginError("unsupported", str(error)) from None
    hop = replace(hop, proxy_jump=tuple(before)) if before else hop
    try:
        jump = log_in(hop, way, limit, None, config_file, depth + 1)
    except LoginError as error:
        place = "" if error.detail.startswith("jump host ") else f"jump host {hop.alias}: "
        raise LoginError(error.problem, place + error.detail) from None
    with _explained(settings, way, limit):
        target = (settings.hostname, settings.port)
        try:
            return jump.open_channel("direct-tcpip", target, ("127.0.0.1", 0), timeout=limit.left())
        except paramiko.ChannelException as error:
            # 1: forbidden by its sshd; else the jump host's own words, which alone tell why, do not come through.
            problem: ReachProblem = "no-route" if error.code == 1 else "other"
            words = f"no connection to {settings.hostname} port {settings.port} from there: {error.text or error}"
            raise LoginError(problem, f"jump host {hop.alias}: {words}") from None


def _known(settings: SshSettings) -> tuple[str, known_hosts.Known]:
    """The name under which known_hosts has the host, and what stands there."""
    name = known_hosts.host_name_in_file(settings.host_key_name, 22 if settings.key_alias else settings.port)
    return name, known_hosts.lookup(name, settings.known_hosts)


def _check_key(settings: SshSettings, name: str, known: known_hosts.Known, key: paramiko.PKey) -> None:
    """Pass a key that known_hosts has for the host, and no other."""
    shown_key = f"{key.get_name()} {key.fingerprint}"
    bare = known_hosts.lookup(settings.host_key_name.lower(), settings.known_hosts)  # without the port, as ssh does
    if key.asbytes() in (*known.revoked, *bare.revoked):
        raise LoginError("changed-key", f"{name} shows {shown_key}, which known_hosts marks as revoked")
    if any(blob == key.asbytes() for _, blob in (*known.keys, *bare.keys)):
        return
    if key.get_name() in known.types:
        raise LoginError(
            "changed-key", f"{name} shows {shown_key}, not the key in {', '.join(known.places)}; Offending key there"
        )
    if known.authorities:
        raise LoginError(
            "unsupported",
            f"{name} is known by @cert-authority ({', '.join(known.authorities)}) alone, which paramiko cannot check."
            " Use the ssh client for this host (install openssh-client).",
        )
    files = ", ".join(str(path) for path in settings.known_hosts) or "none"
    raise LoginError("unknown-key", f"{name} shows {shown_key}, which is not in known_hosts ({files})")


@contextlib.contextmanager
def _explained(settings: SshSettings, way: Way, limit: Limit) -> Iterator[None]:
    """Paramiko's and the system's errors as problems."""
    try:
        yield
    except paramiko.ssh_exception.IncompatiblePeer as error:
        raise LoginError("unsupported", f"{settings.alias}: Unable to negotiate: {condense(str(error))}") from None
    except (paramiko.SSHException, EOFError, OSError) as error:
        limit.left()
        problem: ReachProblem
        words = "; ".join(part for part in (way.said(), condense(str(error)) or type(error).__name__) if part)
        problem = "timeout" if "timeout" in words.lower() or "timed out" in words else classify(words)
        raise LoginError("closed" if problem == "other" else problem, f"{settings.alias}: {words}") from None
