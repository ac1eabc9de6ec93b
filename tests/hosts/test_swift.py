"""The quick way to many hosts: paramiko, and ssh where that cannot follow; never a wider door."""

import pytest

from dsdoctor.hosts.gather import gather
from dsdoctor.hosts.transport import TransportError, connect
from dsdoctor.hosts.transport.openssh import OpenSSHTransport
from dsdoctor.hosts.transport.paramiko_ssh import ParamikoTransport
from tests.hosts import sshd


@pytest.fixture
def opened(request):
    """`opened(entry, config)` gives a transport and closes it afterwards."""
    made = []

    def open_one(entry, config, timeout=3.0):
        made.append(connect(entry, "auto", timeout=timeout, config_file=config, one_of_many=True))
        return made[-1]

    yield open_one
    for transport in made:
        transport.close()


def test_plain_settings_go_by_paramiko(server, opened):
    transport = opened(server.entry(), server.config)
    assert transport.run(["echo", "a b"]).stdout == b"a b\n"
    assert isinstance(transport._chosen, ParamikoTransport)
    assert transport._sure._folder is None  # no ssh client was started


def test_settings_that_paramiko_cannot_follow_go_by_ssh(server, opened, tmp_path):
    more = tmp_path / "more"
    more.write_text("Host *\n  LogLevel ERROR\n")
    config = tmp_path / "config"
    config.write_text(f"Include {more}\n{server.config.read_text()}")
    transport = opened(server.entry(), config)
    assert transport.run(["echo", "yes"]).stdout == b"yes\n"
    assert isinstance(transport._chosen, OpenSSHTransport)


def test_a_changed_host_key_is_refused_by_both(server, opened, tmp_path):
    known = tmp_path / "known"
    known.write_text(server.known(server.host_key("other")))
    config = server.write_config("config-changed", UserKnownHostsFile=known)
    with pytest.raises(TransportError) as refused:
        opened(server.entry(), config).run(["true"])
    assert refused.value.problem == "changed-key"


def test_an_unknown_host_key_is_refused_by_both(server, opened, tmp_path):
    config = server.write_config("config-unknown", UserKnownHostsFile=tmp_path / "none")
    with pytest.raises(TransportError) as refused:
        opened(server.entry(), config).run(["true"])
    assert refused.value.problem == "unknown-key"


def test_a_host_that_is_down_is_asked_once(server, opened):
    transport = opened(server.entry(port=sshd.free_port()), server.config)
    with pytest.raises(TransportError) as refused:
        transport.run(["true"])
    assert refused.value.problem == "refused"
    assert transport._sure._folder is None


def test_few_hosts_go_by_ssh_and_many_the_quick_way(server, monkeypatch):
    seen = []

    def spy(entry, kind, **options):
        seen.append(options["one_of_many"])
        return connect(entry, kind, **options)

    monkeypatch.setattr("dsdoctor.hosts.gather.connect", spy)
    for count, many in ((2, False), (8, True)):
        seen.clear()
        members = gather([server.entry()] * count, config={"sections": ["os"]}, config_file=server.config)
        assert all(member.reach.ok for member in members)
        assert seen == [many] * count
