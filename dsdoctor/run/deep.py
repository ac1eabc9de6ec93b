"""`--deep`: torch, GPUs and collectives tried for real on the hosts; each one's answer becomes its `deep` section.

The hosts work through their steps at the same time; then all ranks of the job meet, as they would in a launch.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec

from dsdoctor.cluster import Cluster, Member
from dsdoctor.facts import DeepCollective, HostFacts, Section
from dsdoctor.hosts.transport import Transport
from dsdoctor.jobs.job import ResolvedJob
from dsdoctor.plan.model import LaunchPlan
from dsdoctor.run.deep_host import HOST, HostRun, reduce_order
from dsdoctor.run.deep_plan import DeepPlan, deep_plan
from dsdoctor.run.deep_step import GRACE, GREETING, Together

JOINT = 70.0  # seconds for the all-reduce over all hosts
LEAVE = GRACE + 6  # seconds for every host to end what it does, when the trial is interrupted
_TAKEN = ("EADDRINUSE", "address already in use")

Progress = Callable[[str], None]


def try_deep(
    cluster: Cluster,
    transports: Mapping[str, Transport],
    *,
    job: ResolvedJob | None = None,
    progress: Progress = lambda text: None,
) -> Cluster:
    """The cluster with a `deep` section in the facts of every host that was examined and runs ranks.

    Takes at most HOST + JOINT seconds and the time of some connections. However it ends, by Ctrl-C too, nothing that it
    started is left on a host that can still be reached; elsewhere the guardians end it by themselves.
    """
    made = deep_plan(cluster, job, transports)
    over = threading.Event()
    setup = job.job.setup if job is not None else ()
    runs = {name: HostRun(trial, transports[name], setup, over) for name, trial in made.hosts.items()}
    try:
        _together({name: run.run for name, run in runs.items()}, runs, HOST + GREETING + LEAVE, progress)
        _all_hosts(made, runs, over, progress)
    finally:
        over.set()
    return replace(cluster, members=tuple(_with_answer(member, made, runs) for member in cluster))


def _together(
    work: Mapping[str, Callable[[], None]], runs: Mapping[str, HostRun], limit: float, progress: Progress
) -> None:
    """Do each host's work in a thread of its own, and wait for all; an interruption waits until they have let go."""
    threads = {name: threading.Thread(target=do, daemon=True) for name, do in work.items()}
    for thread in threads.values():
        thread.start()
    end = time.monotonic() + limit
    try:
        while time.monotonic() < end and (busy := [name for name, thread in threads.items() if thread.is_alive()]):
            progress(_progress(busy, len(threads), runs))
            threads[busy[0]].join(0.3)
    except BaseException:  # Ctrl-C, too: the hosts end what they do first
        for name in threads:
            runs[name].over.set()
        end = time.monotonic() + LEAVE
        for thread in threads.values():
            thread.join(max(0.0, end - time.monotonic()))
        raise


def _progress(busy: Sequence[str], total: int, runs: Mapping[str, HostRun]) -> str:
    """How many hosts are through, and what the others do."""
    doing: dict[str, list[str]] = {}
    for name in busy:
        doing.setdefault(runs[name].now or "start", []).append(name)
    if total == 1:
        return f"deep trial: {next(iter(doing))}"
    words = "; ".join(f"{step}: {_few(names)}" for step, names in doing.items())
    return f"deep trial, {total - len(busy)} of {total} done; {words}"


def _few(names: Sequence[str]) -> str:
    from dsdoctor.escape import escape
    from dsdoctor.report.layout import fold

    return escape(fold(names))


# --- all ranks of the job


def _all_hosts(made: DeepPlan, runs: Mapping[str, HostRun], over: threading.Event, progress: Progress) -> None:
    """Let all ranks meet, where there is more than one host and nothing speaks against it."""
    plan = made.joint
    if plan is None:
        if made.alone:
            _not_tried(runs, made.alone)
        return
    unfit = {name: why for name, run in runs.items() if (why := run.results.unfit) is not None}
    if unfit:
        _not_tried(runs, "; ".join(f"{name} {why}" for name, why in unfit.items()), plan)
        return
    _meet(made, plan, runs, over, plan.master_port, progress)
    if _port_was_taken(runs):  # since the hosts were looked at; another one tells more than that
        time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - two trials at once must not go on in step
        _meet(made, plan, runs, over, random.randint(20_000, 29_000), progress)  # noqa: S311


def _meet(
    made: DeepPlan,
    plan: LaunchPlan,
    runs: Mapping[str, HostRun],
    over: threading.Event,
    port: int,
    progress: Progress,
) -> None:
    together = Together(over)
    work: dict[str, Callable[[], None]] = {}
    for host in plan.hosts:
        known = msgspec.structs.replace(
            _known(made, plan), expected=tuple(range(host.first_rank, host.first_rank + host.slots))
        )
        order = reduce_order(known, nnodes=len(plan.hosts), node_rank=host.node_rank, nproc=host.slots, port=port)
        run = runs[host.name]
        work[host.name] = lambda run=run, known=known, order=order: run.joint(known, order, JOINT, together)  # type: ignore[misc]
    _together(work, runs, JOINT + GREETING + LEAVE, progress)


def _known(made: DeepPlan, plan: LaunchPlan | None) -> DeepCollective:
    """What is known of the all-reduce over all hosts before it begins."""
    if plan is None:
        return DeepCollective(scope="job")
    return DeepCollective(
        scope="job",
        backend="nccl" if made.gpus_everywhere else "gloo",
        world_size=plan.world_size,
        hosts=tuple(host.name for host in plan.hosts),
        address=plan.master_addr,
    )


def _not_tried(runs: Mapping[str, HostRun], why: str, plan: LaunchPlan | None = None) -> None:
    hosts = tuple(host.name for host in plan.hosts) if plan is not None else tuple(runs)
    for run in runs.values():
        run.results.collectives.append(DeepCollective(scope="job", hosts=hosts, not_tried=why))


def _port_was_taken(runs: Mapping[str, HostRun]) -> bool:
    found = [each for run in runs.values() for each in run.results.collectives if each.scope == "job" and each.error]
    return any(word in line for each in found for printed in each.output for line in printed.lines for word in _TAKEN)


# --- facts


def _with_answer(member: Member, made: DeepPlan, runs: Mapping[str, HostRun]) -> Member:
    """The host with its section; without one where no rank would run."""
    if member.facts is None or member.entry.processes < 1:
        return member
    run = runs.get(member.name)
    if run is None:
        section = Section(error=made.refused.get(member.name, "there is no connection to start anything over"))
    else:
        seconds = round(sum(step.seconds for step in run.results.steps), 3)
        section = Section(value=msgspec.to_builtins(run.results.facts()), seconds=seconds)
    sections = {**member.facts.snapshot.sections, "deep": section}
    return replace(member, facts=HostFacts(msgspec.structs.replace(member.facts.snapshot, sections=sections)))
