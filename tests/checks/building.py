"""A case of a check (`dsdoctor/checks/cases/*.yaml`) made into values: composed snapshots, changed, and a job."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from dsdoctor import yamlfile
from dsdoctor.checks.casefile import Case, CaseJob
from dsdoctor.cluster import Cluster, HostEntry, Member, Reach
from dsdoctor.facts import HostFacts, Section, Snapshot
from dsdoctor.jobs.accelerate import accelerate_config
from dsdoctor.jobs.job import Job, ResolvedJob, Stage, StageSettings
from dsdoctor.jobs.program import read_program
from dsdoctor.jobs.relaxed import parse_relaxed
from dsdoctor.jobs.requirements import JobRequirement
from dsdoctor.jobs.script.read import read_script
from dsdoctor.jobs.script.resolve import resolve_script

COMPOSED = Path(__file__).parent.parent / "snapshots" / "composed"


def snapshots(folder: str) -> dict[str, Snapshot]:
    """The composed hosts of a cluster, by name."""
    paths = sorted((COMPOSED / folder).glob("*.json"))
    found = [msgspec.json.decode(path.read_bytes(), type=Snapshot) for path in paths]
    return {snapshot.host: snapshot for snapshot in found}


def cluster_of(case: Case) -> Cluster | None:
    """The cluster that a case describes; None for a case with no hosts."""
    if case.cluster is None:
        return None
    known = snapshots(case.cluster)
    names = case.hosts or tuple(known)
    for mapping in (case.change, case.missing, case.entries, case.reach):
        strangers = set(mapping) - {*names, "*"}
        assert not strangers, f"{case.name}: no such host: {strangers}"
    return Cluster(tuple(_member(case, known[name]) for name in names), master_addr=case.master_addr)


def _member(case: Case, snapshot: Snapshot) -> Member:
    name = snapshot.host
    sections = {key: copy.deepcopy(msgspec.to_builtins(section)) for key, section in snapshot.sections.items()}
    for host in ("*", name):
        for section, change in case.change.get(host, {}).items():
            assert hasattr(HostFacts, section), f"{case.name}: no section {section}"
            sections[section] = {"value": laid_over(sections.get(section, {}).get("value", {}), change)}
        for section, reason in case.missing.get(host, {}).items():
            sections[section] = {"error": reason}
    made = {key: msgspec.convert(section, Section) for key, section in sections.items()}
    facts = HostFacts(Snapshot(host=name, origin=snapshot.origin, sections=made))
    for section, changed in {**case.change.get("*", {}), **case.change.get(name, {})}.items():
        if changed and section not in {**case.missing.get("*", {}), **case.missing.get(name, {})}:
            getattr(facts, section)  # a change that makes the section unreadable is a mistake in the case
    slots = len(sections["gpu"]["value"]["gpus"]) if "value" in sections["gpu"] else 2
    entry = HostEntry(**{"name": name, "slots": slots, **case.entries.get("*", {}), **case.entries.get(name, {})})
    reach = case.reach.get(name)
    if reach is not None:
        return Member(entry, Reach(ok=False, problem=reach.problem, detail=reach.detail))  # type: ignore[arg-type]
    return Member(entry, Reach(ok=True), facts)


def laid_over(base: Any, change: Any) -> Any:
    """`change` over `base`: mappings are merged, in a list `0:` or `"*":` name elements, everything else replaces."""
    if isinstance(base, dict) and isinstance(change, dict):
        return {**base, **{key: laid_over(base.get(key), value) for key, value in change.items()}}
    if isinstance(base, list) and isinstance(change, dict):
        result = list(base)
        for key, value in change.items():
            for place in range(len(result)) if key == "*" else [int(key)]:
                result[place] = laid_over(result[place], value)
        return result
    return change


def job_of(case: Case) -> ResolvedJob | None:
    """The job of a case, resolved."""
    return None if case.job is None else resolved(case.job)


def resolved(given: CaseJob) -> ResolvedJob:
    """A job as `jobs.resolve` would make it of a file `job.yaml`; or as it is read out of the script `job.sh`."""
    if given.shell is not None:
        return _of_script(given, given.shell)
    stages = tuple(
        StageSettings(name=name, index=index, args={**given.args, **args})
        for index, (name, args) in enumerate((given.stages or {"train": {}}).items(), 1)
    )
    job = Job(
        name=given.name,
        stages=tuple(Stage(name=stage.name) for stage in stages),
        module=None if given.script else "train",
        script=given.script,
        engine=given.engine,  # type: ignore[arg-type]
        setup=given.setup,
        precision=given.precision,  # type: ignore[arg-type]
        gpu_env=given.gpu_env,
        requires_python=given.requires_python,
        requirements=given.requirements or None,
    )
    config = None if given.deepspeed is None else parse_relaxed(given.deepspeed, "ds.json")
    accelerate = None
    if given.accelerate is not None:
        accelerate = accelerate_config(yamlfile.parse(given.accelerate), given.accelerate, "acc.yaml")
    declared = [JobRequirement(text, "job.yaml") for text in given.requirements]
    beside = [
        JobRequirement(text, "requirements.txt", line, declared=False) for line, text in enumerate(given.beside, 1)
    ]
    return ResolvedJob(
        job=job,
        source="job.yaml",
        root=".",
        profile=None,
        stages=stages,
        env=given.env,
        present=frozenset(given.present),
        deepspeed=config,
        requirements=(*declared, *beside),
        accelerate=accelerate,
    )


def _of_script(given: CaseJob, text: str) -> ResolvedJob:
    def open_file(name: str) -> tuple[str, str] | None:
        return (given.files[name], name) if name in given.files else None

    job = resolve_script(read_script(text, "job.sh"), ".", open_file)
    programs = {name: read_program(text, name) for name, text in given.files.items() if name.endswith(".py")}
    parts = tuple(replace(part, programs=programs, bad_files=job.bad_files) for part in job.parts)
    return replace(job, programs=programs, parts=parts)


def load_cluster(folder: str, names: tuple[str, ...] = ()) -> Cluster:
    """A composed cluster as it is."""
    found = cluster_of(Case(name=folder, why="as it is", expect=(), cluster=folder, hosts=names))
    assert found is not None
    return found


def as_text(value: Any) -> str:
    """A value for the message of a failed test."""
    return json.dumps(msgspec.to_builtins(value), indent=1, ensure_ascii=False)
