"""Values of variables, read as NCCL and torch read them, with the C library as the witness for numbers."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from dsdoctor.checks.env_values import judge_value, reads_as
from dsdoctor.checks.tables import values, variables
from dsdoctor.report.model import Severity

NCCL = Version("2.27.5")


def strtoll(value: str) -> int:
    library = ctypes.CDLL(None)
    library.strtoll.restype = ctypes.c_longlong
    return int(library.strtoll(value.encode(), None, 0))


@given(st.text("0123456789xXabfF+- tru", max_size=8))
def test_numbers_are_read_as_the_c_library_reads_them(value: str) -> None:
    assert reads_as(value) == strtoll(value)


@pytest.mark.parametrize("value", ["9" * 30, "-" + "9" * 5000])
def test_numbers_beyond_64_bits(value: str) -> None:
    assert reads_as(value) == 1 << 63
    assert judge_value("NCCL_IB_TIMEOUT", value, NCCL) is not None


@given(
    st.sampled_from(sorted({*variables().nccl, *variables().torch, *variables().renamed, "NCCL_MADE_UP"})),
    st.text(max_size=12),
    st.sampled_from([None, NCCL, Version("2.18.1")]),
)
def test_any_value_is_judged_and_what_is_meant_is_right(name: str, value: str, nccl: Version | None) -> None:
    problem = judge_value(name, value, nccl)
    if problem is None:
        return
    assert problem.message.startswith(name)
    if problem.wanted and problem.wanted != value and "quotes" not in problem.message:
        again = judge_value(name, problem.wanted, nccl)
        assert again is None or again.message != problem.message


def test_the_table_holds_names_that_are_known() -> None:
    table, known = values(), variables()
    torch = {*known.torch, *known.renamed}
    assert {*table.text, *table.words, *table.lists, *table.levels, *table.ranges} <= set(known.nccl)
    assert {*table.torch_switches, *table.torch_numbers, *table.torch_words} <= torch
    assert not set(table.ranges) & set(table.text)


@pytest.mark.parametrize("value", ["OFF", "info", "Detail", "DEBUG", "1", ""])
@pytest.mark.train
@pytest.mark.slow
def test_torch_takes_the_words_for_its_debug_level(value: str) -> None:
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c", "import torch.distributed"],
        env={"TORCH_DISTRIBUTED_DEBUG": value, "PATH": ""},
        capture_output=True,
        timeout=120,
        check=False,
    )
    problem = judge_value("TORCH_DISTRIBUTED_DEBUG", value, None)
    assert (done.returncode != 0) is (problem is not None and problem.severity is Severity.ERROR)
