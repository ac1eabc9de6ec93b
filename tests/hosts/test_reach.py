"""Hosts that cannot be reached: every fault has its name, within the time limit, over ssh and over paramiko."""

import os
import socket
import subprocess
import sys
import time

import pytest

from dsdoctor.hosts.hostfile import parse_hostfile
from dsdoctor.hosts.transport import TransportError
from tests.hosts import sshd

TIMEOUT = 2.0  # what the tests give for connecting; login may take LOGIN more
LOGIN = 2.0


@pytest.fixture(autouse=True)
def quick_login(monkeypatch):
    for module in ("openssh", "paramiko_ssh"):
        monkeypatch.setattr(f"dsdoctor.hosts.transport.{module}.LOGIN_SECONDS", LOGIN)


def failure(transport, within=TIMEOUT + LOGIN + 30):
    """The error of a host that is not reached, and that it came in time."""
    begun = time.monotonic()
    with pytest.raises(TransportError) as caught:
        transport.run(["true"])
    assert time.monotonic() - begun < within
    assert caught.value.detail.isprintable()
    assert caught.value.detail
    return caught.value


def test_a_name_without_an_address(reach, server):
    error = failure(reach(server.entry(name="no-such-host.invalid"), server.config))
    assert error.problem == "unresolvable"
    assert "no-such-host.invalid" in error.detail


def test_a_port_at_which_nothing_listens(reach, server):
    error = failure(reach(server.entry(port=sshd.free_port()), server.config))
    assert error.problem == "refused"
    assert "Connection refused" in error.detail


def test_a_network_without_a_way(reach, server):
    # No TCP goes to the broadcast address: the kernel itself says that there is no way.
    error = failure(reach(server.entry(name="255.255.255.255"), server.config))
    assert error.problem == "no-route"
    assert "unreachable" in error.detail


def full_backlog():
    """A port whose queue is full: SYNs are dropped, as a host that is switched off would."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    return listener, fillers


def test_a_host_that_does_not_answer(reach, server):
    listener, fillers = full_backlog()
    try:
        error = failure(reach(server.entry(port=listener.getsockname()[1]), server.config, TIMEOUT))
        assert error.problem == "timeout"
    finally:
        for each in (listener, *fillers):
            each.close()


def silent(connection):
    pass


def half_silent(connection):
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def talkative(connection):
    for _ in range(100):
        connection.sendall(b"Welcome to the machine\r\n")


def hangs_up(connection):
    connection.recv(10)
    connection.close()


def http(connection):
    connection.recv(10)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    connection.close()


def garbage(connection):
    connection.sendall(b"\x1b[31m\0\xff" * 200_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behave", "problems"),
    [
        (silent, {"timeout"}),
        (half_silent, {"timeout"}),
        (talkative, {"timeout", "closed"}),
        (hangs_up, {"closed"}),
        (http, {"closed"}),
        (garbage, {"closed", "timeout"}),
    ],
)
def test_a_port_that_is_no_sshd(reach, server, behave, problems):
    with sshd.bad_server(behave) as port:
        assert failure(reach(server.entry(port=port), server.config, TIMEOUT)).problem in problems


def test_a_host_whose_key_is_not_known(reach, server):
    for name, strict in (("ask", None), ("yes", "yes")):
        config = server.write_config(f"unknown-{name}", UserKnownHostsFile="/dev/null", StrictHostKeyChecking=strict)
        assert failure(reach(server.entry(), config)).problem == "unknown-key"


def known_hosts(server, name, text):
    path = server.folder / name
    path.write_text(text)
    return server.write_config(f"config-{name}", UserKnownHostsFile=path)


def test_a_host_whose_key_has_changed(reach, server):
    config = known_hosts(server, "changed", "# a comment\n" + server.known(server.host_key("other")))
    error = failure(reach(server.entry(), config))
    assert error.problem == "changed-key"
    assert f"{server.folder / 'changed'}:2" in error.detail
    assert "NASTY" not in error.detail


def test_a_host_whose_key_is_revoked(reach, server):
    config = known_hosts(server, "revoked", f"{server.known()}@revoked * {server.host_key()}\n")
    error = failure(reach(server.entry(), config))
    assert error.problem == "changed-key"
    assert "revoked" in error.detail


@pytest.mark.parametrize(
    "line",
    [
        "[127.0.0.*]:{port} {key}",
        "*,!other {key}",
        "a,[127.0.0.1]:{port} {key}",
        "broken line\n[127.0.0.1]:{port} {key} c",
        "127.0.0.1 {key}",
    ],
)
def test_the_ways_to_name_a_host_in_known_hosts(reach, server, line):
    config = known_hosts(server, "patterns", line.format(port=server.port, key=server.host_key()) + "\n")
    assert reach(server.entry(), config).run(["echo", "in"]).stdout == b"in\n"


@pytest.mark.parametrize(
    "line", ["[127.0.0.1]:1 {key}", "127.0.0.2 {key}", "*,![127.0.0.1]:{port},!127.0.0.1 {key}", "127.0.0.1 {other}"]
)
def test_lines_of_known_hosts_that_mean_another_host(reach, server, line):
    config = known_hosts(
        server, "others", line.format(port=server.port, key=server.host_key(), other=server.host_key("other")) + "\n"
    )
    assert failure(reach(server.entry(), config)).problem == "unknown-key"


def test_hashed_names_in_known_hosts(reach, server):
    config = known_hosts(server, "hashed", server.known())
    sshd.keygen("-H", "-f", server.folder / "hashed")
    assert "127.0.0.1" not in (server.folder / "hashed").read_text()
    assert reach(server.entry(), config).run(["echo", "in"]).stdout == b"in\n"


def test_a_key_that_is_not_accepted(reach, server):
    config = server.write_config("denied", IdentityFile=server.folder / "other")
    error = failure(reach(server.entry(), config))
    assert error.problem == "denied"
    assert "Permission denied" in error.detail


def test_a_user_who_does_not_exist(reach, server):
    assert failure(reach(server.entry(user="nobody-here"), server.config)).problem == "denied"


def test_a_key_with_a_passphrase_is_not_asked_for(reach, server):
    path = server.folder / "locked"
    if not path.exists():
        sshd.keygen("-t", "ed25519", "-N", "secret word", "-f", path)
    error = failure(reach(server.entry(), server.write_config("locked-config", IdentityFile=path)))
    assert error.problem == "denied"


def test_no_key_at_all(reach, server):
    config = server.write_config("none", IdentityFile="none")
    assert failure(reach(server.entry(), config)).problem == "denied"


def test_settings_that_cannot_be_read(reach, server):
    assert failure(reach(server.entry(), server.folder / "missing")).problem == "unsupported"
    (server.folder / "nonsense").write_text("Host *\n  Nonsense 1\n")
    assert failure(reach(server.entry(), server.folder / "nonsense")).problem == "unsupported"


def test_an_sshd_that_offers_no_common_cipher(reach, tmp_path):
    server = sshd.make(tmp_path / "old", Ciphers="aes256-cbc")
    try:
        assert failure(reach(server.entry(), server.config)).problem == "unsupported"
    finally:
        server.stop()


def jump_config(server, name, **jump):
    """Settings in which `target` is reached over `jump`."""
    path = server.write_config(name)
    lines = {"HostName": "127.0.0.1", "Port": server.port, **jump}
    text = "".join(f"  {key} {value}\n" for key, value in lines.items())
    target = f"Host target\n  HostName 127.0.0.1\n  Port {server.port}\n  ProxyJump jump\n"
    path.write_text(f"Host jump\n{text}{target}{path.read_text()}")
    return path


def test_a_host_behind_a_jump_host(reach, server):
    transport = reach(server.entry(name="target", port=None), jump_config(server, "jump"))
    assert transport.run(["echo", "in"]).stdout == b"in\n"
    both = server.write_config("jumps", ProxyJump="none")
    both.write_text(
        f"Host target\n  HostName 127.0.0.1\n  ProxyJump one,two\n  Port {server.port}\n" + both.read_text()
    )
    alias = f"Host one two\n  HostName 127.0.0.1\n  Port {server.port}\n"
    both.write_text(alias + both.read_text())
    assert reach(server.entry(name="target", port=None), both).run(["echo", "in"]).stdout == b"in\n"


@pytest.mark.parametrize(
    ("jump", "problem"),
    [
        ({"Port": 1}, "refused"),
        ({"HostName": "no-such-jump.invalid"}, "unresolvable"),
        ({"UserKnownHostsFile": "/dev/null"}, "unknown-key"),
        ({"User": "nobody-here"}, "denied"),
    ],
)
def test_the_fault_of_a_jump_host_is_named(reach, server, jump, problem):
    transport = reach(server.entry(name="target", port=None), jump_config(server, f"jump-{problem}", **jump))
    assert failure(transport).problem == problem


def test_a_jump_host_that_cannot_reach_the_host(reach, server):
    config = jump_config(server, "jump-on")
    error = failure(reach(server.entry(name="target", port=sshd.free_port()), config))
    # The jump host's sshd says why; ssh passes it on, paramiko does not.
    assert error.problem == ("refused" if reach.kind == "openssh" else "other")
    assert "jump" in error.detail or "refused" in error.detail


@pytest.mark.slow
def test_a_jump_host_that_does_not_answer(reach, server):
    with sshd.bad_server(silent) as port:
        config = jump_config(server, "jump-silent", Port=port)
        assert failure(reach(server.entry(name="target", port=None), config, TIMEOUT)).problem == "timeout"


def test_proxy_jump_in_a_circle(reach, server):
    config = server.write_config("circle", ProxyJump="elsewhere")
    assert failure(reach(server.entry(name="target", port=None), config), within=60).problem == "unsupported"


def test_a_proxy_command(reach, server):
    relay = server.folder / "relay.py"
    relay.write_text(
        "import socket, sys, threading, os\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while d := os.read(0, 65536): s.sendall(d)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while d := s.recv(65536): os.write(1, d)\n"
    )
    config = server.write_config("proxy", ProxyCommand=f"{sys.executable} {relay} %h %p")
    transport = reach(server.entry(), config)
    assert transport.run(["echo", "in"]).stdout == b"in\n"
    transport.close()
    assert sshd.until(lambda: not sshd.alive(str(relay)), 5)


def test_the_words_of_a_proxy_command_that_fails(reach, server):
    config = server.write_config("proxy-fails", ProxyCommand="sh -c 'echo the tunnel is down >&2; sleep 0.2; false'")
    error = failure(reach(server.entry(), config))
    assert error.problem == "closed"
    assert "the tunnel is down" in error.detail


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """An ssh-agent of our own; returns a function that adds a key file."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    assert sshd.until(path.exists, 5)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    yield lambda key: subprocess.run(["ssh-add", "-q", key], check=True, stderr=subprocess.DEVNULL)
    process.terminate()
    process.wait(5)


def test_keys_of_the_agent(reach, server, agent):
    config = server.write_config("agent", IdentityFile="none", IdentitiesOnly="no")
    assert failure(reach(server.entry(), config)).problem == "denied"
    agent(server.folder / "other")
    agent(server.folder / "user")
    assert reach(server.entry(), config).run(["echo", "in"]).stdout == b"in\n"
    assert failure(reach(server.entry(), server.write_config("no-agent", IdentityFile="none"))).problem == "denied"


def test_an_agent_key_named_by_its_public_half(reach, server, agent, tmp_path):
    agent(server.folder / "user")
    (tmp_path / "mine.pub").write_text((server.folder / "user.pub").read_text())
    config = server.write_config("half", IdentityFile=tmp_path / "mine")
    assert reach(server.entry(), config).run(["echo", "in"]).stdout == b"in\n"


def test_a_certificate(reach, tmp_path):
    server = sshd.make(tmp_path / "ca", TrustedUserCAKeys=tmp_path / "ca" / "other.pub", AuthorizedKeysFile="none")
    try:
        assert failure(reach(server.entry(), server.config)).problem == "denied"
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        sshd.keygen("-s", server.folder / "other", "-I", "test", "-n", user, server.folder / "user.pub")
        assert reach(server.entry(), server.config).run(["echo", "beside"]).stdout == b"beside\n"
        (server.folder / "user-cert.pub").rename(tmp_path / "elsewhere.pub")
        config = server.write_config("certificate", CertificateFile=tmp_path / "elsewhere.pub")
        assert reach(server.entry(), config).run(["echo", "named"]).stdout == b"named\n"
    finally:
        server.stop()


def test_user_and_port_of_the_hostfile_outrank_the_settings(reach, server):
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    config = server.write_config("other-user", User="nobody-here", Port=1)
    (entry,) = parse_hostfile(f"{user}@127.0.0.1 slots=1 port={server.port}").entries
    assert reach(entry, config).run(["id", "-un"]).stdout == f"{user}\n".encode()


def test_a_banner_before_login_is_not_the_commands_output(reach, tmp_path):
    banner = tmp_path / "issue"
    banner.write_text("Permission denied to all but us.\nIdle sessions are timed out. Connection refused.\n")
    server = sshd.make(tmp_path / "banner", Banner=banner)
    try:
        done = reach(server.entry(), server.config).run(["sh", "-c", "echo out; echo err >&2"])
        assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
        config = server.write_config("banner-denied", IdentityFile=server.folder / "other")
        assert failure(reach(server.entry(), config)).problem == "denied"
    finally:
        server.stop()


def test_a_connection_that_breaks_in_the_middle(reach, tmp_path):
    server = sshd.make(tmp_path / "breaks")
    try:
        transport = reach(server.entry(), server.config)
        begun = time.monotonic()
        with pytest.raises(TransportError) as caught:  # the command ends the sshd of its own session
            transport.run(["sh", "-c", f"echo so far >&2; kill $({parent_sshd()})"], timeout=30)
        assert time.monotonic() - begun < 25
        assert caught.value.problem == "closed"
        assert "so far" in caught.value.detail
        assert transport.run(["echo", "again"]).stdout == b"again\n"
    finally:
        server.stop()


def parent_sshd():
    """A shell line that gives the process above the login shell: the sshd of this very connection."""
    if os.getuid() != 0:
        pytest.skip("needs root: the session's sshd may belong to root")
    return (
        "p=$$; while [ $p -gt 1 ]; do p=$(awk '/^PPid/{print $2}' /proc/$p/status);"
        " grep -q ^sshd /proc/$p/comm && break; done; echo $p"
    )
