import pytest

from dsdoctor.hosts.hostfile import local_entry
from dsdoctor.hosts.transport import connect
from tests.hosts import sshd


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One sshd for all tests that do not change it."""
    server = sshd.make(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()


@pytest.fixture(params=["local", "openssh", "paramiko", "swift"])
def kind(request):
    return request.param


@pytest.fixture
def transport(kind, request):
    """A transport of each kind to this machine."""
    if kind == "local":
        transport = connect(local_entry(1))
    else:
        server = request.getfixturevalue("server")
        many = {"kind": "auto", "one_of_many": True} if kind == "swift" else {"kind": kind}
        transport = connect(server.entry(), config_file=server.config, **many)
    yield transport
    transport.close()


@pytest.fixture(params=["openssh", "paramiko"])
def reach(request):
    """`reach(entry, config)` gives a transport of each kind that goes over ssh; all are closed afterwards."""
    opened = []

    def reach(entry, config, timeout=3.0):
        transport = connect(entry, request.param, timeout=timeout, config_file=config)
        opened.append(transport)
        return transport

    reach.kind = request.param
    yield reach
    for transport in opened:
        transport.close()
