"""What a run computes: its settings, the files of its code, of its data and of its model.

Kept with the run, so that a later launch can tell a change.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.plan.layers import is_secret

SETTINGS, CODE, TREES = "config.json", "code.json", "trees.json"  # in the run's directory
SHOWN = 12  # changes that are told one by one
LARGEST = 2 << 20  # bytes of a file that is looked into; a larger one is no code
SMALL = 1 << 16  # bytes of a file of data of which the content is compared
LISTED = 5000  # files of a tree that are remembered one by one
# What programs are made of. Data, weights and logs beside the code are no change of it.
KINDS = frozenset(
    {
        *(".py", ".pyx", ".pyi", ".sh", ".cu", ".cuh", ".c", ".cc", ".cpp", ".h", ".hpp"),
        *(".yaml", ".yml", ".json", ".toml", ".cfg", ".ini", ".jinja", ".jinja2", ".txt"),
    }
)
FOLDERS_LEFT_OUT = (".git", "__pycache__", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", "node_modules")


def settings_of(job: ResolvedJob) -> dict[str, Any]:
    """What the job computes, by the names that its file has; hosts, addresses and folders do not count."""
    return {
        "engine": job.job.engine,
        "program": job.job.module or job.job.script,
        "stages": [stage.name for stage in job.stages],  # their order is part of the work
        "args": {stage.name: stage.args for stage in job.stages},
        "stage env": {stage.name: _bare(stage.env) for stage in job.stages},
        "env": _bare(job.env),
        "gpu_env": {kind: _bare(env) for kind, env in job.job.gpu_env.items()},
        "precision": job.job.precision,
        "deepspeed": job.deepspeed.value if job.deepspeed else None,
        "sync": paths_of_trees(job),
    }


def paths_of_trees(job: ResolvedJob) -> dict[str, str]:
    """Which data and which model the job has copied to its hosts: their paths on this machine."""
    return {tree.kind: tree.path for tree in job.trees}


def _bare(env: Mapping[str, Any]) -> dict[str, Any]:
    """Variables without the values of secrets: that one was given anew is no other work."""
    return {name: "(secret)" if is_secret(name, str(value)) else value for name, value in env.items()}


def code_of(folder: Path, exclude: Sequence[str]) -> dict[str, str]:
    """A digest of every file of the code, by its path below the folder; what is not copied to hosts is left out."""
    found = {}
    for path in _files(folder, exclude):
        try:
            content = path.read_bytes()
        except OSError:
            continue
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(content).hexdigest()[:16]
    return found


def trees_of(job: ResolvedJob) -> dict[str, dict[str, str]]:
    """What the job's data and model hold: for each a mark of every file, by its path below the tree.

    Of a small file the mark is a digest of its content, of a large one its size and time: weights are not read to ask
    whether they are the same. Where there are more than `LISTED` files, one mark stands for all.
    """
    found: dict[str, dict[str, str]] = {}
    for tree in job.trees:
        root = Path(tree.path)
        marks = {}
        for path in [root] if root.is_file() else _all_files(root):
            with suppress(OSError):  # gone meanwhile, or not ours to read: the copying says so
                marks[path.relative_to(root).as_posix() if path != root else root.name] = _mark(path)
        if len(marks) > LISTED:
            whole = hashlib.sha256(
                "\0".join(f"{name}\0{mark}" for name, mark in marks.items()).encode("utf-8", "replace")
            )
            marks = {f"one of its {len(marks)} files": whole.hexdigest()[:16]}
        found[tree.kind] = marks
    return found


def _all_files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent) / name for name in sorted(names))


def _mark(path: Path) -> str:
    """Raises OSError."""
    seen = path.stat()
    if seen.st_size > SMALL:
        return f"{seen.st_size} bytes of {seen.st_mtime_ns}"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def tree_changes(before: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The files of the data and of the model that differ, one line each."""
    both = sorted(before.keys() & now.keys())  # one that was not there before is in the settings
    return [f"{kind}: {line}" for kind in both for line in code_changes(before[kind], now[kind])]


def _files(folder: Path, exclude: Sequence[str]) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        at = Path(parent)
        folders[:] = sorted(
            name
            for name in folders
            if name not in FOLDERS_LEFT_OUT
            and not (at / name / "state.json").is_file()  # a run's directory
            and not _excluded(at / name, folder, exclude)
        )
        for name in sorted(names):
            path = at / name
            if path.suffix not in KINDS or _excluded(path, folder, exclude):
                continue
            if path.is_file() and path.stat().st_size <= LARGEST:
                yield path


def _excluded(path: Path, folder: Path, exclude: Sequence[str]) -> bool:
    """Whether a pattern of rsync takes a path out: anchored by a slash at its front, else by its last parts."""
    below = path.relative_to(folder).as_posix()
    for pattern in exclude:
        bare = pattern.strip("/")
        names = [below] if pattern.startswith("/") else [below, path.name]
        if any(fnmatch.fnmatchcase(name, bare) for name in names):
            return True
    return False


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of the settings differs, one line each: `args.second.lr: 1e-4 → 1e-3`."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return [
        f"{name}: {_shown(old, name)} → {_shown(new, name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name) or (name in old) != (name in new)
    ]


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "not set"


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, list(value) if isinstance(value, tuple) else value


def code_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The files of the code that differ, one line each."""
    lines = [f"{name} was changed" for name in sorted(before.keys() & now.keys()) if before[name] != now[name]]
    lines += [f"{name} is new" for name in sorted(now.keys() - before.keys())]
    lines += [f"{name} is gone" for name in sorted(before.keys() - now.keys())]
    return lines


def cut(lines: list[str]) -> list[str]:
    """As many lines as are told, and how many more there are."""
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more"]
