"""The engine of the checks: how one is declared, found, given what it asks for, and what became of it.

A check asks by the types of its parameters. A first parameter of type :class:`HostFacts` makes it run once for each
examined host; otherwise it runs once. Further parameters may be the host's :class:`HostEntry`, the :class:`Cluster`
and the :class:`JobContext`; `X | None` makes one optional. A check whose wants are not there (no job was given), or
which judges a trial that was not made, is not run and not listed; neither is one that raises :class:`NothingToJudge`
wherever it runs.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Union

import msgspec

from dsdoctor.checks.context import JobContext
from dsdoctor.checks.folding import fold, fold_skipped
from dsdoctor.checks.unasked import not_run
from dsdoctor.cluster import Cluster, HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.report.model import Crashed, Evidence, Finding, Fix, Severity, Skipped

Function = Callable[..., Iterator[Finding | Skipped]]

_OFFERED = (HostFacts, HostEntry, Cluster, JobContext)


class UnknownCheckError(ValueError):
    """A name given to --select or --ignore that no check has."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        import difflib

        wanted = name.replace("_", "-").lower()
        begun = [each for each in known if wanted and each.startswith(wanted)]
        near = begun or difflib.get_close_matches(wanted, known, n=1)
        hint = f"did you mean {' or '.join(near[:3])}?" if near else "`dsdoctor explain --all` lists them"
        super().__init__(f"no check is called {name}; {hint}")
        self.name = name


class NothingToJudge(Exception):  # noqa: N818 - no error: as where no job was given at all
    """Raised by a check that is about something which is not here at all, as a forecast for a job without a model.

    It has not passed then, and that it could not judge is no news: it is not listed. What is here and could not be
    learnt is :class:`FactUnavailable`, which is told.
    """


@dataclass(frozen=True)
class Check:
    """A check as declared: its name, the severity of its findings unless they say otherwise, and the function."""

    name: str
    severity: Severity
    since: str
    function: Function
    trial: str | None = None  # the section that only a trial fills: "peers" (--network), "deep" (--deep)

    def __call__(self, *wanted: Any) -> Iterator[Finding | Skipped]:
        """Run the function itself, without the engine around it."""
        return self.function(*wanted)

    @cached_property
    def wants(self) -> tuple[tuple[type, bool], ...]:
        """The types of the parameters, each with whether it must be there. Raises TypeError for one nobody offers."""
        hints = typing.get_type_hints(self.function)
        names = inspect.signature(self.function).parameters
        return tuple(_want(self.name, hints.get(name)) for name in names)

    @property
    def per_host(self) -> bool:
        """Whether it is run once for each examined host."""
        return bool(self.wants) and self.wants[0][0] is HostFacts

    def finding(
        self,
        message: str,
        *,
        hosts: Iterable[str] = (),
        evidence: Iterable[Evidence] = (),
        fix: Iterable[Fix] = (),
        severity: Severity | None = None,
    ) -> Finding:
        """A finding of this check. A check that runs per host leaves `hosts` out: the engine puts the host in."""
        return Finding(
            name=self.name,
            severity=severity or self.severity,
            message=message,
            hosts=tuple(hosts),
            evidence=tuple(evidence),
            fix=tuple(fix),
        )

    def skipped(self, hosts: Iterable[str], reason: str) -> Skipped:
        """Said by a check over several hosts when it could not judge some of them."""
        return Skipped(name=self.name, hosts=tuple(hosts), reason=reason)


@dataclass(frozen=True)
class Outcome:
    """What became of a run of checks; the pieces of a :class:`dsdoctor.report.model.Report`."""

    findings: tuple[Finding, ...] = ()
    passed: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    crashed: tuple[Crashed, ...] = ()


def check(*, severity: Severity = Severity.ERROR, since: str, trial: str | None = None) -> Callable[[Function], Check]:
    """Declare a check; its name is the function's with dashes, which is also the name of the file."""

    def declare(function: Function) -> Check:
        return Check(function.__name__.replace("_", "-"), severity, since, function, trial)

    return declare


@cache
def discover() -> dict[str, Check]:
    """All checks by name, found in the modules of the package.

    Raises:
        TypeError: a module holds a check that is not named as the module is; `explain` and --select would miss it.
    """
    found: dict[str, Check] = {}
    for module_info in pkgutil.iter_modules(importlib.import_module("dsdoctor.checks").__path__):
        module = importlib.import_module(f"dsdoctor.checks.{module_info.name}")
        for value in vars(module).values():
            if not isinstance(value, Check) or value.function.__module__ != module.__name__:
                continue
            if value.name != module_info.name.replace("_", "-"):
                raise TypeError(f"{module.__name__} holds the check {value.name}: the names must be equal")
            found[value.name] = value
    return dict(sorted(found.items()))


def find(name: str) -> Check:
    """The check of that name. Raises UnknownCheckError, with the nearest name."""
    known = discover()
    if name not in known:
        raise UnknownCheckError(name, tuple(known))
    return known[name]


def run_checks(
    cluster: Cluster | None,
    job: ResolvedJob | JobContext | None = None,
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Outcome:
    """Run all checks, or those selected, over what is known of the hosts and of the job.

    `ignore` turns the errors of the named checks into warnings that are marked as ignored: shown, counted apart.
    A check that raises is kept with its traceback, and the others go on. One that was selected and has nothing to look
    at counts as skipped, with what it wants.

    Raises:
        UnknownCheckError: a name in `select` or `ignore` that no check has.
    """
    for name in (*select, *ignore):
        find(name)
    if not select:
        return run_these(discover().values(), cluster, job, ignore=ignore)
    chosen = [candidate for name, candidate in discover().items() if name in select]
    outcome = run_these(chosen, cluster, job, ignore=ignore)
    told = {*outcome.passed, *(finding.name for finding in outcome.findings)}
    told |= {one.name for one in outcome.skipped} | {one.name for one in outcome.crashed}
    silent = not_run(chosen, told, with_job=job is not None)
    return replace(outcome, skipped=(*outcome.skipped, *silent))


def run_these(
    chosen: Iterable[Check],
    cluster: Cluster | None,
    job: ResolvedJob | JobContext | None = None,
    *,
    ignore: Sequence[str] = (),
) -> Outcome:
    """Run the given checks; :func:`run_checks` gives those of the package."""
    if cluster is not None and not len(cluster):
        cluster = None
    offered: dict[type, Any] = {}
    if cluster is not None:
        offered[Cluster] = cluster
    contexts = _contexts(job, cluster)
    results = [result for one in chosen if (result := _run_on_parts(one, cluster, offered, contexts)) is not None]
    order = {member.name: place for place, member in enumerate(cluster or ())}
    findings = [_ignored(finding) if finding.name in ignore else finding for r in results for finding in r.found]
    findings = sorted(fold(findings), key=lambda finding: _place(finding, order))
    return Outcome(
        findings=tuple(findings),
        passed=tuple(result.name for result in results if not (result.found or result.skipped or result.crashed)),
        skipped=tuple(fold_skipped(skipped for result in results for skipped in result.skipped)),
        crashed=tuple(crash for result in results for crash in result.crashed),
    )


def _contexts(job: ResolvedJob | JobContext | None, cluster: Cluster | None) -> list[JobContext]:
    """The job as checks see it: once, or, read out of a script, once for each of its parts."""
    if job is None:
        return []
    if isinstance(job, JobContext):
        return [job]
    return [JobContext(part, cluster) for part in job.parts or (job,)]


def _run_on_parts(
    check: Check, cluster: Cluster | None, offered: dict[type, Any], contexts: Sequence[JobContext]
) -> _Result | None:
    """Run one check for each part of the job where it looks at the job; what it says twice counts once."""
    asks = any(kind is JobContext for kind, _ in check.wants)
    if not asks or not contexts:
        return _run(check, cluster, offered)
    whole: _Result | None = None
    for context in contexts:
        result = _run(check, cluster, {**offered, JobContext: context})
        if whole is None or result is None:
            whole = whole or result
            continue
        whole.found += [one for one in result.found if one not in whole.found]
        whole.skipped += [one for one in result.skipped if one not in whole.skipped]
        whole.crashed += result.crashed
    return whole


@dataclass
class _Result:
    """What one check said, on all hosts."""

    name: str
    found: list[Finding] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    crashed: list[Crashed] = field(default_factory=list)


def _run(check: Check, cluster: Cluster | None, offered: dict[type, Any]) -> _Result | None:
    """Run one check wherever it applies; None when something it must have was not given."""
    result = _Result(check.name)
    if check.trial is not None and not _was_tried(check.trial, cluster):
        return None
    if not check.per_host:
        arguments = _arguments(check, offered)
        if arguments is None:
            return None
        if not _collect(check, arguments, (), result):
            return None
        silent = not (result.found or result.skipped or result.crashed)
        if cluster is not None and not cluster.examined and silent and _about_hosts(check, offered):
            result.skipped.append(_nobody(check, cluster))
        return result
    if cluster is None or _arguments(check, {HostFacts: None, HostEntry: None, **offered}) is None:
        return None
    judged = []
    for member in cluster.examined:
        arguments = _arguments(check, {HostFacts: member.facts, HostEntry: member.entry, **offered})
        judged.append(_collect(check, arguments or [], (member.name,), result))
    if not cluster.examined:
        result.skipped.append(_nobody(check, cluster))
    return result if any(judged) or not judged else None


def _nobody(check: Check, cluster: Cluster) -> Skipped:
    """Said of a check for which there was no host to look at: not finding is not passing."""
    return check.skipped((member.name for member in cluster), "no host was examined")


def _about_hosts(check: Check, offered: dict[type, Any]) -> bool:
    """Whether a check over the cluster judges hosts: it must have them, or it may and is given nothing else."""
    return any(kind is Cluster and (required or JobContext not in offered) for kind, required in check.wants)


def _was_tried(trial: str, cluster: Cluster | None) -> bool:
    """Whether any host was to take part in a trial; one that could not has the section, too, with its error."""
    examined = cluster.examined if cluster is not None else ()
    return any(member.facts is not None and trial in member.facts.snapshot.sections for member in examined)


def _collect(check: Check, arguments: list[Any], hosts: tuple[str, ...], result: _Result) -> bool:
    """Take what one call yields; an exception ends that call alone. False: there was nothing to judge."""
    before = len(result.found) + len(result.skipped)
    try:
        for said in check(*arguments):
            if isinstance(said, Skipped):
                result.skipped.append(said)
            else:
                result.found.append(said if said.hosts else msgspec.structs.replace(said, hosts=hosts))
    except NothingToJudge:
        return len(result.found) + len(result.skipped) > before
    except FactUnavailable as missing:
        result.skipped.append(check.skipped(hosts, str(missing)))
    except Exception:  # a bug in one check must not cost the findings of the others
        result.crashed.append(Crashed(name=check.name, hosts=hosts, traceback=traceback.format_exc()))
    return True


def _arguments(check: Check, offered: dict[type, Any]) -> list[Any] | None:
    if any(required and kind not in offered for kind, required in check.wants):
        return None
    if not any(kind in offered for kind, _ in check.wants):
        return None
    return [offered.get(kind) for kind, _ in check.wants]


def _want(name: str, hint: Any) -> tuple[type, bool]:
    """The type a parameter asks for and whether it must be there, out of `X` or `X | None`."""
    required = True
    if typing.get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        required = len(kinds) == len(typing.get_args(hint))
        hint = kinds[0] if len(kinds) == 1 else None
    if hint not in _OFFERED:
        offered = ", ".join(kind.__name__ for kind in _OFFERED)
        raise TypeError(f"the check {name} asks for {hint!r}; parameters are of type {offered}, or one of them | None")
    return hint, required


def _ignored(finding: Finding) -> Finding:
    severity = Severity.WARNING if finding.severity is Severity.ERROR else finding.severity
    return msgspec.structs.replace(finding, severity=severity, ignored=True)


def _place(finding: Finding, order: dict[str, int]) -> tuple[int, str, int]:
    """Worst first, then by name, then by the first host's place in the hostfile."""
    first = min((order.get(host, len(order)) for host in finding.hosts), default=-1)
    return (-finding.severity.rank, finding.name, first)
