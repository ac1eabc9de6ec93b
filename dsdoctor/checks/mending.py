"""Mended copies of a job's DeepSpeed configs: every certain change after which less is wrong, and what is left.

Nothing is believed of a change: it is made on a copy of the text, the job's own checks look at that, and it stays only
where they find fewer errors, or as many and fewer warnings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from dsdoctor.checks.certain import Proposal, proposals
from dsdoctor.checks.context import JobContext
from dsdoctor.checks.engine import Check, discover, run_these
from dsdoctor.cluster import Cluster
from dsdoctor.jobs.edits import as_json, edited
from dsdoctor.jobs.job import DeepSpeedConfig, ResolvedJob
from dsdoctor.jobs.relaxed import parse_relaxed
from dsdoctor.report.model import Finding, Severity
from dsdoctor.yamlfile import FileError

_MOST = 50  # changes of one config
_NOT_JSON = Proposal((), "comments and commas before closing brackets are no JSON, and transformers reads JSON")


@dataclass(frozen=True)
class Mended:
    """A config as it is and as it would be, the changes with their reasons, and what is still wrong with it."""

    path: str
    before: str
    config: DeepSpeedConfig  # mended
    after: str
    changes: tuple[Proposal, ...]
    left: tuple[Finding, ...]
    wrong_before: tuple[Finding, ...]

    @property
    def saves(self) -> bool:
        """Whether the original would stop the job and the copy would not."""
        errors = [[one for one in found if one.severity is Severity.ERROR] for found in (self.wrong_before, self.left)]
        return bool(errors[0]) and not errors[1]


def mended_configs(
    job: ResolvedJob, cluster: Cluster | None, read: Callable[[str], str], ignore: Sequence[str] = ()
) -> Iterator[Mended]:
    """The job's configs in which something certain can be changed; `read` gives the text of a file.

    A config that is not the file itself - of a program, or of accelerate - is left out. What checks of the names in
    `ignore` find is let be.
    """
    checks = [
        one for one in discover().values() if one.name not in ignore and any(k is JobContext for k, _ in one.wants)
    ]
    for path in dict.fromkeys(part.deepspeed.path for part in _parts(job) if part.deepspeed is not None):
        try:
            text = read(path)
            config = parse_relaxed(text, path)
        except FileError:
            continue
        there = next(part.deepspeed for part in _parts(job) if part.deepspeed and part.deepspeed.path == path)
        if config.value == there.value:
            mended = _mended(checks, job, cluster, path, text)
            if mended.changes:
                yield mended


def described(proposal: Proposal) -> str:
    """A change in a line: what, and why."""
    what = "; ".join(map(str, proposal.edits)) if proposal.edits else "comments and commas taken out"
    return f"{what}: {proposal.because}"


def with_config(job: ResolvedJob, config: DeepSpeedConfig) -> ResolvedJob:
    """The job with another text of a config that it has, by its path."""
    if job.deepspeed is not None and job.deepspeed.path == config.path:
        job = replace(job, deepspeed=config)
    return replace(job, parts=tuple(with_config(part, config) for part in job.parts))


def _mended(checks: Sequence[Check], job: ResolvedJob, cluster: Cluster | None, path: str, before: str) -> Mended:
    text, made = before, list[Proposal]()
    found = first = _found(checks, job, cluster)
    while len(made) < _MOST:
        step = _better(checks, job, cluster, (path, text), found)
        if step is None:
            break
        text, found, proposal = step
        made.append(proposal)
    config = parse_relaxed(text, path)
    left, wrong = (tuple(one for one in each if _cites(one, path)) for each in (found, first))
    return Mended(path, before, config, text, tuple(made), left, wrong)


def _better(
    checks: Sequence[Check], job: ResolvedJob, cluster: Cluster | None, at: tuple[str, str], found: Sequence[Finding]
) -> tuple[str, list[Finding], Proposal] | None:
    """The first proposal that leaves less wrong, with the text and the findings then; None when there is none."""
    path, text = at
    config = parse_relaxed(text, path)
    contexts = [JobContext(part, cluster) for part in _parts(with_config(job, config)) if _uses(part, path)]
    strict = [(_NOT_JSON, as_json(text))] if config.loose else []
    tried = [*((one, edited(text, one.edits)) for one in proposals(contexts, config)), *strict]
    for proposal, changed in tried:
        now = _found(checks, with_config(job, parse_relaxed(changed, path)), cluster)
        if _badness(now) < _badness(found):
            return changed, now, proposal
    return None


def _found(checks: Sequence[Check], job: ResolvedJob, cluster: Cluster | None) -> list[Finding]:
    """The errors and warnings of the checks that look at the job."""
    outcome = run_these(checks, cluster, job)
    return [finding for finding in outcome.findings if finding.severity is not Severity.INFO]


def _badness(findings: Sequence[Finding]) -> tuple[int, int]:
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    return errors, len(findings) - errors


def _parts(job: ResolvedJob) -> tuple[ResolvedJob, ...]:
    return job.parts or (job,)


def _uses(part: ResolvedJob, path: str) -> bool:
    return part.deepspeed is not None and part.deepspeed.path == path


def _cites(finding: Finding, path: str) -> bool:
    return any(evidence.source == path for evidence in finding.evidence)
