"""Finding and reading job files: a path, then `./launch/NAME.yaml`, then the shipped ones."""

from __future__ import annotations

import difflib
import posixpath
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from dsdoctor import yamlfile
from dsdoctor.jobs.dsconfig import parse_config
from dsdoctor.jobs.job import DeepSpeedConfig, ResolvedJob, parse_job, resolve
from dsdoctor.jobs.paths import is_copied, named_paths
from dsdoctor.jobs.requirements import JobRequirement, parse_requirements
from dsdoctor.jobs.trees import JobTree, declared, named
from dsdoctor.resources import folder
from dsdoctor.yamlfile import FileError

SUFFIXES = (".yaml", ".yml")


def load_job(name_or_path: str, profile: str | None = None, settings: Sequence[str] = ()) -> ResolvedJob:
    """The job of that name or in that file, with profile and `KEY=VALUE` settings laid over it.

    Raises:
        FileError: there is no such job (with "did you mean"), or its file cannot be used.
    """
    path = find_job(name_or_path)
    _refuse_other_kinds(path)
    job = parse_job(yamlfile.read_text(path), str(path))

    def read_deepspeed(name: str) -> DeepSpeedConfig:
        config = path.parent / Path(name).expanduser()
        if not config.exists() and (folder("templates") / name).exists():
            config = folder("templates") / name
        return parse_config(yamlfile.read_text(config), str(config))

    resolved = resolve(job, str(path), profile=profile, settings=settings, read_deepspeed=read_deepspeed)
    return _with_requirements(_with_present(_with_trees(resolved)))


def _with_trees(job: ResolvedJob) -> ResolvedJob:
    """The job with the data and model that it names, which must be here."""
    trees = []
    for kind, given in declared(job.job):
        path = _absolute(job, f"sync.{kind}", given.path)
        if not named(job, kind, str(path), given.at == "same"):
            continue
        if not path.exists():
            raise FileError(
                job.source,
                f"sync.{kind}: {path} is not here. Name the folder or file as it is on this machine (a relative path "
                "begins at the job file); what every host has anyway needs no such line",
            )
        try:
            next(path.iterdir(), None) if path.is_dir() else path.open("rb").close()
        except OSError as error:
            raise FileError(job.source, f"sync.{kind}: {path} cannot be read: {error.strerror}") from None
        trees.append(JobTree(kind, str(path), path.is_file(), given.at == "same"))
    return replace(job, trees=tuple(trees))


def _absolute(job: ResolvedJob, key: str, text: str) -> Path:
    try:
        path = Path(posixpath.normpath((Path(job.root) / Path(text).expanduser()).absolute()))  # a link keeps its name
    except (RuntimeError, ValueError) as error:  # ~nobody; a byte 0
        raise FileError(job.source, f"{key}: {text!r} is no path: {error}") from None
    if not text or not path.name or "\n" in str(path):
        raise FileError(job.source, f"{key}: {text!r} is no folder or file that could be copied")
    return path


def _with_present(job: ResolvedJob) -> ResolvedJob:
    """The job with what of its paths is copied, with the code or as data or model, and so is on every host then."""
    code = Path(job.root) / job.job.sync.code
    there = set()
    for one in named_paths(job):
        with suppress(OSError):  # a name too long for the file system
            in_code = one.relative and (code / one.path).exists() and is_copied(one.path, job.job.sync.exclude)
            if in_code or any(tree.same and _in_tree(one.path, tree) for tree in job.trees):
                there.add(one.path)
    return replace(job, present=frozenset(there))


def _in_tree(path: str, tree: JobTree) -> bool:
    return path == tree.path or (path.startswith(f"{tree.path}/") and Path(path).exists())


def _with_requirements(job: ResolvedJob) -> ResolvedJob:
    """The job with what it wants installed: as it says, or as the requirements.txt beside its code says."""
    given = job.job.requirements
    if isinstance(given, tuple):
        return replace(job, requirements=tuple(JobRequirement(text, job.source) for text in given))
    beside = Path(job.root) / job.job.sync.code / "requirements.txt"
    path = beside if given is None else Path(job.root) / Path(given).expanduser()
    if given is None and not path.is_file():
        return job

    def read(name: str, source: str) -> tuple[str, str]:
        nested = Path(source).parent / name
        return yamlfile.read_text(nested), str(nested)

    try:
        text = yamlfile.read_text(path)
        found = tuple(parse_requirements(text, str(path), read, declared=given is not None))
    except FileError:
        if given is not None:
            raise
        return job  # nobody said that it is for this job
    return replace(job, requirements=found)


def _refuse_other_kinds(path: Path) -> None:
    """Say of a script or a config that it is none of the files that are carried out. Raises FileError."""
    if path.suffix in SUFFIXES:
        return
    raise FileError(
        path,
        "not a job file (.yaml), which is wanted here; `dsdoctor check --job` judges scripts, configs and programs, "
        f"and `dsdoctor jobs --from {shlex.quote(str(path))}` prints the job file that a script amounts to",
    )


def find_job(name_or_path: str) -> Path:
    """The file of a job: as a path, in `./launch`, or shipped. Raises FileError."""
    given = Path(name_or_path).expanduser()
    if given.suffix in SUFFIXES or "/" in name_or_path:
        if not given.is_file():
            raise FileError(name_or_path, "there is no such job file" if not given.exists() else "not a file")
        return given
    for place in places():
        for suffix in SUFFIXES:
            if (place / f"{name_or_path}{suffix}").is_file():
                return place / f"{name_or_path}{suffix}"
    if given.is_file():  # order_1.sh, without a folder before it
        return given
    known = sorted({path.stem for path in job_files()})
    close = difflib.get_close_matches(name_or_path, known, n=1)
    near = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known) or 'none'}"
    raise FileError(name_or_path, f"there is no job of that name; {near} (dsdoctor jobs lists them; a path works too)")


def places() -> tuple[Path, ...]:
    """The folders that jobs are looked for in, the nearest first."""
    return (Path("launch"), folder("launch"))


def job_files() -> list[Path]:
    """All job files by name; a near one hides a shipped one of the same name."""
    found: dict[str, Path] = {}
    for place in places():
        for path in sorted(place.glob("*")) if place.is_dir() else []:
            if path.suffix in SUFFIXES:
                found.setdefault(path.stem, path)
    return list(found.values())
