import pytest

from tests.hosts import sshd


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One sshd for all tests that do not change it."""
    server = sshd.make(tmp_path_factory.mktemp("sshd"))
    yield server
    server.stop()
