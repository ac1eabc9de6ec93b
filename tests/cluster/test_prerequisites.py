"""Where the little cluster cannot be, its tests are skipped with the reason; where it must be, that is a failure."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.cluster import prerequisites
from tests.cluster.prerequisites import REQUIRE, missing_for_cluster, skip_or_fail


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    missing_for_cluster.cache_clear()
    yield
    missing_for_cluster.cache_clear()


def test_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert missing_for_cluster() == "the little cluster needs root (namespaces, mounts)"


def test_missing_programs_are_named_by_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: None if "ssh" in name else f"/usr/bin/{name}")
    assert missing_for_cluster() == "the little cluster needs the packages openssh-client openssh-server"


def test_namespaces_that_are_refused_are_told_in_the_kernels_words(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_or_fail(missing_for_cluster())
    missing_for_cluster.cache_clear()
    monkeypatch.setattr(prerequisites, "TRY_NAMESPACES", "echo mount: permission denied >&2; exit 1")
    assert missing_for_cluster().endswith("overlay, bridge and veth: mount: permission denied")


def test_a_reason_skips_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_or_fail("")
    monkeypatch.delenv(REQUIRE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs root"):
        skip_or_fail("needs root")
    monkeypatch.setenv(REQUIRE, "1")
    with pytest.raises(pytest.fail.Exception, match=r"needs root .*DSDOCTOR_REQUIRE_CLUSTER=1"):
        skip_or_fail("needs root")
