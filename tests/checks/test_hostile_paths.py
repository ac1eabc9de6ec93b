"""The job's paths, caches and sessions with anything in them: no check breaks, and no word of a host is run."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.checks import run_checks
from dsdoctor.checks.casefile import CaseJob
from dsdoctor.cluster import Cluster
from tests.checks.building import load_cluster, resolved
from tests.checks.test_hostile_facts import BREAKOUTS, ODD, changed, leaves, with_section

PATH = {
    "path": "/m", "role": "model", "at": "/m", "kind": "folder", "nearest": "/m", "files": 2, "total_bytes": 9,
    "digest": "aa", "entries": [{"name": "config.json", "files": 1, "total_bytes": 2, "digest": "x"}],
    "unreadable": ["x"], "unreadable_count": 1, "pointers": ["model.safetensors"],
    "model": {
        "model_type": "t5", "tokenizer_class": "LLaMATokenizer", "weights": "bin", "weights_bytes": 1 << 50,
        "largest_bytes": 1 << 50, "shards": 3, "missing": ["a"], "cut_off": ["b"], "broken": ["c"],
    },
}  # fmt: skip
OUT = {"path": "/o", "role": "output", "at": "/o", "kind": "folder", "checkpoints": ["checkpoint-1"], "newest": 1.0}
LOG = {"path": "/l/x/y", "role": "log", "at": "/l/x/y", "kind": "missing", "nearest": "/l"}
GONE = {"path": "/d", "role": "data", "at": "/d", "kind": "missing", "nearest": "/"}
BUILD = {"name": "py310_cu121/cpu_adam", "path": "/c/cpu_adam", "built": True, "native": True, "lock_age_seconds": 9e4}
SECTIONS: dict[str, Any] = {
    "inputs": {"paths": [PATH, GONE]},
    "extensions": {
        "folder": "/home/alice/.cache/torch_extensions", "exists": True, "filesystem": "nfs4", "source": "nas:/home",
        "environment": "py310_cu121", "lock_kind": "file", "builds": [BUILD],
    },
    "session": {
        "shell": "/bin/bash", "shell_seconds": 9.0, "printed": "hello\n", "logind": True, "login_session": None,
        "remove_ipc": True, "kill_user_processes": True, "lingers": False,
    },
    "disk": {
        "paths": [
            {"path": "/a", "roles": ["home"], "exists": True, "total_bytes": 9, "free_bytes": 0, "source": "/dev/a"},
            {"path": "/b", "roles": ["output"], "exists": False, "total_bytes": 0, "free_bytes": 0, "mount": "/b",
             "error": "the mount hangs"},
        ]
    },
    "limits": {
        "nofile": {"soft": 1, "hard": 1}, "memlock": {"soft": 1, "hard": 1}, "stack": {"soft": None, "hard": None},
        "nproc": {"soft": 1, "hard": 1}, "cgroup_pids": 9, "cgroup_pids_used": 3,
    },
}  # fmt: skip
MORE = {"inputs": {"paths": [OUT, LOG]}}  # in a list only the first two are gone through

JOB = resolved(
    CaseJob(
        script="src/run_uie_lora.py",
        args={"model_name_or_path": "/m", "data_dir": "/d", "output_dir": "/o", "log_file": "/l/x/y"},
        setup=("conda activate $(echo>PWNED)",),
        deepspeed='{"zero_optimization": {"stage": 3}}',
    )
)


def ill(**sections: Any) -> Cluster:
    """The cluster with a second host on which all of this is wrong."""
    cluster = load_cluster("xuanyuan")
    first = cluster.members[0]
    assert first.facts is not None
    for name, value in {**SECTIONS, **sections}.items():
        cluster = with_section(cluster, name, value)
    return cluster


def names_of(cluster: Cluster) -> set[str]:
    outcome = run_checks(cluster, JOB)
    assert not outcome.crashed, outcome.crashed[0].traceback
    return {finding.name for finding in outcome.findings}


def test_all_of_it_at_once_is_found() -> None:
    found = names_of(ill())
    assert {
        "missing-input", "unreadable-input", "git-lfs-pointer", "incomplete-model", "known-bad-model", "low-memory",
        "stale-extension-lock", "shell-noise", "slow-shell", "disk-full", "hanging-mount", "unwritable-folder",
        "unlimited-stack", "low-nproc", "conda-activate",
    } <= found  # fmt: skip
    assert {"stale-outputs", "missing-log-folder"} <= names_of(ill(inputs=MORE["inputs"]))


CASES = [*SECTIONS.items(), *MORE.items()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("section", "value"), CASES, ids=[f"{number}-{name}" for number, (name, _) in enumerate(CASES)]
)
def test_any_value_anywhere(section: str, value: Any) -> None:
    for path in leaves(value):
        for odd in (*ODD, "a\nb", 1e308):
            names_of(ill(**{section: changed(value, path, odd)}))


@pytest.mark.slow
def test_no_word_of_a_host_becomes_a_command(tmp_path: Path) -> None:
    found: set[str] = set()
    for section, value in CASES:
        for path in leaves(value):
            for breakout in BREAKOUTS:
                cluster = ill(**{section: changed(value, path, breakout)})
                for local in (False, True):
                    last = cluster.members[1]
                    members = (cluster.members[0], replace(last, entry=replace(last.entry, local=local)))
                    outcome = run_checks(Cluster(members), JOB)
                    found |= {line for finding in outcome.findings for fix in finding.fix for line in fix.commands}
    assert len(found) > 100
    for command in found:
        words = shlex.split(command)
        for line in (command, words[-1] if words[0] == "ssh" else ""):
            subprocess.run(
                ["/bin/sh", "-c", line], env={"PATH": "/none", "HOME": str(tmp_path)}, cwd=tmp_path, check=False,
                stdin=subprocess.DEVNULL, capture_output=True, timeout=10,
            )  # fmt: skip
            assert not list(tmp_path.glob("**/PWNED")), line


@pytest.mark.parametrize("name", ["/data/my 'set'", "/data/`echo>PWNED`", "/data/-x", "/data/a\nb", "/data/ä 语"])
def test_a_copy_that_is_pasted_does_what_it_says(tmp_path: Path, name: str) -> None:
    """The shell line of missing-input, with both hosts this machine."""
    source, target = tmp_path / "a", tmp_path / "b"
    (source / name.lstrip("/")).mkdir(parents=True)
    (source / name.lstrip("/") / "train.json").write_text("[]")
    given = {"path": name, "role": "data", "at": str(source) + name, "kind": "folder"}
    wanted = {**given, "at": str(target) + name, "kind": "missing", "nearest": str(target)}
    cluster = load_cluster("xuanyuan")
    members = []
    for member, path in zip(cluster.members, (given, wanted), strict=True):
        only = with_section(Cluster((cluster.members[0], member)), "inputs", {"paths": [path]}).members[1]
        members.append(replace(only, entry=replace(only.entry, local=True)))
    outcome = run_checks(Cluster(tuple(members)), resolved(CaseJob(args={"data_dir": name})), select=["missing-input"])
    ((command,),) = (fix.commands for fix in outcome.findings[0].fix)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, timeout=20)
    assert (target / name.lstrip("/") / "train.json").read_text() == "[]"
    assert not (tmp_path / "PWNED").exists()


def test_the_lock_is_removed_unless_somebody_holds_it(tmp_path: Path) -> None:
    """The command of stale-extension-lock, run as it is pasted."""
    folder = tmp_path / "a 'b' $c"
    folder.mkdir()
    lock = folder / "lock"
    lock.touch()
    build = {**BUILD, "path": str(folder)}
    cluster = ill(extensions={**SECTIONS["extensions"], "builds": [build]})
    last = cluster.members[1]
    assert last.facts is not None
    cluster = with_section(cluster, "python", {"version": "3.11.0", "executable": sys.executable})
    last = cluster.members[1]
    members = (cluster.members[0], replace(last, entry=replace(last.entry, local=True)))
    outcome = run_checks(Cluster(members), JOB, select=["stale-extension-lock"])
    (fix,) = outcome.findings[0].fix
    (command,) = fix.commands
    assert fix.safe
    with lock.open():
        told = subprocess.run(["bash", "-c", command], check=True, capture_output=True, text=True, timeout=60).stdout
    assert lock.exists() and "left alone" in told
    subprocess.run(["bash", "-c", command], check=True, timeout=60)
    assert not lock.exists() and folder.exists()
