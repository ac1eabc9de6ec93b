"""`dsdoctor status`: how a run stands, stage by stage and host by host; the hosts are asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dsdoctor.cli._options import with_options
from dsdoctor.cli._runs import run_options

if TYPE_CHECKING:
    from dsdoctor.cli._runs import Standing
    from dsdoctor.run.directory import RunDirectory
    from dsdoctor.run.reach import HostSeen


@click.command("status")
@with_options(*run_options())
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(run: str | None, base: str, form: str) -> int:
    """Tell how a run stands, on every host.

    Its stages, what runs on each host and its last line, the verdict if it failed. RUN is its name or its path, the
    newest without it. The exit code is 3 when a host could not be asked.
    """
    import json

    from dsdoctor.cli._failures import UNEXAMINED
    from dsdoctor.cli._runs import lines_of, meant, standing
    from dsdoctor.run.kept import load
    from dsdoctor.run.reach import look
    from dsdoctor.run.stall_told import remember
    from dsdoctor.terminal import write

    directory = meant(run, base)
    now = standing(directory)
    kept = load(directory)
    with lines_of(kept) as transports:
        hosts = look(kept, transports)
    if now.orphaned and not any(host.problem for host in hosts):
        remember(directory, stalled=any(host.alive and host.alive.stall for host in hosts))
    told = _told(directory, now, hosts)
    write(json.dumps(told, indent=1, ensure_ascii=False) if form == "json" else _text(told))
    return UNEXAMINED if any(host.problem for host in hosts) else 0


def _told(directory: RunDirectory, now: Standing, hosts: list[HostSeen]) -> dict[str, Any]:
    import msgspec

    from dsdoctor.run.progress_file import read_progress

    state = now.state
    return {
        "schema": "dsdoctor.status/1",
        "run": directory.name,
        "path": str(directory.path),
        "job": state.job,
        "status": "headless" if now.orphaned else state.status,
        "detached": state.detached,
        "head": now.head,
        "created": state.created,
        "failure": state.failure,
        "stages": [msgspec.to_builtins(stage) for stage in state.stages],
        "hosts": [_host(directory, now, host) for host in hosts],
        "progress": read_progress(directory.path) if state.status == "running" else None,
        "verdict": _verdict(directory) if state.status == "failed" else None,
    }


def _host(directory: RunDirectory, now: Standing, host: HostSeen) -> dict[str, Any]:
    """A host: its guardian, and the last line of its first rank that is in the logs."""
    alive = host.alive
    stage = next((stage for stage in now.state.stages if stage.status == "running"), None)
    last = _last_line(directory, stage.folder, host.host) if stage else None
    return {
        "name": host.host,
        "problem": host.problem,
        "guardian": None if alive is None else {"pid": alive.pid, "attempt": alive.attempt, "seconds": alive.seconds},
        "stall": None if alive is None else alive.stall,
        "asleep": alive is not None and alive.stopped,
        "quiet": None if alive is None or alive.quiet < 0 else round(alive.quiet, 1),
        "last_line": last,
        "left_behind": host.left_behind,
    }


def _last_line(directory: RunDirectory, folder: str, host: str) -> str | None:
    """The last line of the first rank of a host that has a log, without its end being waited for."""
    import contextlib

    logs = directory.logs(folder) / host
    ranks = sorted(logs.glob("rank*.log"), key=lambda path: (len(path.name), path.name))
    for path in (*ranks, logs / "agent.log"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65536))
            lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
            if lines:
                return lines[-1]
    return None


def _verdict(directory: RunDirectory) -> dict[str, Any] | None:
    from dsdoctor.yamlfile import FileError

    try:
        verdict = directory.read_json("verdict.json").get("verdict")
    except (FileError, AttributeError):
        return None
    return verdict if isinstance(verdict, dict) else None


def _text(told: dict[str, Any]) -> str:
    import time

    from dsdoctor.cli._runs import duration, since
    from dsdoctor.cli._watching import progress_line
    from dsdoctor.escape import escape

    head = {"headless": "running, but without a head: dsdoctor attach or stop"}.get(told["status"], told["status"])
    if told["status"] == "headless" and not told["detached"]:
        head = "killed; its hosts have stopped: launch again to go on"
    if told["head"]:
        head += f" (process {told['head']}{', detached' if told['detached'] else ''})"
    lines = [f"{escape(told['run'])}: {head}, begun {since(told['created'])}"]
    for stage in told["stages"]:
        line = f"  {stage['name']}: {stage['status']}"
        if stage["attempts"] > 1:
            line += f", attempt {stage['attempts']}"
        if stage["seconds"]:
            line += f", {duration(stage['seconds'])}"
        codes = ", ".join(f"{host} {code}" for host, code in stage["exit_codes"].items() if code)
        lines.append(escape(line + (f"; exit codes: {codes}" if codes else "")))
        if stage["failure"]:
            lines.append(f"    {escape(stage['failure'])}")
    if told["progress"]:
        lines.append(f"  {escape(progress_line(told['progress']))}")
    lines += [f"  {escape(_host_line(host))}" for host in told["hosts"]]
    stalls = [host["stall"] for host in told["hosts"] if host["stall"]]
    if stalls and told["status"] == "headless":
        ago = duration(time.time() - float(stalls[0].get("began") or 0))
        lines.append(f"  STALLED (found {ago} ago): {escape(str(stalls[0].get('text')))[:1000]}")
    verdict = told["verdict"]
    if verdict:
        lines.append(f"  verdict: {escape(str(verdict.get('cause')))}: {escape(str(verdict.get('text')))[:300]}")
    elif told["failure"]:
        lines.append(f"  {escape(told['failure'])}")
    return "\n".join(lines)


def _host_line(host: dict[str, Any]) -> str:
    from dsdoctor.cli._runs import duration

    if host["problem"]:
        return f"{host['name']}: could not be asked ({host['problem']})"
    guardian, left = host["guardian"], host["left_behind"]
    if left:
        what = "1 process that nobody guards is" if left == 1 else f"{left} processes that nobody guards are"
        return f"{host['name']}: {what} left behind; dsdoctor stop ends {'it' if left == 1 else 'them'}"
    if guardian is None:
        return f"{host['name']}: nothing runs"
    line = f"{host['name']}: {guardian['attempt']} has run for {duration(guardian['seconds'])}"
    if host["asleep"]:
        line += ", its guardian is stopped by a signal"
    if host["quiet"] is not None:
        line += f", last line {duration(host['quiet'])} ago"
    return line + (f": {host['last_line'][:160]}" if host["last_line"] else "")
