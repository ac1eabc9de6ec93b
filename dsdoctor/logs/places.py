"""Whose log it is, by its name: the host, the rank, and the attempt of a job that launchers restart."""

from __future__ import annotations

import re
from collections.abc import Iterable

# What hosts, pods and containers are called where a path does not say it in another way: node1, dgx02.lan, gpu-a17,
# v100-11, llm-worker-3, compute-0-12, ip-10-0-0-7. Not worker-0d3f…, a worker of Ray, nor node_rank, 8gpu or train2.
_WORD = r"(?:node|host|hostname|worker|master|chief|launcher|trainer|compute|dgx|hgx|pod|container|algo|server|nid|cn)"
_CARD = r"(?:gpu|a10g|a40|a800|a100|h20|h100|h200|h800|b200|v100|p100|t4|l4|l40s?|mi\d{2}0x?|rtx\d{4}|\d{4}ti)"
_DOMAIN = r"(?:\.[a-z][a-z0-9-]{0,40}){0,4}\.(?:lan|local|internal|localdomain|cluster|com|org|net|edu|gov|io|[a-z]{2})"
_ADDRESS = re.compile(r"(?:^|[^\w.]|_)(?P<host>\d{1,3}(?:\.\d{1,3}){3})(?!\.?\d)")
_NAME = re.compile(
    rf"(?i)(?:^|[_@=,+]|(?<=[a-z0-9])-)(?P<host>(?:{_WORD}[-_]?(?!rank)(?!20\d\d)(?:[a-z]{{1,3}}-?)?\d{{1,6}}"
    rf"|{_CARD}-[a-z]?\d{{1,4}}|(?:compute|ip)(?:-\d{{1,4}}){{2,4}})(?:{_DOMAIN})?)(?=$|[_@,+]|-(?=[a-z]))"
)
_POD = re.compile(rf"(?i)^[a-z0-9][a-z0-9-]{{0,200}}-{_WORD}-\d{{1,5}}$")
_ENDINGS = re.compile(
    r"(?i)(?:\.(?:logs?|txt|out|err|stdout|stderr|gz|xz|bz2|zst|tar|tgz|zip|jsonl?|csv|md|\d{1,3}))+$"
)

_BY_PATH = (
    # dsdoctor's own: HOST/rank3.log, HOST/agent.log
    re.compile(r"(?:^|/)(?P<host>[^/]{1,255})/rank(?P<rank>\d{1,6})\.log(?:\.\w{1,4})?$"),
    re.compile(r"(?:^|/)(?P<host>[^/]{1,255})/agent\.log$"),
    # the kubelet's: /var/log/pods/NAMESPACE_POD_UID/CONTAINER/0.log, /var/log/containers/POD_NAMESPACE_CONTAINER-ID.log
    re.compile(r"(?:^|/)[a-z0-9-]{1,63}_(?P<host>[a-z0-9.-]{1,253})_[0-9a-f-]{32,36}/[^/]{1,63}/\d{1,4}\.log"),
    re.compile(r"(?:^|/)(?P<host>[a-z0-9.-]{1,253})_[a-z0-9-]{1,63}_[a-z0-9.-]{1,63}-[0-9a-f]{64}\.log"),
)
# Folders that no host is called like.
_NO_HOST = re.compile(
    r"(?i)(?:logs?|out(?:puts?)?|results?|runs?|train(?:ing)?|jobs?|exp(?:eriments?)?|tmp|data|std(?:out|err)|ranks?"
    r"|[\d._-]+|.*\.(?:tar(?:\.\w{2,4})?|tgz|zip|log|txt))"
)
_RANK = (
    # torchrun: attempt_0/3/stderr.log, error.json; mpirun --output-filename: 1/rank.3/stderr
    re.compile(r"(?:^|/)attempt_\d{1,6}/(?P<rank>\d{1,6})/(?:stdout\.log|stderr\.log|error\.json)"),
    re.compile(r"(?:^|/)rank\.(?P<rank>\d{1,6})/(?:stdout|stderr)"),
    # Azure ML: user_logs/std_log_process_03.txt; Slurm's step-12-NODE-3.log (%j-%N-%t) is told by the host before it
    re.compile(r"(?:^|/)std_log_process_(?P<rank>\d{1,6})(?:_stdout|_stderr)?\.txt"),
    re.compile(r"(?i)(?:^|[/_.-])rank[_-]?(?P<rank>\d{1,6})(?:[/_.-][^/]*)?(?:/[^/]*)?$"),
)
_TASK = re.compile(r"[-_](?P<rank>\d{1,5})$")
_OF_TORCHRUN = re.compile(r"(?:[^/]{1,255}/)?attempt_\d{1,6}/\d{1,6}/")
_ARCHIVE = re.compile(r"(?i)\.(?:tar(?:\.\w{2,4})?|tgz|zip)$")
_ATTEMPT = re.compile(r"(?P<run>(?:^|.*/))attempt_(?P<attempt>\d{1,6})/")


def place_of(name: str) -> tuple[str | None, int | None]:
    """Host and rank that the path of a log tells, as launchers, schedulers, collectors and people call their files.

    A job's number is no rank, nor is the task of an array (`slurm-12_3.out`).
    """
    path = name.replace("\\", "/")
    for pattern in _BY_PATH:
        match = pattern.search(path)
        if match:
            groups = match.groupdict()
            rank = int(groups["rank"]) if groups.get("rank") else None
            if not _NO_HOST.fullmatch(groups["host"]) or _ADDRESS.search(groups["host"]):
                return groups["host"], rank
    rank = next((int(match["rank"]) for pattern in _RANK if (match := pattern.search(path))), None)
    parts = _OF_TORCHRUN.sub("", path).split("/")
    near = len(parts) - 3  # further up are the disk and the user: /mnt/server1/…
    for place, part in reversed(list(enumerate(parts))):
        host, task = _host(part) if place >= near or _ARCHIVE.search(part) else (None, None)
        if host:
            return host, rank if rank is not None else task
    return None, rank


def _host(part: str) -> tuple[str | None, int | None]:
    """The host that a part of a path names, and the task that Slurm's `%N-%t` puts behind it."""
    address = _ADDRESS.search(part)
    if address:
        return address["host"], None
    stem = _ENDINGS.sub("", part)
    if _POD.match(stem):
        return stem, None
    found = _NAME.search(stem)
    if found:
        return found["host"], None
    task = _TASK.search(stem)
    found = _NAME.search(stem[: task.start()]) if task else None
    return (found["host"], int(task["rank"])) if task and found else (None, None)


def superseded(names: Iterable[str]) -> set[str]:
    """Those of the logs that are of an attempt after which torchrun started another one in the same folder."""
    attempts: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        match = _ATTEMPT.match(name.replace("\\", "/"))
        if match:
            attempts.setdefault(match["run"], []).append((int(match["attempt"]), name))
    return {name for each in attempts.values() for attempt, name in each if attempt < max(each)[0]}
