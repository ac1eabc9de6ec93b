"""What is OpenSSH's alone: the kept connection, the user's settings, rsync, and nothing left behind."""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dsdoctor.hosts.transport import TransportError, connect, openssh
from dsdoctor.hosts.transport.openssh import OpenSSHTransport
from dsdoctor.hosts.transport.ssh_messages import classify, condense
from tests.hosts import sshd


@pytest.fixture
def transport(server):
    transport = OpenSSHTransport(server.entry(), config_file=server.config)
    yield transport
    transport.close()


def folders():
    return set(Path(openssh._short_folder()).glob("dsd-*"))


def logins(server):
    return (server.folder / "sshd.log").read_text().count("Accepted ")


def test_one_login_serves_all_commands(transport, server):
    before = logins(server)
    for _ in range(5):
        assert transport.run(["true"]).returncode == 0
    process = transport.start(["true"])
    assert process.wait(10) == 0
    process.close()
    assert logins(server) == before + 1


def test_nothing_is_left_after_closing(server):
    before = folders()
    transport = OpenSSHTransport(server.entry(), config_file=server.config)
    transport.run(["true"])
    (folder,) = folders() - before
    assert folder.stat().st_mode & 0o777 == 0o700
    started = transport.start(["sleep", "66"])
    assert sshd.alive(str(folder))
    transport.close()
    assert folders() - before == set()
    assert sshd.until(lambda: not sshd.alive(str(folder)), 5)
    assert started.wait(5) == 255
    started.close()


def test_nothing_is_left_of_a_host_that_was_not_reached(server):
    before = folders()
    transport = OpenSSHTransport(server.entry(port=sshd.free_port()), config_file=server.config)
    with pytest.raises(TransportError):
        transport.run(["true"])
    transport.close()
    assert folders() - before == set()


def test_a_kept_connection_ends_by_itself_when_nobody_ends_it(server, monkeypatch):
    monkeypatch.setattr(openssh, "PERSIST_SECONDS", 1)
    transport = OpenSSHTransport(server.entry(), config_file=server.config)
    transport.run(["true"])
    folder = str(transport._folder)
    assert sshd.alive(folder)
    assert sshd.until(lambda: not sshd.alive(folder), 6)
    assert transport.run(["echo", "again"]).stdout == b"again\n"
    transport.close()


def test_closing_ends_a_connection_that_is_being_made(server):
    with sshd.bad_server(lambda connection: None) as port:
        transport = OpenSSHTransport(server.entry(port=port), config_file=server.config)
        failed = []

        def run():
            try:
                transport.run(["true"])
            except TransportError as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.3)
        begun = time.monotonic()
        transport.close()
        thread.join(60)
        assert time.monotonic() - begun < 10  # the limit for connecting is 15
        assert failed[0].problem == "closed"


def test_rsync_goes_through_the_same_connection(transport, server, tmp_path):
    if shutil.which("rsync") is None:
        pytest.skip("no rsync (Debian: apt-get install rsync)")
    (tmp_path / "from" / "sub").mkdir(parents=True)
    (tmp_path / "from" / "sub" / "file").write_text("text")
    before = logins(server)
    shell, host = transport.rsync_shell()
    subprocess.run(
        ["rsync", "-a", "-e", " ".join(shell), f"{tmp_path}/from/", f"{host}:{tmp_path}/to/"], check=True, timeout=30
    )
    assert (tmp_path / "to" / "sub" / "file").read_text() == "text"
    assert logins(server) == before + 1


def test_rsync_names_user_and_addresses(server):
    def host(**changes):
        transport = OpenSSHTransport(server.entry(**changes), config_file=server.config)
        transport._connect = lambda: setattr(transport, "_folder", Path("/tmp/x"))
        return transport.rsync_shell()

    assert host(name="::1", user="alice")[1] == "alice@[::1]"
    shell, where = host(name="w1", port=2222)
    assert where == "w1"
    assert shell[-2:] == ["-p", "2222"]


def test_include_and_match_exec_are_ssh_s_own(server):
    folder = server.folder
    inner = server.write_config("inner")
    (folder / "outer").write_text(f"Include {inner}\n")
    (folder / "exec").write_text(f'Match exec "true"\n  Include {inner}\n')
    for name in ("outer", "exec"):
        transport = OpenSSHTransport(server.entry(), config_file=folder / name)
        assert transport.run(["echo", "in"]).stdout == b"in\n"
        transport.close()


def test_a_host_certificate(tmp_path):
    server = sshd.make(tmp_path / "hostcert", HostCertificate=tmp_path / "hostcert" / "host-cert.pub")
    try:
        sshd.keygen("-s", server.folder / "other", "-h", "-I", "host", server.folder / "host.pub")
        server.stop()
        server.start()
        (server.folder / "known_hosts").write_text(f"@cert-authority * {server.host_key('other')}\n")
        transport = OpenSSHTransport(server.entry(), config_file=server.config)
        assert transport.run(["echo", "in"]).stdout == b"in\n"
        transport.close()
        transport = connect(server.entry(), "paramiko", config_file=server.config)
        with pytest.raises(TransportError, match=r"unsupported: .*@cert-authority .*Use the ssh client"):
            transport.run(["true"])
        transport.close()
    finally:
        server.stop()


def test_settings_that_forward_ports_or_talk_do_not_disturb(server):
    config = server.write_config(
        "noisy",
        LocalForward=f"{server.port} 127.0.0.1:9",  # taken
        ExitOnForwardFailure="yes",
        LogLevel="QUIET",
        RequestTTY="force",
        ForwardX11="yes",
        ControlMaster="auto",
        ControlPath=server.folder / "theirs",
    )
    transport = OpenSSHTransport(server.entry(), config_file=config)
    done = transport.run(["sh", "-c", "echo out; echo err >&2"])
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    transport.close()
    assert not (server.folder / "theirs").exists()


def test_a_remote_command_in_the_settings(server):
    transport = OpenSSHTransport(server.entry(), config_file=server.write_config("remote", RemoteCommand="ls"))
    with pytest.raises(TransportError, match="unsupported: Cannot execute command-line and remote command"):
        transport.run(["true"])
    transport.close()


def test_no_window_asks_for_a_password(server, monkeypatch, tmp_path):
    ask = tmp_path / "ask"
    ask.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\necho secret\n")
    ask.chmod(0o755)
    for name, value in (("SSH_ASKPASS", str(ask)), ("SSH_ASKPASS_REQUIRE", "force"), ("DISPLAY", ":0")):
        monkeypatch.setenv(name, value)
    if not (server.folder / "locked2").exists():
        sshd.keygen("-t", "ed25519", "-N", "secret", "-f", server.folder / "locked2")
    config = server.write_config("ask", IdentityFile=server.folder / "locked2")
    jumping = server.write_config("ask-jump", IdentityFile=server.folder / "locked2", ProxyJump="jump")
    jumping.write_text(
        f"Host jump\n  HostName 127.0.0.1\n  Port {server.port}\n  ProxyJump none\n" + jumping.read_text()
    )
    for each in (config, jumping):
        transport = OpenSSHTransport(server.entry(), config_file=each)
        with pytest.raises(TransportError):
            transport.run(["true"])
        transport.close()
    assert not (tmp_path / "asked").exists()


def test_no_ssh_client(server):
    transport = OpenSSHTransport(server.entry(), program="no-such-ssh")
    with pytest.raises(TransportError, match="unsupported: no-such-ssh: No such file or directory"):
        transport.run(["true"])
    transport.close()


def test_connect_chooses_the_way(server, monkeypatch):
    from dsdoctor.hosts.hostfile import local_entry
    from dsdoctor.hosts.transport.local import LocalTransport
    from dsdoctor.hosts.transport.paramiko_ssh import ParamikoTransport

    assert isinstance(connect(local_entry(1), "openssh"), LocalTransport)
    assert isinstance(connect(server.entry()), OpenSSHTransport)
    assert isinstance(connect(server.entry(), "paramiko"), ParamikoTransport)
    monkeypatch.setenv("DSDOCTOR_SSH_CONFIG", str(server.config))
    transport = connect(server.entry())
    assert transport.run(["echo", "in"]).stdout == b"in\n"
    transport.close()
    monkeypatch.setenv("PATH", "/nowhere")
    assert isinstance(connect(server.entry()), ParamikoTransport)


def test_sockets_get_a_short_folder(monkeypatch, tmp_path):
    for name in ("x" * 80, "with space", "per%cent"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        assert openssh._short_folder() == "/tmp"
    monkeypatch.setattr("tempfile.tempdir", "/var/tmp")
    assert openssh._short_folder() == "/var/tmp"


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("ssh: Could not resolve hostname w1: Temporary failure in name resolution", "unresolvable"),
        ("ssh: connect to host w1 port 22: Connection refused", "refused"),
        ("ssh: connect to host w1 port 22: No route to host", "no-route"),
        ("ssh: connect to host w1 port 22: Connection timed out", "timeout"),
        ("Connection timed out during banner exchange", "timeout"),
        ("Timeout, server w1 not responding.", "timeout"),
        ("No ED25519 host key is known for w1 and you have requested strict checking.", "unknown-key"),
        ("Host key verification failed.", "unknown-key"),
        ("@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\nHost key verification failed.", "changed-key"),
        ("alice@w1: Permission denied (publickey,password).", "denied"),
        ("Received disconnect from 192.0.2.1 port 22:2: Too many authentication failures", "denied"),
        ("Connection closed by 192.0.2.1 port 22", "closed"),
        ("kex_exchange_identification: read: Connection reset by peer", "closed"),
        ("client_loop: send disconnect: Broken pipe", "closed"),
        ("/home/alice/.ssh/config: line 3: Bad configuration option: foo", "unsupported"),
        ("Bad owner or permissions on /home/alice/.ssh/config", "unsupported"),
        ("Unable to negotiate with 192.0.2.1 port 22: no matching host key type found.", "unsupported"),
        ("channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed", "refused"),
        ("channel 0: open failed: administratively prohibited: open failed", "no-route"),
        ("what is this", "other"),
        ("", "other"),
    ],
)
def test_what_ssh_says(words, problem):
    assert classify(words) == problem


def test_words_are_made_fit_to_be_shown():
    words = (
        "@@@@@@@\n@  WARNING: X  @\n@@@@@@\nSomeone could be eavesdropping on you right now\n\x1b[31mred\r\n"
        + "y" * 1000
    )
    assert condense(words).startswith("WARNING: X; \\x1b[31mred; yyy")
    assert len(condense(words)) < 620
    assert os.linesep not in condense(words)


def test_a_forgotten_connection_ends_with_the_program(server):
    script = (
        "import sys; from dsdoctor.cluster import HostEntry; from dsdoctor.hosts.transport import connect\n"
        "transport = connect(HostEntry('127.0.0.1', 1, port=int(sys.argv[1])), config_file=sys.argv[2])\n"
        "transport.run(['true']); print(transport._folder)"
    )
    argv = [sys.executable, "-c", script, str(server.port), str(server.config)]
    folder = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    assert folder
    assert not Path(folder).exists()
    assert sshd.until(lambda: not sshd.alive(folder), 5)
