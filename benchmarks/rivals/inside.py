"""Runs another program's diagnosis over many logs, in an interpreter of its own: `python -I inside.py NAME CHECKOUT`.

Takes the paths of the logs as a JSON list on standard input and prints one JSON object a log: `answers` (what the
program calls the failure), `line` (the number of the line it points at, counted by line feeds), `seconds`. Nothing of
dsdoctor is imported, nothing is written into the checkout, and what would go out over the network is refused.
"""

import contextlib
import io
import json
import re
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

Told = dict[str, Any]
_OUTWARD = {"socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname"}


def _offline(event: str, _: tuple[Any, ...]) -> None:
    if event in _OUTWARD:
        raise PermissionError(f"{event}: the benchmark runs without a network")


def nvrx(checkout: Path) -> Callable[[Path], Told]:
    """The restart agent of nvidia-resiliency-ext with its language model off: the pattern layer (L0) decides alone."""
    # httpx is what its language-model client speaks through; that part is imported and never run.
    sys.modules["httpx"] = types.ModuleType("httpx")
    sys.path.insert(0, str(checkout / "src"))
    from nvidia_resiliency_ext.attribution.restart_agent.cli import main

    def ask(log: Path) -> Told:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            main([str(log), "--disable-l1"])
        result = json.loads(printed.getvalue())
        primary = result["primary_failure"]
        if primary is None:
            return {"answers": [], "line": None}
        # What it lists beside the primary failure counts as well; what it calls a cascade does not.
        answers = {each["failure_class"] for each in (primary, *result["secondary_failures"])}
        return {"answers": sorted(answers), "line": primary["line"]}

    return ask


def nccl_doctor(checkout: Path) -> Callable[[Path], Told]:
    """nccl-doctor's analysis of a job folder that has the log in every place where it reads text of that kind."""
    sys.path.insert(0, str(checkout))
    from nccl_doctor.report import analyze_job

    def ask(log: Path) -> Told:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            text = log.read_bytes()
            (folder / "job.json").write_text(json.dumps({"job_id": "1", "nodes": ["host"], "world_size": 2}))
            for place in ("logs/host.log", "host/host/dmesg.txt", "host/host/nvlink.txt", "host/host/lspci.txt"):
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                (folder / place).write_bytes(text)
            findings = analyze_job(folder, None)["error_analysis"]["findings"]
        return {"answers": sorted({finding["rule"] for finding in findings}), "line": _cited(findings, text)}

    return ask


def _cited(findings: list[Any], log: bytes) -> "int | None":
    """The line of the first piece of evidence: by its number where it has one, else the first line with its text."""
    for finding in findings:
        for evidence in finding["evidence"]:
            numbered = re.search(r":L(\d+)$", evidence["source"])
            if numbered:
                return int(numbered[1])
            for number, line in enumerate(log.decode("utf-8", "replace").split("\n"), 1):
                if evidence["detail"] in line:
                    return number
    return None


PROGRAMS = {"nvrx": nvrx, "nccl-doctor": nccl_doctor}


def main(name: str, checkout: str) -> None:
    """Ask the program about every log. An error on one log is that log's answer: `error` with its text."""
    sys.dont_write_bytecode = True
    sys.addaudithook(_offline)
    ask = PROGRAMS[name](Path(checkout))
    for number, path in enumerate(json.load(sys.stdin)):
        if number == 0:
            _told(ask, Path(path))  # once for nothing: imports and regular expressions are made at the first log
        began = time.perf_counter()
        told = _told(ask, Path(path))
        print(json.dumps({**told, "seconds": time.perf_counter() - began}), flush=True)


def _told(ask: Callable[[Path], Told], log: Path) -> Told:
    try:
        return ask(log)
    except Exception as error:
        return {"answers": [], "line": None, "error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main(*sys.argv[1:])
