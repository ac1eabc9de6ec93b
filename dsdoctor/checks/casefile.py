"""The cases of a check, as written in `cases/<check-name>.yaml`: a condition, and what the check must say of it.

The tests build each case out of a composed cluster and run it; `explain` shows the first one that has a finding.
Unknown keys are refused.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dsdoctor import yamlfile
from dsdoctor.checks import tables
from dsdoctor.report.model import Severity


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A finding. `message` is the whole text, `contains` are pieces of it; `commands` and `env` are of the fixes."""

    message: str | None = None
    contains: tuple[str, ...] = ()
    severity: Severity | None = None  # None: the check's own
    hosts: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    env: dict[str, str] = {}
    evidence: tuple[str, ...] = ()  # pieces of the evidence's texts
    line: int | None = None  # a line that the evidence cites


class ExpectedSkip(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A check that could not judge these hosts; `reason` is a piece of what it says."""

    reason: str
    hosts: tuple[str, ...] = ()


class CaseReach(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A host that could not be examined."""

    problem: str
    detail: str = ""


class CaseJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job, already resolved: one stage with `args`, or the stages with theirs laid over it."""

    name: str = "job"
    precision: str | None = None
    args: dict[str, Any] = {}
    stages: dict[str, dict[str, Any]] = {}
    env: dict[str, str] = {}
    gpu_env: dict[str, dict[str, str]] = {}
    deepspeed: str | None = None  # the text of the config
    engine: str = "torchrun"
    script: str | None = None
    setup: tuple[str, ...] = ()
    present: tuple[str, ...] = ()  # relative paths that lie in the code's folder
    requires_python: str | None = None
    requirements: tuple[str, ...] = ()  # of the job file
    beside: tuple[str, ...] = ()  # of the requirements.txt that lies beside the code
    shell: str | None = None  # the text of a script, job.sh; the job is then what the script is
    files: dict[str, str] = {}  # by name, what the script starts and names
    accelerate: str | None = None  # the text of an accelerate config, acc.yaml


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One case. `change` is laid over the facts by host ("*": all) and section; `missing` takes sections away.

    Where the check has `nothing` to judge, it is not listed: it neither passed nor was skipped.
    """

    name: str
    why: str
    expect: tuple[Expected, ...]
    cluster: str | None = None  # a folder of composed snapshots
    hosts: tuple[str, ...] = ()  # of it, in this order; all of them when left out
    change: dict[str, dict[str, Any]] = {}
    missing: dict[str, dict[str, str]] = {}  # host -> section -> the reason
    entries: dict[str, dict[str, Any]] = {}  # host -> words of its hostfile line
    reach: dict[str, CaseReach] = {}
    master_addr: str | None = None
    job: CaseJob | None = None
    skipped: tuple[ExpectedSkip, ...] = ()
    nothing: bool = False


def cases(name: str) -> tuple[Case, ...]:
    """The cases of a check. Raises FileNotFoundError, or FileError for a file that cannot be used."""
    source = f"{name}.yaml"
    content = tables.text("cases", source)
    return yamlfile.convert(yamlfile.parse(content, source), tuple[Case, ...], source, content)
