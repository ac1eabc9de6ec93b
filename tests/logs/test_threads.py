"""Logs of public threads, gathered and re-rendered without a look at the rules."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.logs.test_cases import VARIANTS, accepted, answer, points_at

THREADS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "threads").glob("*.yaml"))
}
KEYS = {"source", "root_cause", "also_accept", "first_cause_line", "explanation", "log"}

# Where another line is cited than the case names, and why that one is as good.
OTHER_LINE = {
    "bnb-cpu-build-kohya-str2optimizer8bit": "that libcudart is not found, for which this library is loaded",
    "datasets-worker-died-unsloth": "the exception of datasets, of which unsloth's is a copy with words around it",
    "ds-config-key-deprecated-aio-inside-zero-optimization": "what is wrong with the key, not the count above it",
    "elastic-rdzv-lost-torchx-ray": "the error of the rendezvous, not the broken pipe that it was raised from",
    "fsdp-save-oom-llama-recipes-1eb": "the call that saves: the memory alone would be cuda-oom",
    "libaio-pip-0-11": "what is missing, not that the build of the op was given up for it",
    "master-unreachable-1800s-gai5": "the name that does not resolve comes before the time that ran out over it",
    "nccl-duplicate-lib-table-llava-ds": "torch's first line, which names the NCCL that was loaded",
    "no-gpu-detected-cpm2-docker-no-driver": "that there is no driver, because of which no GPU is found",
    "rank-exited-silently-torch19-warning": "the agent's error, which the banner repeats",
    "zero3-device-map-axolotl": "the line in which axolotl logged the exception, word by word",
}
# After a training with rates of its own they say something else.
LONG = "at the end of a long training"
ABOUT_THE_TRAINING = {"lr-zero-dpr-resume", "optimizer-never-stepped-minicpmv-integer-zero-lr"}


@pytest.mark.parametrize("name", THREADS)
def test_the_root_cause_is_named(name: str) -> None:
    assert answer(THREADS[name]["log"]).cause in accepted(THREADS[name])


@pytest.mark.parametrize("name", THREADS)
def test_the_line_of_the_cause_is_cited(name: str) -> None:
    case = THREADS[name]
    if case["root_cause"] != "none":
        assert points_at(answer(case["log"]), case) != (name in OTHER_LINE)


@pytest.mark.parametrize("variant", ["merged log of a run", "torchrun", "wrapped", "fenced", LONG])
def test_the_answer_does_not_hang_on_the_form(variant: str) -> None:
    missed = {
        name for name, case in THREADS.items() if answer(VARIANTS[variant](case["log"])).cause not in accepted(case)
    }
    assert missed == (ABOUT_THE_TRAINING if variant == LONG else set())


def test_the_end_of_a_log_is_mostly_enough() -> None:
    """The paste begins at the line of the cause, or after a third where that comes later."""
    missed = []
    for name, case in THREADS.items():
        lines, wanted = case["log"].splitlines(), case.get("first_cause_line", "").strip()
        place = next((number for number, line in enumerate(lines) if wanted and wanted in line), 0)
        if answer("\n".join(lines[min(place, len(lines) // 3) :])).cause not in accepted(case):
            missed.append(name)
    assert len(missed) <= 0.03 * len(THREADS), missed


@pytest.mark.parametrize("name", THREADS)
def test_a_case_is_complete(name: str) -> None:
    case = THREADS[name]
    assert set(case) <= KEYS
    assert {"source", "root_cause", "explanation", "log"} <= set(case)
    assert case["source"].startswith("https://")
    assert case.get("first_cause_line", "") in case["log"]
    assert set(OTHER_LINE) <= set(THREADS)
