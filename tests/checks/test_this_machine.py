"""From a job file on disk to findings, on this very machine: what `dsdoctor check --job` does."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from dsdoctor.checks import run_checks
from dsdoctor.hosts.examine import HostChoice, examine
from dsdoctor.jobs.load import load_job
from dsdoctor.report.model import Finding
from tests.probe.conftest import lay

# This group's checks; what else is true of the machine is not this test's business.
OURS = (
    "missing-input", "unreadable-input", "git-lfs-pointer", "incomplete-model", "inputs-differ", "known-bad-model",
    "stale-outputs", "path-trap", "missing-log-folder", "low-memory", "stale-extension-lock", "mixed-extension-cache",
    "hanging-mount", "container-limits", "glibc-too-old", "shell-noise", "slow-shell",
)  # fmt: skip


def found(folder: Path, text: str) -> dict[str, Finding]:
    path = folder / "job.yaml"
    path.write_text(f"name: j\nscript: train.py\nstages: [{{name: s}}]\n{text}")
    job = load_job(str(path))
    outcome = run_checks(examine(HostChoice(), job=job), job, select=OURS)
    assert not outcome.crashed, outcome.crashed[0].traceback
    assert not outcome.skipped, outcome.skipped
    return {finding.name: finding for finding in outcome.findings}


def test_a_job_with_everything_in_its_place(tmp_path: Path) -> None:
    lay(tmp_path, {"data/train.json": "[]", "model/config.json": '{"model_type": "t5"}', "model/spiece.model": "x"})
    (tmp_path / "model/pytorch_model.bin").write_bytes(b"\x80\x02older pickle")
    args = "args: {data_dir: data, model_name_or_path: ./model, output_dir: out, log_file: train.log, dataset: glue}\n"
    assert found(tmp_path, args) == {}


def test_a_job_with_nothing_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    lay(
        tmp_path,
        {
            "model/config.json": '{"model_type": "llama"}',
            "model/tokenizer_config.json": '{"tokenizer_class": "LLaMATokenizer"}',
            "model/model.safetensors.index.json": index,
            "model/model-1.safetensors": pointer,
            "out/checkpoint-7/x": "",
            "cache/cpu_adam/lock": "",
        },
    )
    os.utime(tmp_path / "cache/cpu_adam/lock", (0, time.time() - 9000))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    seen = found(
        tmp_path,
        f"env: {{TORCH_EXTENSIONS_DIR: {tmp_path / 'cache'}}}\n"
        "args: {data_dir: data, model_name_or_path: ./model, output_dir: out, log_file: logs/order/train.log}\n",
    )
    assert set(seen) == {
        "missing-input", "git-lfs-pointer", "incomplete-model", "known-bad-model", "stale-outputs",
        "missing-log-folder", "stale-extension-lock",
    }  # fmt: skip
    assert seen["missing-input"].message == "the data data is not there"
    assert "1 of 2 weight files are missing: model-2.safetensors" in seen["incomplete-model"].message
    assert "2 hours old" in seen["stale-extension-lock"].message
    assert seen["missing-log-folder"].fix[0].commands == (f"mkdir -p -- {tmp_path}/logs/order",)
