"""The scripts of the published programs, as the notes describe them: what is wrong in each, and nothing else."""

from __future__ import annotations

import pytest

from dsdoctor.jobs.load_any import load_any
from dsdoctor.jobs.paths import named_paths
from tests.jobs.reading import SCRIPTS, judged

WANTED = {
    "olora/scripts/order_1.sh": {
        ("precision-disagrees", 7), ("optimizer-never-stepped", 38), ("scheduler-overridden", 19),
        ("stages-unguarded", 9), ("random-port", 9), ("predicts-at-every-stage", 11),
    },
    "olora/scripts_llama/order_1.sh": {
        ("precision-disagrees", 7), ("optimizer-never-stepped", 38), ("scheduler-overridden", 19),
        ("stages-unguarded", 9), ("random-port", 9), ("predicts-at-every-stage", 11),
    },
    "gorp/scripts_llama/order_1.sh": {
        ("blank-after-backslash", 33), ("precision-disagrees", 7), ("scheduler-overridden", 19),
        ("stages-unguarded", 11), ("random-port", 11), ("predicts-at-every-stage", 13),
    },
    "nlora/order_1.sh": {
        ("include-hides-hosts", 5), ("visible-devices-ignored", 3), ("stages-unguarded", 5), ("random-port", 5),
    },
    "xuanyuan/pretrain_run.sh": {("single-dash-option", 11), ("init-only-with-cuda", 17)},
    "xuanyuan/sync.sh": {("rsync-exclude-absolute", 2), ("init-only-with-cuda", 17)},
    "qwen/run.sh": {("arguments-never-read", 1)},
    "llama3/run.sh": set(),
    "llamafactory/run.sh": {
        ("master-port-unset", 6), ("unknown-config-key", 13), ("trains-in-fp32", 6),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WANTED)
def test_every_bad_setting_is_named_and_nothing_else(name: str) -> None:
    outcome = judged(SCRIPTS / name)
    found = {(finding.name, finding.evidence[0].line) for finding in outcome.findings}
    assert found == WANTED[name], [(finding.name, finding.message) for finding in outcome.findings]


def test_order_1_is_four_stages_with_the_lines_of_their_arguments() -> None:
    job = load_any(str(SCRIPTS / "olora/scripts/order_1.sh"))
    assert [stage.name for stage in job.stages] == ["1-dbpedia", "2-amazon", "3-yahoo", "4-agnews"]
    second = job.stages[1]
    assert second.args["model_name_or_path"] == "logs_and_outputs/order_1/outputs/1-dbpedia/adapter"
    assert second.args["learning_rate"] == 1e-3
    assert second.args["do_train"] is True
    assert second.lines["learning_rate"] == 58
    assert second.env == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "TRANSFORMERS_CACHE": "/data/alice/.cache/huggingface"}
    assert job.deepspeed is not None
    assert job.job.script == "src/run_uie_lora.py"


def test_what_the_caller_gives_is_unknown_and_skips_what_needs_it(tmp_path) -> None:  # type: ignore[no-untyped-def]
    script = tmp_path / "run.sh"
    script.write_text("torchrun train.py --per_device_train_batch_size 1 --bf16 $1 --fp16 False\n", encoding="utf-8")
    outcome = judged(script)
    (skip,) = [skip for skip in outcome.skipped if skip.name == "precision-disagrees"]
    assert skip.reason == "job: ${1} is not known: it is given when the script is called"
    assert outcome.findings == ()


def test_calls_with_different_configs_are_judged_apart(tmp_path) -> None:  # type: ignore[no-untyped-def]
    rest = '"train_micro_batch_size_per_gpu": "auto", "zero_optimization": {"stage": 2}}'
    (tmp_path / "fp16.json").write_text('{"fp16": {"enabled": true}, ' + rest, encoding="utf-8")
    (tmp_path / "bf16.json").write_text('{"bf16": {"enabled": true}, ' + rest, encoding="utf-8")
    script = tmp_path / "run.sh"
    common = "--per_device_train_batch_size 1"
    lines = [
        "set -e",
        f"deepspeed a.py --deepspeed fp16.json --fp16 True --output_dir out/a {common}",
        f"deepspeed b.py --deepspeed bf16.json --bf16 True --model_name_or_path out/a/last {common}",
        f"deepspeed b.py --deepspeed bf16.json --bf16 False --output_dir out/c {common}",
        f"deepspeed c.py --bf16 True --output_dir out/d {common}",
    ]
    script.write_text("\n".join(lines), encoding="utf-8")
    found = [(finding.name, finding.evidence[-1].text) for finding in judged(script).findings]
    assert found == [("precision-disagrees", "bf16: False")]
    job = load_any(str(script))
    assert [[stage.index for stage in part.stages] for part in job.parts] == [[1], [2, 3], [4]]
    assert "out/a/last" not in {named.path for part in job.parts for named in named_paths(part)}
