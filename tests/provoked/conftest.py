"""Fixtures of the provoked failures: those in sandboxes are begun ahead of their tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import restored, two_hosts
from tests.provoked.ahead import Ahead
from tests.provoked.failure import failures
from tests.provoked.stage import missing_for

__all__ = ["ahead", "restored", "two_hosts"]


@pytest.fixture(scope="session")
def ahead(request: pytest.FixtureRequest) -> Iterator[Ahead]:
    """The failures of the tests that were asked for, under way in their order."""
    wanted = [
        failures()[item.callspec.params["name"]]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and "ahead" in item.fixturenames
        and item.path.parent == Path(__file__).parent
    ]
    with Ahead(each for each in wanted if not each.everywhere and not missing_for(each)) as under_way:
        yield under_way
