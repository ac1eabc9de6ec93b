"""What follows a stage: its outputs looked at where they lie and brought to the head, or its log diagnosed.

And what is left behind on hosts ended, where guardian and keeper were killed at one blow.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

import msgspec

from dsdoctor.hosts.transport import Transport, TransportError
from dsdoctor.plan.model import LaunchPlan, StagePlan
from dsdoctor.report.model import Report
from dsdoctor.run.directory import RunDirectory
from dsdoctor.run.events import Diagnosed, Noted, Show
from dsdoctor.run.kept import Kept
from dsdoctor.run.on_host import HostAnswerError, ask
from dsdoctor.run.outputs_on_host import broken_outputs
from dsdoctor.run.reach import stop
from dsdoctor.run.stage_end import Limits, StageEnd
from dsdoctor.run.sync.fetch import fetch
from dsdoctor.yamlfile import FileError

LOOK_SECONDS = 120.0  # for the outputs: a network file system may hold them


def diagnosed(run: RunDirectory, stage: StagePlan, show: Show) -> Report | None:
    """Diagnose the log of a stage that failed, with what the checks knew; None when that cannot be done."""
    from dsdoctor.logs.diagnose import diagnose
    from dsdoctor.run.log_files import open_sources

    try:
        sources = open_sources([run.logs(stage.folder) / "merged.log"])
        report = diagnose(sources, facts=_found_before(run))
    except Exception as error:  # the failure itself must be told, whatever becomes of its explanation
        show(Noted(f"the log could not be diagnosed ({error}); try dsdoctor diagnose on it", warning=True))
        return None
    run.write_json("verdict.json", report.to_dict())
    show(Diagnosed(report))
    return report


def _found_before(run: RunDirectory) -> Report | None:
    """What the checks said of these hosts before the start: it confirms causes or rules them out."""
    try:
        return msgspec.convert(run.read_json("report.json"), Report)
    except (FileError, msgspec.ValidationError):
        return None


def end_what_is_left(
    plan: LaunchPlan, limits: Limits, transports: Mapping[str, Transport], end: StageEnd, show: Show
) -> None:
    """End what still runs on hosts whose guardian said no last word, though they can be reached; no wait for others."""
    hosts = [name for name, host in end.hosts.items() if host.closed]
    if not hosts:
        return
    for host in stop(Kept(plan, limits=limits), transports, hosts=hosts, timeout=3 * limits.grace + 15):
        if host.ended:
            show(Noted(f"ended on {host.host}, where its guardian was killed: {', '.join(host.ended)}", warning=True))
        elif host.problem or host.left:
            why = host.problem or f"{', '.join(host.left)} did not end"
            show(Noted(f"what runs on {host.host} is not known to have ended ({why})", warning=True))


def problem_of_outputs(plan: LaunchPlan, stage: StagePlan, transports: Mapping[str, Transport]) -> str | None:
    """What is wrong with a stage's outputs where rank 0 ran, in words; None when all are there and whole."""
    host = plan.hosts[0]
    order = {"folder": f"{host.run_dir}/outputs/{stage.folder}", "outputs": list(stage.outputs)}
    try:
        found = ask(transports[host.name], host.python, broken_outputs, order, plan.setup, timeout=LOOK_SECONDS)
    except (TransportError, HostAnswerError, subprocess.TimeoutExpired) as error:
        return f"its outputs on {host.name} could not be looked at ({error})"
    return f"on {host.name} {', '.join(found)} in {order['folder']}" if found else None


def fetch_outputs(
    plan: LaunchPlan, stage: StagePlan, transports: Mapping[str, Transport], run: RunDirectory, show: Show
) -> None:
    """Bring the stage's files to the head, from the host of rank 0."""
    host = plan.hosts[0]
    if host.local:
        return
    folder = f"{host.run_dir}/outputs/{stage.folder}"
    fetched = fetch(host, transports[host.name], folder, run.path / "outputs" / stage.folder)
    sentence = fetched.sentence(host.name, folder)
    if sentence:
        show(Noted(f"{stage.name}: {sentence}", warning=fetched.problem is not None))
