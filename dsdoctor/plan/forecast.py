"""What a plan says of memory and time: for each host what its ranks will need, for each stage how long it may take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dsdoctor.checks.amounts import amount
from dsdoctor.checks.duration import durations
from dsdoctor.checks.room import card_room, needs, ram_limit, shown
from dsdoctor.cluster import Cluster
from dsdoctor.escape import escape
from dsdoctor.facts import FactUnavailable
from dsdoctor.jobs.forecast.speed import span
from dsdoctor.jobs.job import ResolvedJob


def forecasts(job: ResolvedJob, cluster: Cluster) -> dict[str, Any]:
    """`memory` and `time`, each as JSON, or with the reason under `unknown`. Sizes are in bytes, times in seconds."""
    found: dict[str, Any] = {}
    for name, make in (("memory", _memory), ("time", _time)):
        try:
            found[name] = make(job, cluster)
        except FactUnavailable as missing:
            found[name] = {"unknown": str(missing)}
    return found


def _memory(job: ResolvedJob, cluster: Cluster) -> dict[str, Any]:
    need = needs(job, cluster)[0]
    memory = need.memory
    body: dict[str, Any] = {
        "stage": need.outlook.stage.name,
        "parameters": need.outlook.parameters or need.outlook.shape.parameters,
        "trainable": memory.trainable,
        "least": memory.least,
        "most": memory.most,
        "complete": memory.complete,
        "shown": shown(memory),
        "parts": {part.name: part.size for part in memory.gpu},
        "ram_a_rank": memory.ram,
        "hosts": {},
    }
    for member in cluster.examined:
        if member.facts is None:
            continue
        room = card_room(member.facts, member.entry)
        row: dict[str, Any] = {"ram": memory.ram * member.entry.processes, "ram_limit": ram_limit(member.facts)}
        if room is not None:
            row |= {"card": f"GPU {room.gpu.index} ({room.gpu.name})", "card_total": room.total, "card_free": room.free}
        body["hosts"][member.name] = row
    return body


def _time(job: ResolvedJob, cluster: Cluster) -> dict[str, Any]:
    rows = []
    for stage in durations(job, cluster):
        row: dict[str, Any] = {
            "stage": stage.stage,
            "step_least": stage.speed.least,
            "step_most": stage.speed.most,
            "tokens_a_step": stage.speed.tokens,
            "slowest": stage.slowest.name,
        }
        if stage.work is not None and stage.seconds is not None:
            row |= {"least": stage.seconds[0], "most": stage.seconds[1], "because": stage.work.because}
        rows.append(row)
    return {"stages": rows}


def forecast_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The forecasts as comments of the shell text; nothing where they are not known (the checks say why)."""
    memory = found.get("memory") or {}
    for host, row in (memory.get("hosts") or {}).items():
        if "card" in row:
            less = "" if memory["complete"] else ", activations not counted (the length of the samples is not known)"
            line = f"{memory['shown']} of the {amount(row['card_total'])} of {row['card']}{less}"
        else:
            line = f"{memory['shown']} a rank, and no GPU is there"
        ram = f"; offloaded: {amount(row['ram'])} of {amount(row['ram_limit'])}" if row["ram"] else ""
        yield f"# memory on {escape(host)}: {escape(line)}{ram}"
    for row in (found.get("time") or {}).get("stages") or ():
        step = f"{row['step_least']:.2g} to {row['step_most']:.2g} s a step, {row['slowest']} is the slowest card"
        whole = f"{span(row['least'])} to {span(row['most'])}, " if "least" in row else ""
        yield f"# time of {escape(row['stage'])}: {whole}{escape(step)}"
