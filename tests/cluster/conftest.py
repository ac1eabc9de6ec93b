"""Fixtures of the little cluster. Whoever changes a shared cluster asks for `restored`, which puts it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.fakegpu import library_folder, missing_for_fake_gpus
from tests.cluster.little_cluster import LittleCluster
from tests.cluster.prerequisites import missing_for_cluster, skip_or_fail

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder that uses a cluster; the marker is how `-m 'not cluster'` leaves them out."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def two_hosts() -> Iterator[LittleCluster]:
    """A head (eth0), node0 (bond0) and node1 (eno1), shared by all tests: leave it as it was, or use `restored`."""
    skip_or_fail(missing_for_cluster())
    with LittleCluster() as cluster:
        yield cluster


@pytest.fixture
def restored(two_hosts: LittleCluster) -> Iterator[LittleCluster]:
    """The same cluster, put back to its first boot after the test (0.3 s), whatever the test did to it."""
    try:
        yield two_hosts
    finally:
        two_hosts.reset()


@pytest.fixture
def fresh_cluster() -> Iterator[Callable[..., LittleCluster]]:
    """Makes clusters of the test's own, with LittleCluster's arguments; they are taken down after it."""
    skip_or_fail(missing_for_cluster())
    with ExitStack() as clusters:

        def make(*arguments: Any, **options: Any) -> LittleCluster:
            return clusters.enter_context(LittleCluster(*arguments, **options))

        yield make


@pytest.fixture(scope="session")
def fake_nvml() -> Path:
    """A folder with the stand-in libnvidia-ml.so.1; hosts can be given GPUs (`host.install_fake_gpus`) with it."""
    skip_or_fail(missing_for_fake_gpus())
    return library_folder()
