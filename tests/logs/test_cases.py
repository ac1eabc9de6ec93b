"""Logs with a known root cause: those of the seeds and of public threads (those provoked here: tests/provoked)."""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsdoctor.logs.diagnose import diagnose
from dsdoctor.logs.rules import RuleSet, load_rules
from dsdoctor.report.model import Report, Severity, Verdict

HERE = Path(__file__).parent
CASES: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted((HERE / "cases").glob("*.yaml"))
}
WORDINGS: list[dict[str, str]] = yaml.safe_load((HERE / "wordings.yaml").read_text())
RULES: RuleSet = load_rules()


def answer(text: str) -> Verdict:
    verdict = diagnose([("train.log", [text.encode()])], RULES).verdict
    assert verdict is not None
    return verdict


def accepted(case: dict[str, Any]) -> list[str]:
    return [case["root_cause"], *case.get("also_accept", [])]


def points_at(verdict: Verdict, case: dict[str, Any]) -> bool:
    """Whether the verdict cites the line that the case names."""
    wanted = (case.get("first_cause_line") or "").strip()
    return not wanted or wanted in (verdict.text or "") or bool(verdict.text and verdict.text in wanted)


@pytest.mark.parametrize("name", CASES)
def test_the_root_cause_is_named(name: str) -> None:
    case = CASES[name]
    verdict = answer(case["log"])
    assert verdict.cause in accepted(case)
    if verdict.line is not None:
        printed = case["log"].splitlines()[verdict.line - 1]
        assert printed.split()[0] in (verdict.text or "")  # the number is that of the line


# The line of the second rank's channel, where we cite that of the first: both say the same.
OTHER_LINE = {"189-nccl-p2p-hang-rtx6000-blackwell"}


@pytest.mark.parametrize("name", sorted(set(CASES) - OTHER_LINE))
def test_the_verdict_points_at_the_line_of_the_cause(name: str) -> None:
    case = CASES[name]
    assert points_at(answer(case["log"]), case)


@pytest.mark.parametrize("number", range(len(WORDINGS)))
def test_other_wordings_of_the_same_causes(number: int) -> None:
    assert answer(WORDINGS[number]["log"]).cause == WORDINGS[number]["cause"]


def test_benign_logs_have_no_finding() -> None:
    benign = {name: case for name, case in CASES.items() if case["root_cause"] == "none"}
    assert len(benign) >= 10
    for case in benign.values():
        report = diagnose([("train.log", [case["log"].encode()])], RULES)
        assert report.verdict is not None and report.verdict.cause == "none"
        assert report.findings == ()
        assert report.exit_code() == 0


@pytest.mark.parametrize("path", sorted((HERE / "healthy").glob("*.log")), ids=lambda path: path.stem)
def test_healthy_runs_are_left_alone(path: Path) -> None:
    report = diagnose([(path.name, [path.read_bytes()])], RULES)
    assert report.verdict is not None and report.verdict.cause == "none"
    assert report.findings == ()


# --- the same logs as others would have them


def healthy_lines(count: int) -> list[str]:
    """Lines of a training that goes well."""
    chance = random.Random(7)
    lines = []
    for step in range(count):
        loss, rate, epoch = chance.random() * 3 + 0.1, 1e-4 * (1 - step / count / 2), step / count
        lines.append(
            (
                f"{{'loss': {loss:.4f}, 'grad_norm': 1.2, 'learning_rate': {rate:.6g}, 'epoch': {epoch:.2f}}}",
                f" {step * 100 // count:2d}%|███▎      | {step}/12496 [19:52<3:33:30,  1.10s/it]",
                f"[2024-04-09 18:31:50,463] [INFO] [logging.py:96:log_dist] [Rank 0] step={step}, lr=[9.65e-06]",
                f"node1:77:80 [0] NCCL INFO Channel {step % 32:02d}/0 : 0[0] -> 1[1] via SHM/direct/direct",
            )[step % 4]
        )
    return lines


def others_ranks_hosts_paths(log: str) -> str:
    log = re.sub(r"\[rank(\d+)\]", lambda match: f"[rank{int(match[1]) + 3}]", log)
    log = re.sub(r"\bRank (\d+)\b", lambda match: f"Rank {int(match[1]) + 3}", log)
    log = re.sub(r"192\.168\.(\d+)\.(\d+)", r"10.20.\1.\2", log)
    for one, other in (
        ("/home/", "/mnt/users/"),
        ("/root/", "/opt/u/"),
        ("python3.10", "python3.12"),
        ("node1", "gpu-a17"),
        ("node2", "gpu-b4"),
    ):
        log = log.replace(one, other)
    return log


def every_line(prefix: str) -> Callable[[str], str]:
    return lambda log: "\n".join(prefix + line for line in log.splitlines())


def with_noise_of_another_rank(log: str) -> str:
    chance = random.Random(11)
    noise = ("INFO:__main__:loaded 1000 examples", "epoch 0 started", "  0%|          | 0/100 [00:00<?, ?it/s]")
    lines = []
    for line in log.splitlines():
        lines.append(line)
        if chance.random() < 0.5:
            lines.append(f"[rank5]: {chance.choice(noise)}")
    return "\n".join(lines)


def wrapped_at_80(log: str) -> str:
    return "\n".join(line[start : start + 80] for line in log.splitlines() for start in range(0, len(line) or 1, 80))


def in_a_fence(log: str) -> str:
    body = "\n  ".join(log.splitlines())
    return f"# Notes\n\nI ran this:\n\n```bash\nbash run.sh\n```\n\nand got\n\n  ```\n  {body}\n  ```\n\nWhat to do?\n"


VARIANTS: dict[str, Callable[[str], str]] = {
    "other ranks, hosts, paths": others_ranks_hosts_paths,
    "merged log of a run": every_line("node3:2| "),
    "pdsh": every_line("10.1.2.3: "),
    "torchrun": every_line("[default1]:"),
    "srun": every_line("3: "),
    "kubectl": every_line("[pod/train-worker-1/pytorch] "),
    "timestamps": every_line("2025-03-01T10:02:03.123456Z "),
    "interleaved": with_noise_of_another_rank,
    "wrapped": wrapped_at_80,
    "indented": lambda log: "# Notes\n\nIt failed:\n" + every_line("    ")(log) + "\n\nWhat to do?\n",
    "fenced": in_a_fence,
    "at the end of a long training": lambda log: "\n".join(healthy_lines(5000)) + "\n" + log,
    "windows": lambda log: log.replace("\n", "\r\n"),
    "coloured": lambda log: re.sub(r"(\w+Error)", "\x1b[1;31m\\1\x1b[0m", log),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_answer_does_not_hang_on_the_form(variant: str) -> None:
    change = VARIANTS[variant]
    missed = [
        (name, case["root_cause"], verdict.cause)
        for name, case in CASES.items()
        if (verdict := answer(change(case["log"]))).cause not in accepted(case)
    ]
    assert missed == []


def test_a_log_cut_off_before_its_cause_still_has_its_answer() -> None:
    for name, case in CASES.items():
        lines = case["log"].splitlines()
        wanted = (case.get("first_cause_line") or "").strip()
        place = next((number for number, line in enumerate(lines) if wanted and wanted in line), 0)
        assert answer("\n".join(lines[min(place, len(lines) // 3) :])).cause in accepted(case), name


# --- whole documents


def document(*names: str) -> str:
    parts = ["# What went wrong on the cluster", "", "| host | cards |", "| --- | --- |", "| a | 2 |"]
    for name in names:
        parts += ["", f"## {CASES[name]['id']}", "", "We saw this again:", "", "```text"]
        parts += CASES[name]["log"].splitlines()
        parts += ["```", "", "Setting `NCCL_DEBUG=INFO` did not help; see the CUDA documentation.", ""]
    return "\n".join(parts)


def test_every_failure_of_a_document_is_a_finding() -> None:
    names = (
        "seed-too-many-open-files",
        "seed-nccl-duplicate-lib-first",
        "seed-nvidia-smi-no-driver",
        "seed-loss-scale-minimum",
        "seed-nccl-timeout-offload-run",
        "seed-benign-zero3-run-with-warnings",
    )
    report: Report = diagnose([("notes.md", [document(*names).encode()])], RULES)
    causes = [finding.name for finding in report.findings if finding.severity is Severity.ERROR]
    assert causes == [
        "ulimit-nofile",
        "nccl-duplicate-lib",
        "nvidia-driver-not-loaded",
        "fp16-loss-scale-exhausted",
        "nccl-p2p-hang",
    ]
    assert report.verdict is not None and report.verdict.cause == "ulimit-nofile"
    assert any("5 failures that do not explain each other" in note for note in report.notes)
    assert any("find_unused_parameters" in note for note in report.notes)


def test_a_document_without_failures_has_none() -> None:
    report = diagnose([("notes.md", [document("seed-benign-zero3-run-with-warnings").encode()])], RULES)
    assert report.verdict is not None and report.verdict.cause == "none"
    assert report.findings == ()
