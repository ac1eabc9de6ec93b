"""DeepSpeed configs that a Python program holds as a mapping."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.in_code import config_in_code
from tests.jobs.reading import judged

PROGRAM = """from transformers import TrainingArguments
ds = {
    "train_micro_batch_size_per_gpu": 4,  # a remark
    "zero_optimization": {
        "stage": 2,
        "overlap_com": True,
    },
}
args = TrainingArguments(output_dir="o", per_device_train_batch_size=8, deepspeed=ds)
"""


def test_a_mapping_under_a_name_is_judged_with_its_lines_in_the_program(tmp_path: Path) -> None:
    path = tmp_path / "t.py"
    path.write_text(PROGRAM)
    found = {(one.name, one.evidence[0].source, one.evidence[0].line) for one in judged(path).findings}
    assert found >= {("unknown-config-key", str(path), 6), ("config-disagrees", str(path), 3)}


@pytest.mark.parametrize(
    "text",
    [
        "engine = deepspeed.initialize(model=m, config={'train_batch_size': 8})",
        "c = {'train_batch_size': 8}\ndeepspeed.initialize(model=m, config_params=c)",
        "from deepspeed import initialize\ninitialize(config={'train_batch_size': 8})",
        "c: dict = {'train_batch_size': 8}\nx = Seq2SeqTrainingArguments('o', deepspeed=c)",
    ],
)
def test_ways_to_give_one(text: str) -> None:
    config = config_in_code(text, "t.py")
    assert config is not None
    assert config.value == {"train_batch_size": 8}
    assert dsconfig.line_of(config, "train_batch_size") == 1 + text[: text.index("'train")].count("\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "def broken(",
        "x" + "+x" * 50_000,
        "deepspeed.initialize(config={'train_batch_size': size})",
        "deepspeed.initialize(config={'a': float('nan')})",
        "deepspeed.initialize(config={1: 2})",
        "deepspeed.initialize(config={**other})",
        "deepspeed.initialize(config={'a': {1, 2}})",
        "deepspeed.initialize(config={'a': 1, 'a': 2})",
        "other.initialize(config={'train_batch_size': 8})",
        "c = {'train_batch_size': 8}\nc = {'train_batch_size': 9}\ndeepspeed.initialize(config=c)",
        "c = {'train_batch_size': 8}\nc['zero_optimization'] = {}\ndeepspeed.initialize(config=c)",
        "c = {'z': {}}\nc['z']['stage'] = 2\ndeepspeed.initialize(config=c)",
        "c = {'z': {}}\nc['z'].update(stage=2)\ndeepspeed.initialize(config=c)",
        "c = {'z': 1}\ndel c['z']\ndeepspeed.initialize(config=c)",
    ],
)
def test_what_cannot_be_told_is_left_out(text: str) -> None:
    assert config_in_code(text, "t.py") is None
