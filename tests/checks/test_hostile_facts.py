"""Facts of any kind: whatever a host answers, no check may break over it, and no two runs may differ."""

from __future__ import annotations

import copy
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from dsdoctor.checks import run_checks
from dsdoctor.checks.casefile import CaseJob
from dsdoctor.cluster import Cluster, Member, Reach, ReachProblem
from dsdoctor.facts import HostFacts, Section, Snapshot
from tests.checks.building import laid_over, load_cluster, resolved

ODD: tuple[Any, ...] = (None, "", "\x1b[2J'\"; $(id)", -1, 1 << 62, True, [], "9" * 400)

JOB = resolved(
    CaseJob(
        precision="bf16",
        args={"bf16": True, "fp16": "${precision}", "num_proc": "1024", "lr_scheduler_type": 3, "warmup_steps": "few"},
        env={"NCCL_SOCKET_IFNAME": "=eno1", "NCCL_IB_DISABL": "1"},
        gpu_env={"V100": {"GLOO_SOCKET_IFNAME": "eno1"}},
        deepspeed='{"scheduler": {"type": "WarmupLR", "params": []}, "fp16": 3, "bf16": {"enabled": []}, "amp": null}',
    )
)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything in a value, the value itself among them."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for place, item in enumerate(value[:2]):
            yield from leaves(item, (*path, place))


def changed(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    result = copy.copy(value)
    result[path[0]] = changed(value[path[0]], path[1:], odd)
    return result


def with_section(cluster: Cluster, section: str, value: Any) -> Cluster:
    first, last = cluster.members
    assert last.facts is not None
    sections = {**last.facts.snapshot.sections, section: Section(value=value)}
    facts = HostFacts(Snapshot(host=last.name, sections=sections))
    return Cluster((first, Member(last.entry, last.reach, facts)))


# Sections that the composed snapshots lack, because they are not gathered unasked.
ASKED_FOR = {
    "peers": {
        "address": "192.0.2.11",
        "problems": [],
        "peers": [
            {
                "peer": "gpu-a",
                "address": "192.0.2.10",
                "ports": [{"kind": "master", "port": 29500, "error": "timed out", "round_trip_ms": 9.0}],
                "send_mbit": 94.0,
                "receive_mbit": 93.0,
            }
        ],
    },
    "deep": {
        "steps": [{"name": "torch", "seconds": 2.0, "error": "no sign of life for 15 s"}],
        "torch": {"version": "2.1.2", "cuda": "12.1", "gpus": 2, "gpu_error": "CUDA unknown error", "output": ["x"]},
        "gpus": [{"index": 0, "filled_bytes": 8, "wrong": 1, "products": {"float16": 3}, "error": None}],
        "copies": [{"source": 0, "target": 1, "peer_access": True, "numbers": 9, "wrong": 4, "zeros": 4}],
        "imports": [{"package": "xformers", "error": "ended by SIGSEGV", "output": ["undefined symbol: x"]}],
        "collectives": [
            {
                "scope": "host",
                "backend": "nccl",
                "world_size": 2,
                "expected": [0, 1],
                "hosts": ["gpu-b"],
                "address": "192.0.2.10",
                "error": "ended with exit code 1",
                "ranks": [{"rank": 0, "at": "adding", "adding": 9, "sums": [{"bytes": 9, "seconds": 1.0, "wrong": 2}]}],
                "output": [{"rank": 1, "lines": ["RuntimeError: no"]}],
            }
        ],
        "lost": "no sign of life for 15 s",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("section", [*HostFacts.sections(), *ASKED_FOR])
def test_any_value_anywhere(section: str) -> None:
    cluster = load_cluster("xuanyuan")
    facts = cluster.members[1].facts
    assert facts is not None
    known = facts.snapshot.sections.get(section)
    value = msgspec.to_builtins(known.value if known else ASKED_FOR[section])
    for path in leaves(value):
        for odd in ODD:
            outcome = run_checks(with_section(cluster, section, changed(value, path, odd)), JOB)
            assert not outcome.crashed, (path, odd, outcome.crashed[0].traceback)


# Each writes a file when a shell gets to see it unquoted. With no PATH nothing else in a command can run.
BREAKOUTS = ("1.0$(echo>PWNED)", "1.0'; echo>PWNED; '", '1.0"; echo>PWNED; "', "1.0`echo>PWNED`", "-1.0; echo>PWNED")

# Conditions under which the fixes are full of the hosts' own words.
ILL = {
    "nccl": {"owners": [{"name": "nvidia-nccl-cu11", "version": "1"}, {"name": "nvidia-nccl-cu12", "version": "2"}]},
    "gpu": {"status": "driver-not-loaded", "gpus": []},
    "driver": {"loaded": False, "module_files": []},
    "network": {"resolves": {"gpu-a": ["127.0.1.1"]}},
    "shm": {"total_bytes": 1, "free_bytes": 1},
    "limits": {"nofile": {"soft": 16, "hard": 16}},
    "bitsandbytes": {"version": "0.1", "libraries": ["libbitsandbytes_cpu.so"]},
    "environment": {"variables": {"NCCL_IB_DISABL": "1"}},
}


def commands_of(cluster: Cluster) -> set[str]:
    outcome = run_checks(cluster, JOB)
    assert not outcome.crashed, outcome.crashed[0].traceback
    return {command for finding in outcome.findings for fix in finding.fix for command in fix.commands}


@pytest.mark.slow
def test_no_word_of_a_host_becomes_a_command(tmp_path: Path) -> None:
    cluster = load_cluster("xuanyuan")
    for section, change in ILL.items():
        facts = cluster.members[1].facts
        assert facts is not None
        cluster = with_section(cluster, section, laid_over(facts.snapshot.sections[section].value, change))
    ill = cluster.members[1].facts
    assert ill is not None
    found = commands_of(cluster)
    assert len(found) > 8
    for section in ("os", "python", "packages", "torch", "nccl", "driver", "network", "environment", "bitsandbytes"):
        value = msgspec.to_builtins(ill.snapshot.sections[section].value)
        for path in leaves(value):
            for breakout in BREAKOUTS:
                found |= commands_of(with_section(cluster, section, changed(value, path, breakout)))
    for breakout in BREAKOUTS:
        entry = replace(cluster.members[1].entry, name=breakout, user=breakout, python=breakout)
        for problem in get_args(ReachProblem):
            found |= commands_of(Cluster((cluster.members[0], Member(entry, Reach(ok=False, problem=problem)))))
        found |= commands_of(Cluster((cluster.members[0], Member(entry, Reach(ok=True), ill))))
    assert len(found) > 100
    for command in found:
        words = shlex.split(command)
        for line in (command, words[-1] if words[0] == "ssh" else ""):  # this machine's shell, and the host's
            subprocess.run(
                ["/bin/sh", "-c", line], env={"PATH": "/none", "HOME": str(tmp_path)}, cwd=tmp_path, check=False,
                stdin=subprocess.DEVNULL, capture_output=True, timeout=10,
            )  # fmt: skip
            assert not list(tmp_path.glob("**/PWNED")), line


def test_a_job_of_odd_values_breaks_no_check() -> None:
    for cluster in (None, load_cluster("xuanyuan"), load_cluster("lab4090")):
        outcome = run_checks(cluster, JOB)
        assert not outcome.crashed, outcome.crashed[0].traceback
        assert outcome == run_checks(cluster, JOB)


def test_many_hosts_are_few_findings() -> None:
    one = load_cluster("lab4090").members[0]
    assert one.facts is not None
    sections = {**one.facts.snapshot.sections, "shm": Section(value={"total_bytes": 1 << 26, "free_bytes": 1 << 26})}
    members = []
    for number in range(64):
        name = f"host-{number:02}"
        facts = HostFacts(Snapshot(host=name, sections=sections))
        members.append(Member(replace(one.entry, name=name), one.reach, facts))
    began = time.monotonic()
    outcome = run_checks(Cluster(tuple(members)))
    assert time.monotonic() - began < 5
    (finding,) = [finding for finding in outcome.findings if finding.name == "low-shm"]
    assert len(finding.hosts) == 64
    assert finding.hosts == tuple(sorted(finding.hosts))
