"""What is paramiko's alone: settings that it cannot follow are refused by name, passwords, and a lazy import."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading

import paramiko
import pytest

from dsdoctor.cluster import HostEntry
from dsdoctor.hosts.transport import TransportError, connect, known_hosts
from dsdoctor.hosts.transport.paramiko_ssh import ParamikoTransport
from dsdoctor.hosts.transport.ssh_settings import UnsupportedSettingError, read_settings


def settings(tmp_path, text, host="w1", user=None, port=None):
    path = tmp_path / "config"
    path.write_text(text)
    return read_settings(host, user, port, path)


def test_the_settings_of_a_host(tmp_path):
    found = settings(
        tmp_path,
        "Host w1\n  HostName w1.example.org # the new one\n  Port 2222\n  User=alice\n  IdentityFile ~/k1\n"
        "  IdentityFile /keys/k2\n  ProxyJump bob@jump:2200,second\n  HostKeyAlias w1-alias\n"
        'Host *\n  User nobody\n  UserKnownHostsFile ~/kh "/etc/known hosts"\n  IdentitiesOnly yes\n'
        "  ServerAliveInterval 5\n",
    )
    assert (found.hostname, found.port, found.user) == ("w1.example.org", 2222, "alice")
    assert [path.name for path in found.identities] == ["k1", "k2"]
    assert found.identities[0].is_absolute()
    assert found.proxy_jump == ("bob@jump:2200", "second")
    assert (found.host_key_name, found.key_alias) == ("w1-alias", True)
    assert [path.name for path in found.known_hosts[:2]] == ["kh", "known hosts"]
    assert found.identities_only


def test_the_defaults(tmp_path):
    found = settings(tmp_path, "")
    assert (found.hostname, found.port, found.proxy_jump, found.proxy_command) == ("w1", 22, (), None)
    assert [path.name for path in found.identities] == ["id_rsa", "id_ecdsa", "id_ed25519"]
    assert found.agent
    assert not found.named_identities


def test_user_and_port_of_the_hostfile_come_first_everywhere(tmp_path):
    found = settings(
        tmp_path, "User bob\nPort 1\nMatch user alice\n  ProxyCommand nc %h %p as %r\n", user="alice", port=2222
    )
    assert (found.user, found.port, found.proxy_command) == ("alice", 2222, "nc w1 2222 as alice")


def test_of_jump_and_command_the_first_counts(tmp_path):
    assert settings(tmp_path, "ProxyJump j\nProxyCommand nc %h %p\n").proxy_command is None
    assert settings(tmp_path, "ProxyCommand nc %h %p\nProxyJump j\n").proxy_jump == ()
    assert settings(tmp_path, "ProxyCommand none\nProxyJump j\n").proxy_jump == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Include {folder}/more\n", "config:1: Include is not followed by paramiko. Use the ssh client"),
        ("Include more%h\n", "config:1: Include is not followed"),
        ('Match exec "true"\n  User x\n', "config:1: Match exec cannot be decided by paramiko"),
        ("Match host w9 exec true\n", "Match exec cannot"),
        ("Match !final\n", "Match final cannot"),
        ("Match localnetwork 192.0.2.0/24\n", "Match localnetwork cannot"),
        ("Ciphers aes256-ctr\n", "w1: the ssh setting ciphers aes256-ctr is not followed by paramiko"),
        ("HostKeyAlgorithms ssh-ed25519\n", "the ssh setting hostkeyalgorithms"),
        ("KnownHostsCommand /bin/x\n", "the ssh setting knownhostscommand"),
        ("RevokedHostKeys /etc/x\n", "the ssh setting revokedhostkeys"),
        ("AddressFamily inet6\n", "the ssh setting addressfamily"),
        ("BindAddress 192.0.2.1\n", "the ssh setting bindaddress"),
        ("RemoteCommand ls\n", "the ssh setting remotecommand"),
        ("CanonicalizeHostname yes\nCanonicalDomains example.org\n", "the ssh setting canonical"),
        ("IdentityAgent ~/agent\n", "identityagent ~/agent: paramiko knows the agent of SSH_AUTH_SOCK only"),
        ("IdentityFile /keys/%k\n", "paramiko cannot fill this in"),
        ("UserKnownHostsFile ${{HOME}}/kh\n", "paramiko cannot fill this in"),
        ("ProxyJump ssh://j:22\n", "only [user@]host[:port] is followed"),
        ("Port ssh\n", "port ssh in the ssh settings is no number"),
        ("Host 'w1\n", "the ssh settings cannot be read"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(tmp_path, text, sentence):
    (tmp_path / "more").write_text("User x\n")
    with pytest.raises(UnsupportedSettingError) as caught:
        settings(tmp_path, text.format(folder=tmp_path))
    assert sentence in str(caught.value)


def test_what_does_not_concern_the_host_is_no_reason_to_refuse_it(tmp_path):
    text = (
        f"Include {tmp_path}/none/*.conf\nHost w2\n  Ciphers aes256-ctr\nMatch host w3 user bob\n  RemoteCommand ls\n"
    )
    assert settings(tmp_path, text).hostname == "w1"


def test_names_in_known_hosts():
    assert known_hosts.host_name_in_file("W1", 22) == "w1"
    assert known_hosts.host_name_in_file("w1", 2222) == "[w1]:2222"


def test_a_known_hosts_file_with_anything_in_it(tmp_path):
    path = tmp_path / "kh"
    path.write_bytes(
        b"\xff\xfe\n\nw1\nw1 ssh-rsa !!!\n|1|x|y ssh-rsa AAAA\n# w1 ssh-rsa AAAA\n@revoked\nW1,w2 ssh-x AAAA c\n"
    )
    found = known_hosts.lookup("w1", [path, tmp_path / "missing", tmp_path])
    assert found.keys == (("ssh-x", b"\0\0\0"),)
    assert found.places == (f"{path}:8",)
    assert known_hosts.lookup("w", [path]).keys == ()


def test_paramiko_is_imported_only_when_it_is_used():
    script = (
        "import sys, dsdoctor.hosts.gather, dsdoctor.hosts.hostfile, dsdoctor.hosts.transport.paramiko_ssh;"
        "sys.exit('paramiko' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


class PasswordHost:
    """An sshd of paramiko's own that takes one password and answers every command."""

    def __init__(self, tmp_path):
        import paramiko

        class Answer(paramiko.ServerInterface):
            def get_allowed_auths(self, username):
                return "password"

            def check_auth_password(self, username, password):
                good = (username, password) == ("alice", "open sesame")
                return paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED

            def check_channel_request(self, kind, chanid):
                return paramiko.OPEN_SUCCEEDED

            def check_channel_exec_request(self, channel, command):
                def answer():
                    channel.sendall(b"you said " + command[-8:])
                    channel.send_exit_status(0)
                    channel.close()

                threading.Timer(0.05, answer).start()
                return True

        key = paramiko.Ed25519Key.from_private_key_file(str(tmp_path / "host"))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.transports = []

        def serve():
            while True:
                try:
                    connection, _ = self.listener.accept()
                except OSError:
                    return
                transport = paramiko.Transport(connection)
                transport.add_server_key(key)
                self.transports.append(transport)
                with contextlib.suppress(paramiko.SSHException, EOFError):
                    transport.start_server(server=Answer())

        threading.Thread(target=serve, daemon=True).start()

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for transport in self.transports:
            transport.close()


@pytest.fixture
def password_host(tmp_path, server):
    shutil.copy(server.folder / "host", tmp_path / "host")
    host = PasswordHost(tmp_path)
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{host.port} {server.host_key()}\n")
    host.config = server.write_config("password", UserKnownHostsFile=known)
    yield host
    host.close()


def test_a_host_with_a_password(password_host):
    entry = HostEntry("127.0.0.1", 1, user="alice", port=password_host.port)
    transport = ParamikoTransport(entry, config_file=password_host.config, password="open sesame")
    assert transport.run(["echo", "hi"]).stdout == b"you said  echo hi"[-17:]
    transport.close()


def test_a_password_from_the_environment(password_host, monkeypatch):
    monkeypatch.setenv("DSDOCTOR_SSH_PASSWORD", "open sesame")
    entry = HostEntry("127.0.0.1", 1, user="alice", port=password_host.port)
    transport = connect(entry, config_file=password_host.config)
    assert transport.run(["echo", "hi"]).returncode == 0
    transport.close()


@pytest.mark.parametrize("password", [None, "wrong"])
def test_a_password_that_is_not_taken_is_not_shown(password_host, password):
    entry = HostEntry("127.0.0.1", 1, user="alice", port=password_host.port)
    transport = ParamikoTransport(entry, config_file=password_host.config, password=password)
    with pytest.raises(TransportError) as caught:
        transport.run(["true"])
    transport.close()
    assert caught.value.problem == "denied"
    assert "user alice, tried: " in caught.value.detail
    assert "wrong" not in caught.value.detail


def test_rsync_needs_a_client(server, monkeypatch):
    transport = ParamikoTransport(server.entry(user="alice"), config_file=server.config)
    shell, host = transport.rsync_shell()
    assert host == "alice@127.0.0.1"
    assert shell[:3] == ["ssh", "-F", str(server.config)]
    assert "StrictHostKeyChecking=no" not in " ".join(shell)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TransportError, match="rsync needs an ssh client"):
        transport.rsync_shell()


def test_a_connection_that_idles_in_long_turns_ends_at_once(server, monkeypatch):
    monkeypatch.setattr("dsdoctor.hosts.transport.paramiko_login.TURN_SECONDS", 3600.0)
    transport = connect(server.entry(), "paramiko", config_file=server.config)
    before = set(threading.enumerate())
    assert transport.run(["echo", "on"]).stdout == b"on\n"
    assert any(isinstance(thread, paramiko.Transport) for thread in set(threading.enumerate()) - before)
    transport.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive()


def test_what_a_command_leaves_behind_does_not_hold_up_its_answer(server):
    transport = connect(server.entry(), "paramiko", config_file=server.config)
    try:
        done = transport.run(["sh", "-c", "sleep 3600 & echo $!"], timeout=600)
    finally:
        transport.close()
    os.kill(int(done.stdout), 9)
    assert done.returncode == 0


def test_a_command_that_never_stops_talking_is_given_up(server):
    transport = connect(server.entry(), "paramiko", config_file=server.config)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            transport.run(["yes"], timeout=1)
    finally:
        transport.close()


def test_a_cipher_that_seals_what_it_hides_comes_first(server):
    transport = connect(server.entry(), "paramiko", config_file=server.config)
    try:
        transport.open()
        assert transport._transport.local_cipher == "aes128-gcm@openssh.com"
    finally:
        transport.close()
