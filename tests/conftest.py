"""Settings for all tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Two loaded cores: how long one example takes says nothing about the code.
settings.register_profile("dsdoctor", deadline=None)
settings.load_profile("dsdoctor")

# What a developer's shell or a CI runner may have set, and what changes what dsdoctor and the training library do.
FOREIGN = ("DSDOCTOR_", "NCCL_", "GLOO_", "TORCH_", "DS_", "MASTER_", "CUDA_", "SLURM_", "PDSH_")
KEPT = ("DSDOCTOR_REQUIRE_CLUSTER", "DSDOCTOR_REQUIRE_ASSETS")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take variables that steer training or dsdoctor out of the tests' own environment."""
    for name in list(os.environ):
        if name.startswith(FOREIGN) and name not in KEPT:
            monkeypatch.delenv(name)
    yield
