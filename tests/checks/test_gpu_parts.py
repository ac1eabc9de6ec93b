"""Parts of the checks of GPUs: CUDA_VISIBLE_DEVICES as torch reads it, the Xid table, words of hosts in commands."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dsdoctor.checks import run_checks, tables
from dsdoctor.checks.job_gpus import named, pair_value
from dsdoctor.checks.visible_devices import first_stranger, visible
from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import Gpu, GpuFacts, HostFacts, Section, Snapshot
from tests.checks.building import laid_over, load_cluster

UUIDS = ["GPU-aaaa0000-1", "GPU-aaaa1111-2", "GPU-bbbb2222-3"]
WORDS = st.one_of(
    st.sampled_from(["0", "1", "2", "3", " 1", "+1", "-1", "", "1gpu", "x", "0x1", "GPU-", "MIG-1"]),
    st.sampled_from(["GPU-aaaa", "GPU-aaaa0", "GPU-aaaa1111-2", "GPU-b", "gpu-b", " GPU-b", "GPU-cccc"]),
)


@pytest.mark.parametrize(
    ("value", "seen", "stranger"),
    [
        ("0,1,2", [0, 1, 2], None),
        ("2,0", [2, 0], None),
        ("1,7,0", [1], "7"),
        ("0,-1,1", [0], "-1"),
        ("", [], ""),
        ("-1", [], "-1"),
        ("1,1", [], None),
        ("0,9,9", [], None),
        ("GPU-aaaa1111,GPU-b", [1, 2], None),
        ("GPU-aaaa,GPU-b", [], "GPU-aaaa"),  # two cards begin with it
        ("GPU-b,0", [2], "0"),
        ("MIG-1234", None, None),
        ("MIG-1,MIG-1", [], None),
        ("9" * 400, [], "9" * 400),
    ],
)
def test_what_is_visible(value: str, seen: list[int] | None, stranger: str | None) -> None:
    assert visible(value, UUIDS) == seen
    assert first_stranger(value, UUIDS) == stranger


@pytest.mark.train
@pytest.mark.slow
@given(words=st.lists(WORDS, min_size=1, max_size=5))
@example(["0", "1", "1"])
@example(["GPU-aaaa0", "GPU-aaaa0000-1"])
def test_torch_sees_as_many(words: list[str]) -> None:
    cuda: Any = pytest.importorskip("torch").cuda
    value = ",".join(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", value)
        patch.setattr(cuda, "_raw_device_count_nvml", lambda: len(UUIDS))
        patch.setattr(cuda, "_raw_device_uuid_nvml", lambda: list(UUIDS))
        count = cuda._device_count_nvml()
    seen = visible(value, UUIDS)
    assert count == (-1 if seen is None else len(seen)), value


def test_the_numbers_of_the_catalogue() -> None:
    known = tables.xids()
    assert {48, 74, 79, 94, 95, 119} <= set(known)
    assert not {13, 31, 43, 45, 63} & set(known)  # programs' errors, and what NVIDIA says to ignore
    assert all(meaning.what for meaning in known.values())


def test_cards_in_a_message() -> None:
    cards = [Gpu(index=0, name="A"), Gpu(index=3, name="B"), Gpu(index=1, name="A"), Gpu(index=4, name="")]
    assert named(cards) == "GPU 0, 1 (A); GPU 3 (B); GPU 4 (no name)"


def test_a_matrix_is_read_by_the_cards_places() -> None:
    one, other = Gpu(index=2, name="A"), Gpu(index=5, name="A")
    facts = GpuFacts(status="ok", gpus=(one, other))
    assert pair_value(facts, ((None, 7), (8, None)), one, other) == 7
    assert pair_value(facts, ((None, 7), (8, None)), other, one) == 8
    for ragged in ((), ((None,),), ((), ())):
        assert pair_value(facts, ragged, one, other) is None
    assert pair_value(facts, ((None, 7), (8, None)), one, Gpu(index=9, name="A")) is None


# Conditions under which the fixes of these checks are full of what the host says.
SICK = {
    "gpu": {
        "topology": [[0, 10], [10, 0]],
        "gpus": {
            "*": {"pcie_width": 4, "throttle_reasons": 0x40, "persistence": False, "compute_mode": 2, "mig": True},
            0: {"ecc_uncorrected_now": 1, "processes": [{"pid": 7, "memory_mib": 9000, "user": "alice"}]},
        },
    },
    "pci": {
        "registers": True,
        "gpus": {"*": {"iommu": "DMA", "bridges": ["0000:3a:00.0", "0000:3c:08.0"]}},
        "bridges": [{"address": "0000:3c:08.0", "acs": 29}],
        "nvswitches": ["0000:c1:00.0"],
    },
    "driver": {"fabric_manager_running": False},
    "kernel_log": {"xids": [{"code": 79, "address": "0000:3b:00", "text": "off"}]},
    "environment": {"variables": {"CUDA_VISIBLE_DEVICES": "0"}},
}
BREAKOUTS = ("1.0$(echo>PWNED)", "1.0'; echo>PWNED; '", '1.0"; echo>PWNED; "', "1.0`echo>PWNED`", "-1; echo>PWNED")


def sick(sections: dict[str, Any]) -> Cluster:
    first, last = load_cluster("xuanyuan").members
    assert last.facts is not None
    held = {**last.facts.snapshot.sections}
    for name, value in sections.items():
        held[name] = Section(value=value)
    return Cluster((first, Member(last.entry, last.reach, HostFacts(Snapshot(host=last.name, sections=held)))))


def sick_sections() -> dict[str, Any]:
    last = load_cluster("xuanyuan").members[1]
    assert last.facts is not None
    held = last.facts.snapshot.sections
    return {name: laid_over(msgspec.to_builtins(held[name].value), change) for name, change in SICK.items()}


def commands(cluster: Cluster) -> set[str]:
    outcome = run_checks(cluster)
    assert not outcome.crashed, outcome.crashed[0].traceback
    return {command for finding in outcome.findings for fix in finding.fix for command in fix.commands}


def test_a_sick_host_is_told_by_each_check() -> None:
    names = {finding.name for finding in run_checks(sick(sick_sections())).findings}
    assert {
        "acs-redirects-p2p", "fabric-manager-down", "gpu-busy", "gpu-compute-mode", "gpu-ecc-errors", "gpu-throttled",
        "gpu-xid", "gpus-hidden", "iommu-translates-p2p", "mig-enabled", "mixed-gpus", "pcie-link-degraded",
        "persistence-off",
    } <= names  # fmt: skip


def texts(value: Any) -> set[str]:
    """All texts in a value."""
    if isinstance(value, str):
        return {value}
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(texts, items))


def replaced(value: Any, old: str, new: str) -> Any:
    """The value with another text wherever one stands: an address on the bus is named in several places."""
    if isinstance(value, dict):
        return {key: replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [replaced(item, old, new) for item in value]
    return new if value == old else value


@pytest.mark.slow
def test_no_word_of_a_host_becomes_a_command(tmp_path: Path) -> None:
    whole = sick_sections()
    found = commands(sick(whole))
    assert len(found) > 15
    for text in sorted(texts(whole)):
        for breakout in BREAKOUTS:
            found |= commands(sick(replaced(whole, text, breakout)))
    assert any("PWNED" in command for command in found)
    for command in found:
        words = shlex.split(command)
        for line in (command, words[-1] if words[0] == "ssh" else ""):
            subprocess.run(
                ["/bin/sh", "-c", line], env={"PATH": "/none", "HOME": str(tmp_path)}, cwd=tmp_path, check=False,
                stdin=subprocess.DEVNULL, capture_output=True, timeout=10,
            )  # fmt: skip
            assert not list(tmp_path.glob("**/PWNED")), line


def test_many_hosts_of_many_cards_are_judged_quickly() -> None:
    one = load_cluster("a100pair").members[0]
    assert one.facts is not None
    sections = one.facts.snapshot.sections
    members = tuple(
        Member(one.entry, one.reach, HostFacts(Snapshot(host=f"h{number}", sections=sections))) for number in range(64)
    )
    ours = ("p2p-unavailable", "nvlink-down", "mixed-gpus", "gpu-xid", "pcie-link-degraded")
    began = time.monotonic()
    assert not run_checks(Cluster(members), select=ours).findings
    assert time.monotonic() - began < 2
