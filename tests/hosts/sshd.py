"""A real sshd on loopback with keys of its own, and servers that behave badly, for the tests of the transports."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dsdoctor.cluster import HostEntry


@dataclass
class Sshd:
    """A running sshd: `entry()` is a hostfile entry that reaches it with `config`."""

    folder: Path
    port: int
    extra: str = ""
    settings: dict = field(default_factory=dict)
    process: subprocess.Popen | None = None

    @property
    def config(self):
        """The ssh settings that reach it: our key, our known_hosts, nothing of the user's."""
        return self.write_config()

    def write_config(self, name="config", **settings):
        """Another file of settings; a value of None leaves the line out."""
        lines = {
            "UserKnownHostsFile": self.folder / "known_hosts",
            "GlobalKnownHostsFile": "/dev/null",
            "IdentityFile": self.folder / "user",
            "IdentitiesOnly": "yes",
            **settings,
        }
        path = self.folder / name
        text = "".join(f"  {key} {value}\n" for key, value in lines.items() if value is not None)
        path.write_text(f"Host *\n{text}")
        return path

    def entry(self, **changes):
        return HostEntry(**{"name": "127.0.0.1", "slots": 1, "port": self.port, **changes})

    def host_key(self, name="host"):
        return " ".join((self.folder / f"{name}.pub").read_text().split()[:2])

    def known(self, key=None):
        """The line of known_hosts."""
        return f"[127.0.0.1]:{self.port} {key or self.host_key()}\n"

    def start(self):
        settings = {
            "Port": self.port,
            "ListenAddress": "127.0.0.1",
            "HostKey": self.folder / "host",
            "PidFile": "none",
            "AuthorizedKeysFile": self.folder / "authorized_keys",
            "StrictModes": "no",
            "PermitRootLogin": "yes",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "MaxStartups": "200",
            "SetEnv": f"HOME={self.folder / 'home'}",  # no start-up files of whoever runs the tests
            **self.settings,
        }
        path = self.folder / "sshd_config"
        path.write_text("".join(f"{key} {value}\n" for key, value in settings.items()) + self.extra)
        log = self.folder / "sshd.log"
        self.process = subprocess.Popen(
            [sshd_program(), "-D", "-f", path, "-E", log], stdin=subprocess.DEVNULL, env=CLEAN_ENV
        )
        until(lambda: greets(self.port) or self.process.poll() is not None, 10)
        assert self.process.poll() is None, log.read_text()

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None


CLEAN_ENV = {"PATH": os.environ.get("PATH", os.defpath)}


def sshd_program():
    return shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def make(folder, **settings):
    """A started sshd in a folder; skips the test where OpenSSH's server is missing."""
    if sshd_program() is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no sshd (Debian: apt-get install openssh-server)")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own empty folder; the service would make it
    (folder / "home").mkdir(parents=True, exist_ok=True)
    for name in ("host", "user", "other"):
        keygen("-t", "ed25519", "-N", "", "-f", folder / name)
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    extra = settings.pop("extra", "")
    server = Sshd(folder, free_port(), extra=extra, settings=settings)
    (folder / "known_hosts").write_text(server.known())
    server.start()
    return server


def keygen(*args):
    subprocess.run(["ssh-keygen", "-q", *map(str, args)], check=True, stdin=subprocess.DEVNULL)


def free_port():
    """A port at which nothing listens, below those that the kernel gives to outgoing connections."""
    while True:
        port = random.randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def greets(port):
    """Whether an sshd answers; a mere connection could be one of the socket to itself."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as probe:
        return probe.recv(4) == b"SSH-"
    return False


def until(condition, seconds):
    """Wait for a condition; returns whether it came."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextlib.contextmanager
def bad_server(behave):
    """A port at which `behave(connection)` answers every connection, in a thread of its own."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(50)
        kept = []

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                kept.append(connection)
                with contextlib.suppress(OSError):
                    behave(connection)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            for connection in kept:
                connection.close()


def alive(word):
    """The command lines of running processes that carry a word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            if word in line and int(path.parent.name) != os.getpid():
                found.append(line)
    return found
