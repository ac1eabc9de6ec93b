"""Lists in columns, and facts as text."""

import json
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st
from inline_snapshot import snapshot

from dsdoctor.facts import Section, Snapshot
from dsdoctor.report.facts_text import render
from dsdoctor.report.layout import Look
from dsdoctor.report.pages import listing

ROWS = [("low-shm", "warning", "Shared memory is small, nearly full or not writable."), ("a", "error", "Short.")]


def test_a_list_in_columns() -> None:
    assert listing(ROWS, Look(width=60)) == snapshot("""\
low-shm  warning  Shared memory is small, nearly full or not
                  writable.
a        error    Short.
""")


def test_a_list_on_a_screen_too_narrow_for_columns() -> None:
    assert listing(ROWS, Look(width=40)) == snapshot("""\
low-shm  warning
    Shared memory is small, nearly full
    or not writable.
a  error
    Short.
""")


def test_no_rows_is_no_text() -> None:
    assert listing([], Look()) == ""


HOST = Snapshot(
    host="gpu01",
    origin="composed by hand",
    recorded_at="2026-01-15T08:00:00Z",
    sections={
        "limits": Section({"nofile": {"soft": 1024, "hard": None}}),
        "memory": Section({"total_bytes": 2**34, "cgroup_limit_bytes": None}),
        "cpu": Section({"flags": [f"f{n}" for n in range(14)], "cores": 8, "numa_nodes": 2}),
        "packages": Section(
            {"distributions": [{"name": f"p{n}", "version": "1", "editable": n == 1} for n in range(12)]}
        ),
        "nccl": Section(error="the folder hangs"),
        "infiniband": Section({"devices": [], "peermem_loaded": False}),
    },
)


def test_facts_of_a_host() -> None:
    assert render([HOST], {"gpu02": "refused: no sshd"}, Look()) == snapshot("""\
gpu01
  composed by hand, 2026-01-15T08:00:00Z
  limits
    nofile
      soft  1024
      hard  unlimited
  memory
    total_bytes         17179869184 (16.0 GiB)
    cgroup_limit_bytes  -
  cpu
    flags       f0, f1, f2, f3, f4, f5, f6, f7, f8, f9 and 4 more
    cores       8
    numa_nodes  2
  packages
    distributions
      · p0 1
      · p1 1 editable=yes
      · p2 1
      · p3 1
      · p4 1
      · p5 1
      · p6 1
      · p7 1
      · p8 1
      · p9 1
      … 2 more (--section shows all)
  nccl: not known, the folder hangs
  infiniband
    devices         -
    peermem_loaded  no

gpu02  could not be examined: refused: no sshd
""")


def test_a_long_mapping_of_rows_is_cut_and_one_of_fields_is_not() -> None:
    rows = {f"p{index}": {"python": ">=3.9"} for index in range(12)}
    fields = {f"field{index}": index for index in range(12)}
    host = Snapshot(host="a", sections={"requirements": Section({"packages": rows}), "x": Section(fields)})
    text = render([host], {}, Look())
    assert "p9" in text and "p10" not in text and "… 2 more (--section shows all)" in text
    assert "field11" in text
    assert "p11" in render([host], {}, Look(), ("requirements",))


def test_one_section_in_full_length() -> None:
    text = render([HOST], {}, Look(), ("packages", "os"))
    assert "p11 1" in text
    assert "os: not in this snapshot" in text
    assert "cpu" not in text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=100)
@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=3), st.text(max_size=8), st.none() | st.integers(40, 90))
def test_whatever_a_host_says_no_control_reaches_the_screen(sections: dict, host: str, width: int | None) -> None:
    sections = json.loads(json.dumps(sections))
    snapshot = Snapshot(host=host, sections={name: Section(value) for name, value in sections.items()})
    text = render([snapshot], {host: host}, Look(width))
    assert not [c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
