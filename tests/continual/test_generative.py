"""Generative models: prompts and answers as token numbers, greedy answers, and a stage on tiny random ones."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from continual import ContinualError, models
from continual.data import Task
from continual.generative import IGNORED, Generating, Limits
from continual.prompts import Asking
from continual.train import main

from tests.continual.conftest import stage_flags
from tests.continual.test_train import logged

pytestmark = pytest.mark.train
CPU = torch.device("cpu")
KINDS = ("t5", "llama", "qwen2")
ASKING = Asking("TC", "news", "Which topic?\n")


def task(*labels: str) -> Task:
    return Task("news", labels, (), (), asking=ASKING)


def plain(text: str) -> str:
    """Without blanks: a tokenizer of words puts them around signs."""
    return "".join(text.split())


def reading(folder: Path, **limits: Any) -> Generating:
    found = models.reading(models.find(str(folder)), Limits(**{"source": 200, **limits}), CPU, "fp32")
    assert isinstance(found, Generating)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learnt_is_the_answer_alone(tiny: Any, kind: str):
    made = reading(tiny(kind))
    inputs = made.inputs(task("sport", "music band"), [("goal match", 0), ("song", 1)])
    ids, mask, labels = inputs.batch([0, 1], CPU)
    if kind != "qwen2":  # whose tokens are parts of words
        assert inputs.weight([0, 1]) == 5  # sport, music, band, and two ends
    for place, answer in ((0, "sport"), (1, "music band")):
        learnt = labels[place][labels[place] != IGNORED]
        assert made.tokenizer.decode(learnt[:-1]).strip() == answer
        assert learnt[-1] == made.tokenizer.eos_token_id
        shown = made.tokenizer.decode(ids[place][mask[place] == 1], skip_special_tokens=True)
        assert plain(shown).endswith("Answer:" if kind == "t5" else plain(f"Answer: {answer}"))
    prompts, seen = inputs.prompts([0, 1], CPU)
    assert plain(made.tokenizer.decode(prompts[1][seen[1] == 1])).endswith("songAnswer:")
    assert bool(seen[1][0] if kind == "t5" else seen[1][-1]), "a decoder goes on where its prompt ends"


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_a_sum_over_answers_however_they_are_batched(tiny: Any, kind: str):
    made = reading(tiny(kind))
    inputs = made.inputs(task("sport", "music band"), [("goal match the the", 0), ("song", 1), ("band tune", 1)])
    learner = made.learner(made.model)
    with torch.no_grad():
        whole = learner(*inputs.batch([0, 1, 2], CPU))
        parts = learner(*inputs.batch([1], CPU)) + learner(*inputs.batch([2, 0], CPU))
    torch.testing.assert_close(whole, parts, atol=1e-4, rtol=1e-4)
    _, _, labels = inputs.batch([0, 1, 2], CPU)
    assert whole.item() > 0
    assert int((labels != IGNORED).sum()) == inputs.weight([0, 1, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_answers_do_not_depend_on_the_neighbours_in_a_batch(tiny: Any, kind: str):
    made = reading(tiny(kind))
    inputs = made.inputs(task("sport", "music band"), [("goal match the the", 0), ("song", 1), ("band tune", 1)])
    said: list[str] = []
    learner = made.learner(made.model)
    for batch in ([0, 1, 2], [0], [1], [2]):
        said += learner.answers(inputs, batch, CPU)
    assert said[:3] == said[3:]


def test_a_long_text_is_cut_and_the_question_around_it_stays(tiny: Any):
    made = reading(tiny("llama"), source=24)
    inputs = made.inputs(task("sport", "music"), [("goal " * 500 + "match", 0), ("goal " * 30, 0), ("goal", 1)])
    for place in range(3):
        prompt = made.tokenizer.decode(inputs.rows[place].prompt)
        assert len(inputs.rows[place].prompt) <= 24
        assert prompt.startswith("Task : TC")
        assert prompt.endswith("goal Answer :")
        assert "Option : sport , music" in prompt
    assert len(inputs.rows[0].prompt) > 20, "and not cut by more than it must"


@pytest.mark.parametrize(
    ("labels", "limits", "said"),
    [
        (("sport", "  "), {}, r"health: news: the answer '  ' has no token, so all labels of its examples are -100"),
        (("sport " * 9, "music"), {"target": 9}, r"--max_target_length 9: news: the answer .* has 10 tokens"),
        (("sport", "music"), {"source": 12}, r"--max_source_length 12: news: the prompt has \d+ tokens before any"),
    ],
)
def test_examples_that_cannot_be_learnt_are_named(tiny: Any, labels: tuple[str, ...], limits: Any, said: str):
    with pytest.raises(ContinualError, match=said):
        reading(tiny("llama"), **limits).inputs(task(*labels), [("goal " * 30, 0)])


@pytest.mark.parametrize("kind", KINDS)
def test_two_stages(
    tiny: Any, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any, kind: str
):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    # Long enough for a tokenizer that hardly knows a word.
    shape = {"max_source_length": 200, "max_steps": 12, "learning_rate": 0.02, "method": "seqlora"}
    for stage in (1, 2):
        flags = stage_flags(tiny(kind), benchmark, tmp_path, stage, **shape)
        if kind != "t5":  # of a random decoder, query and value alone can change little
            flags += ["--lora_target_modules", "q_proj", "v_proj", "o_proj", "down_proj", "lm_head"]
        assert main(flags) == 0, capsys.readouterr().err
        lines = logged(capsys.readouterr().out)
        assert sum(line["loss"] for line in lines[-3:]) < 0.95 * sum(line["loss"] for line in lines[:3])
    assert len(json.loads((tmp_path / "2" / "results.json").read_text())["accuracy"][1]) == 2


def test_activations_computed_twice_change_no_loss(
    tiny: Any, benchmark: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    seen = []
    for extra in ([], ["--gradient_checkpointing"]):
        flags = stage_flags(tiny("llama"), benchmark, tmp_path / str(len(extra)), max_source_length=48, max_steps=3)
        assert main([*flags, *extra]) == 0
        seen.append([line["loss"] for line in logged(capsys.readouterr().out)])
    assert seen[0] == seen[1]
    model = reading(tiny("llama")).model
    models.save_activations(model)
    assert any(part.training for part in model.modules())


def test_a_name_that_is_not_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ContinualError, match=r"nobody/nothing: no such folder .*, and not in the hub's cache") as told:
        models.find("nobody/nothing")
    assert "hf download nobody/nothing" in str(told.value)


def test_where_lora_goes(tiny: Any):
    base = models.find(str(tiny("qwen2")))
    model = reading(base.path).model
    models.check_targets(model, base, ())
    models.check_targets(model, base, ("q_proj", "mlp.gate_proj"))
    with pytest.raises(ContinualError, match=r"--lora_target_modules query: no such module .* k_proj, lm_head, o_proj"):
        models.check_targets(model, base, ("query",))
    model.config.model_type = "unheard-of"
    with pytest.raises(ContinualError, match=r"peft has none for 'unheard-of' .*; wanted some of .* q_proj"):
        models.check_targets(model, base, ())


def test_few_bits_need_a_gpu(tiny: Any, encoder: Path):
    with pytest.raises(ContinualError, match="--load_in_bits 4: this rank computes on the CPU; wanted a CUDA device"):
        models.reading(models.find(str(tiny("llama"))), Limits(40), CPU, "fp32", bits=4)
    with pytest.raises(ContinualError, match=r"--load_in_bits 8: .* is an encoder; wanted a generative model"):
        models.reading(models.find(str(encoder)), Limits(40), CPU, "fp32", bits=8)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"is_encoder_decoder": True, "model_type": "t5"}, "seq2seq"),
        ({"model_type": "llama", "architectures": None}, "causal"),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "causal"),
        ({"model_type": "bert", "architectures": ["BertModel"]}, "encoder"),
        ({"model_type": "bert", "architectures": None}, "encoder"),
        ({"model_type": "new", "architectures": ["NewForCausalLM"]}, "causal"),
    ],
)
def test_what_a_model_is(config: dict[str, Any], kind: str):
    assert models.kind_of(Namespace(**config), models.Base(Path("/m"), None, "abc")) == kind


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.timeout(900)
def test_tiny_llama_learns_for_a_few_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    # The same two examples in each step: the loss must fall.
    shape = {"max_steps": 3, "global_batch_size": 2, "num_hidden_layers": 6}
    flags = stage_flags(tmp_path, tmp_path, tmp_path, model_name_or_path="tiny-llama", data="builtin", **shape)
    place = flags.index("--data_dir")
    flags[place : place + 2] = ["--max_source_length", "96", "--max_train_samples", "2", "--max_predict_samples", "2"]
    assert main([*flags, "--learning_rate", "1e-3"]) == 0, capsys.readouterr().err
    losses = [line["loss"] for line in logged(capsys.readouterr().out)]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
