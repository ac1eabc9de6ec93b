"""What a run computes: its settings and the files of its code, kept so that a later launch can tell a change."""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.plan.layers import is_secret

SETTINGS, CODE = "config.json", "code.json"  # in the run's directory
SHOWN = 12  # changes that are told one by one
LARGEST = 2 << 20  # bytes of a file that is looked into; a larger one is no code
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
    }


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
