"""The parts of the forecasts: parameters, what each setting does, ways out, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsdoctor.jobs.dsconfig import parse_config
from dsdoctor.jobs.forecast import memory, speed
from dsdoctor.jobs.forecast.remedies import remedies
from dsdoctor.jobs.forecast.shape import UnknownModelError, shape_of
from dsdoctor.jobs.forecast.tables import cards
from dsdoctor.jobs.forecast.training import Lora, Training, Zero, training_of
from dsdoctor.jobs.forecast.work import work_of
from dsdoctor.jobs.job import Job, ResolvedJob, Stage, StageSettings
from tests.forecast.models import ADAPTERS, CONFIGS, FULL, PARAMETERS, model


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_published_models(name: str) -> None:
    assert model(name).parameters == PARAMETERS[name]


def test_lora_has_as_many_parameters_as_peft_printed() -> None:
    assert memory.forecast(model("Qwen2.5-7B"), ADAPTERS).trainable == 20_185_088
    three = replace(ADAPTERS, lora=Lora(8, ("q_proj", "v_proj", "k_proj")))
    assert memory.forecast(model("Llama-3-8B"), three).trainable == 4_718_592
    assert memory.forecast(model("T5-large"), Training(lora=Lora())).trainable == 2_359_296


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({}, "the architecture (none) is not known"),
        ({"model_type": "mamba"}, "the architecture mamba is not known"),
        ({"model_type": "llama"}, "config.json has no hidden_size"),
        ({**CONFIGS["GPT-2"], "n_layer": -3}, "config.json has no n_layer"),
        ({**CONFIGS["GPT-2"], "n_layer": "12"}, "config.json has no n_layer"),
        ({**CONFIGS["GPT-2"], "n_layer": True}, "config.json has no n_layer"),
        ({**CONFIGS["GPT-2"], "n_embd": 10**30}, "config.json has no n_embd"),
    ],
)
def test_what_is_no_size_is_refused(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnknownModelError, match=r"config|architecture") as raised:
        shape_of(config)
    assert reason in str(raised.value)


def test_zero_spreads_what_its_stage_spreads() -> None:
    """By hand, in bytes a parameter on 8 ranks: weights 2, states 8, masters 4, gradients 2; stage 0 adds them up in
    fp32. The worst of stage 1 is the whole gradient beside its reduced part and a bucket of 5e8 elements; of stages 2
    and 3 the step: the partition, flattened (2 / 8) and in fp32 (4 / 8)."""
    whole = Training("mixed", engine="deepspeed", micro_batch=1, length=1, ranks=8, accumulation=2)
    count = PARAMETERS["LLaMA-7B"]
    found = [memory.forecast(model("LLaMA-7B"), replace(whole, zero=Zero(stage))) for stage in range(4)]
    sizes = [{part.name: part.size for part in each.gpu} for each in found]
    assert [size["optimizer states"] // count for size in sizes] == [8, 1, 1, 1]
    assert [round(size["gradients"] / count, 2) for size in sizes] == [2, 2, 0.25, 0.25]
    assert [round(size["weights"] / count, 2) for size in sizes] == [2, 2, 2, 0.25]
    assert sizes[3]["gradient buckets"] == 2 * 500_000_000
    by_hand = [20 * count, (2 + 1.5 + 2.25) * count + 1e9, 4.5 * count, 2.75 * count + 1e9]
    assert [round(each.tensors / wanted, 3) for each, wanted in zip(found, by_hand, strict=True)] == [1, 1, 1, 1]


def test_zero_3_gathers_no_more_than_it_is_told() -> None:
    live = Training("mixed", engine="deepspeed", zero=Zero(3, max_live=300_000_000), micro_batch=64, length=512)
    sizes = {part.name: part.size for part in memory.forecast(model("LLaMA-7B"), replace(live, ranks=8)).gpu}
    assert sizes["gathered weights"] == 2 * 300_000_000


def test_a_bucket_has_all_its_elements_however_few_are_trained() -> None:
    training = Training("mixed", engine="deepspeed", zero=Zero(2), lora=Lora(), micro_batch=1, length=64, ranks=2)
    for zero, size in (
        (Zero(2), 10**9),
        (Zero(2, overlap=True), 2 * 10**9),
        (Zero(2, reduce_bucket=None), 2 * 4096**2),
    ):
        sizes = {part.name: part.size for part in memory.forecast(model("LLaMA-7B"), replace(training, zero=zero)).gpu}
        assert sizes.get("gradient buckets", 2 * 4096**2) == size


def test_offload_moves_eighteen_bytes_a_parameter_to_the_hosts() -> None:
    """States 8, masters 4, gradients 4, and the new weights 2 before they go back, over four ranks; room for one
    gradient, the table of 32,000 words."""
    training = Training("mixed", engine="deepspeed", zero=Zero(2, "cpu"), length=128, ranks=4)
    found = memory.forecast(model("LLaMA-7B"), training)
    assert found.ram == 18 * PARAMETERS["LLaMA-7B"] // 4 + 2 * 32000 * 4096
    assert not any(part.name == "optimizer states" for part in found.gpu)
    third = memory.forecast(model("LLaMA-7B"), replace(training, zero=Zero(3, "cpu", "cpu")))
    assert third.ram == (18 + 2) * PARAMETERS["LLaMA-7B"] // 4
    assert not any(part.name == "weights" for part in third.gpu)


def test_fsdp_shards_weights_and_gathers_a_layer_or_all() -> None:
    """LLaMA-7B over 8 ranks: 4 bytes a parameter are kept in shards either way. full_shard has two layers and what is
    in none at a time (two tables and a norm), shard_grad_op all, in 16 bits."""
    count, layer = PARAMETERS["LLaMA-7B"], 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    full = Training("autocast", engine="fsdp", length=1024, micro_batch=16, ranks=8)
    for shards, gathered in ((True, 2 * (2 * layer + count - 32 * layer)), (False, 2 * count)):
        found = memory.forecast(model("LLaMA-7B"), replace(full, shards_parameters=shards))
        sizes = {part.name: part.size for part in found.gpu}
        assert sizes["weights"] == count * 4 // 8
        assert sizes["gathered weights"] == gathered
        assert sizes["optimizer states"] == count


def test_ddp_has_a_copy_of_the_gradients_in_its_buckets() -> None:
    alone = memory.forecast(model("GPT-2"), Training(micro_batch=1, length=8))
    two = memory.forecast(model("GPT-2"), Training(micro_batch=1, length=8, engine="ddp", ranks=2))
    assert two.tensors - alone.tensors == 4 * PARAMETERS["GPT-2"]


def test_accumulation_keeps_the_gradients_beside_the_activations() -> None:
    """With enough tokens the loss is the worst moment; from the second micro-batch on the gradients are there."""
    once = Training(micro_batch=8, length=1024)
    shape = model("GPT-2")
    more = memory.forecast(shape, replace(once, accumulation=4)).tensors - memory.forecast(shape, once).tensors
    assert more == 4 * PARAMETERS["GPT-2"]


def test_lora_with_checkpointing_by_hand() -> None:
    """LLaMA-7B in bf16, adapters of rank 8 on q and v in fp32 with gradients and two states, 4 x 512 tokens: every
    layer keeps its input, one is computed anew, and the loss over 32,000 words is computed in fp32."""
    training = Training("pure16", lora=Lora(8), micro_batch=4, length=512, checkpointing=True)
    sizes = {part.name: part.size for part in memory.forecast(model("LLaMA-7B"), training).gpu}
    tokens, adapters = 4 * 512, 32 * 2 * 8 * (4096 + 4096)
    assert sizes["weights"] == 2 * PARAMETERS["LLaMA-7B"] + 4 * adapters
    assert sizes["optimizer states"] == 8 * adapters
    assert sizes["activations"] == tokens * (32 * 4096 * 2 + 4 * 4096 + 4 * 32000)
    layer = tokens * (8 * 4096 + 6 * 11008 + 4 * 32 + 8 + 4 * 4096 + 4 * 4096 + 2 * 4 * (4096 + 8))
    assert sizes["loss"] == max(layer, tokens * 8 * 32000)


TRAININGS = st.builds(
    Training,
    precision=st.sampled_from(["fp32", "pure16", "mixed", "autocast"]),
    optimizer=st.sampled_from(["adamw", "adamw_8bit", "adafactor", "sgd", "momentum"]),
    engine=st.sampled_from(["single", "ddp", "deepspeed", "fsdp"]),
    zero=st.builds(Zero, st.integers(0, 3), st.sampled_from(["gpu", "cpu"])),
    lora=st.none() | st.just(Lora()),
    micro_batch=st.integers(1, 64),
    length=st.integers(1, 4096),
    target_length=st.integers(0, 512),
    accumulation=st.integers(1, 8),
    checkpointing=st.booleans(),
    attention=st.sampled_from(["sdpa", "eager"]),
    ranks=st.integers(1, 64),
)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(CONFIGS)), TRAININGS)
def test_more_work_never_needs_less(name: str, training: Training) -> None:
    shape = model(name)
    before = memory.forecast(shape, training)
    assert 0 < before.least <= before.most
    for change in (
        {"micro_batch": training.micro_batch + 1},
        {"length": (training.length or 0) + 7},
        {"accumulation": training.accumulation + 1},
    ):
        assert memory.forecast(shape, replace(training, **change)).tensors >= before.tensors
    if training.attention == "sdpa" and not training.checkpointing and shape.family not in ("gpt2", "bert"):
        saved = memory.forecast(shape, replace(training, checkpointing=True)).tensors
        assert saved <= before.tensors * 1.5, "one layer is kept beside the gradients, at most"


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(CONFIGS)), TRAININGS, st.integers(4, 80))
def test_ways_out_fit(name: str, training: Training, gib: int) -> None:
    limit = gib << 30
    for remedy in remedies(model(name), training, limit, ram=64 << 30):
        assert remedy.memory.most <= limit
        assert remedy.memory.ram <= 64 << 30
        assert memory.forecast(model(name), remedy.training) == remedy.memory


def test_the_least_loss_comes_first() -> None:
    training = Training("autocast", micro_batch=32, length=512)
    titles = [remedy.title for remedy in remedies(model("Qwen2.5-0.5B"), training, 40 << 30)]
    assert titles[0].startswith("gradient_checkpointing") or titles[0].startswith("per_device")
    assert "LoRA" not in titles[0]
    assert remedies(model("LLaMA-7B"), training, 1 << 30) == (), "nothing fits seven billion parameters into 1 GiB"


def resolved(args: dict[str, Any], deepspeed: str | None = None, script: str = "train.py") -> Training:
    job = Job(name="j", stages=(Stage(name="s"),), script=script)
    config = parse_config(deepspeed, "ds.json") if deepspeed else None
    stage = StageSettings("s", 1, args)
    return training_of(ResolvedJob(job, "j.yaml", ".", None, (stage,), {}, config), stage, 2)


@pytest.mark.parametrize(
    ("args", "deepspeed", "expected"),
    [
        ({}, None, {"precision": "fp32", "engine": "ddp", "micro_batch": 8, "length": None}),
        ({"bf16": True}, None, {"precision": "autocast"}),
        ({"bf16": 1, "torch_dtype": "bfloat16"}, None, {"precision": "pure16", "autocast": True}),
        ({"bf16": True}, '{"bf16": {"enabled": "auto"}}', {"precision": "mixed", "engine": "deepspeed"}),
        ({}, '{"bf16": {"enabled": "auto"}}', {"precision": "fp32"}),
        ({}, '{"bfloat16": {"enabled": "true"}}', {"precision": "mixed"}),
        ({"optim": "paged_adamw_8bit"}, None, {"optimizer": "adamw_8bit"}),
        ({"optim": "adafactor"}, None, {"optimizer": "adafactor"}),
        ({"fsdp": "full_shard auto_wrap"}, None, {"engine": "fsdp", "shards_parameters": True}),
        ({"fsdp": "shard_grad_op"}, None, {"engine": "fsdp", "shards_parameters": False}),
        ({"lora_rank": "16", "lora_target": "q_proj,v_proj"}, None, {"lora": Lora(16, ("q_proj", "v_proj"))}),
        ({"cutoff_len": 1024, "gradient_checkpointing": "true"}, None, {"length": 1024, "checkpointing": True}),
        ({"load_in_4bit": True}, None, {"base_bits": 4}),
        ({"global_batch_size": 64}, None, {"micro_batch": 32}),
        ({"per_device_train_batch_size": "auto"}, '{"train_micro_batch_size_per_gpu": 4}', {"micro_batch": 4}),
        ({"per_device_train_batch_size": -1, "max_length": None}, None, {"micro_batch": 8, "length": None}),
    ],
)
def test_settings_out_of_arguments_and_config(args: dict[str, Any], deepspeed: str | None, expected: Any) -> None:
    found = resolved(args, deepspeed)
    assert {name: getattr(found, name) for name in expected} == expected


def test_zero_settings_out_of_the_config() -> None:
    text = '{"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}, "reduce_bucket_size": "auto"}}'
    assert resolved({}, text).zero == Zero(3, "gpu", "cpu", None, overlap=True)
    assert resolved({}, '{"zero_optimization": {"stage": "x", "cpu_offload": true}}').zero.optimizer_on == "cpu"


def test_a_script_with_lora_in_its_name_trains_adapters() -> None:
    assert resolved({}, script="src/run_uie_lora.py").lora == Lora()
    assert resolved({"use_lora": False}, script="src/run_uie_lora.py").lora is None


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("Tesla V100-PCIE-32GB", "V100-PCIE"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA RTX A4000", None),
        ("NVIDIA L40S", None),
        ("", None),
    ],
)
def test_cards_by_name(name: str, card: str | None) -> None:
    found = speed.card_of(name)
    assert (found.name if found else None) == card


def test_every_rate_has_its_source() -> None:
    assert all(card.source and card.fp32 > 0 and (card.fp16 or 0) >= card.fp32 for card in cards())


def test_tokens_out_of_steps_samples_or_bytes() -> None:
    stage = StageSettings("s", 1, {"max_steps": 100})
    training = replace(FULL, ranks=2)
    steps = work_of(stage, training)
    assert steps is not None
    assert steps.least == steps.most == 100 * 16 * 161
    samples = work_of(StageSettings("s", 1, {"max_train_samples": "10", "num_train_epochs": 2}), training)
    assert samples is not None
    assert samples.least == 2 * 10 * 161
    text = work_of(StageSettings("s", 1, {"num_train_epochs": 1}), training, 6_000_000)
    assert text is not None
    assert (text.least, text.most) == (1_000_000, 6_000_000)
    assert work_of(StageSettings("s", 1, {"max_steps": -1}), training) is None
    assert work_of(stage, replace(training, length=None)) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(20, "20 seconds"), (600, "10 minutes"), (9000, "2.5 hours"), (1e6, "12 days"), (11 * speed.YEAR, "11 years")],
)
def test_spans(seconds: float, text: str) -> None:
    assert speed.span(seconds) == text


def test_a_row_of_changes_says_what_each_step_leaves() -> None:
    training = Training("fp32", micro_batch=8, length=512, foreach=True)
    (row,) = remedies(model("Qwen2.5-0.5B"), training, 8 << 30)
    assert [title for title, _ in row.steps] == row.title.split(" + ")
    figures = [memory.forecast(model("Qwen2.5-0.5B"), training).most, *(found.most for _, found in row.steps)]
    assert len(figures) > 2
    assert figures == sorted(figures, reverse=True)
    assert row.steps[-1][1] == row.memory


def test_a_smaller_bucket_is_a_way_out_for_adapters() -> None:
    training = Training("mixed", engine="deepspeed", zero=Zero(2, overlap=True), lora=Lora(), micro_batch=1, length=64)
    before = memory.forecast(model("LLaMA-7B"), training)
    found = remedies(model("LLaMA-7B"), training, before.most - (1 << 30))
    assert found[0].title == "reduce_bucket_size: 50000000"
    assert before.tensors - found[0].memory.tensors == 2 * 2 * 450_000_000 - _difference(training)


def _difference(training: Training) -> int:
    """What the loss needs beyond the buckets' moment: with small buckets it is the worst."""
    from dsdoctor.jobs.forecast.activations import kept

    small = 2 * 2 * 50_000_000
    return max(0, kept(model("LLaMA-7B"), training).loss - small)


def test_evaluating_by_hand() -> None:
    """Llama-3-8B in bf16: 128,256 words in 16 bits, in fp32 and their logarithms; 8 keys' heads of 128 in 32 layers."""
    training = Training("pure16", lora=Lora(), micro_batch=1, length=64, eval_batch=16)
    sizes = {part.name: part.size for part in memory.forecast(model("Llama-3-8B"), training).gpu}
    assert sizes["logits"] == 16 * 64 * (10 * 128256 + 2 * 4096)
    assert sizes["keys and values"] == 2 * 32 * 8 * 128 * 2 * 16 * 64
    assert "activations" not in sizes, "gradients and activations are gone by then"
    answers = replace(training, eval_batch=256, new_tokens=50)
    sizes = {part.name: part.size for part in memory.forecast(model("Llama-3-8B"), answers).gpu}
    assert sizes["keys and values"] == 2 * 32 * 8 * 128 * 2 * 256 * (64 + 50)
    assert sizes["logits"] == 256 * 128256 * 6


def test_generation_of_t5_keeps_keys_and_values_of_both_sides() -> None:
    training = Training(micro_batch=1, length=512, target_length=50, eval_batch=128, new_tokens=50)
    sizes = {part.name: part.size for part in memory.forecast(model("T5-large"), training).gpu}
    assert sizes["keys and values"] == 2 * 24 * 1024 * 4 * 128 * (512 + 50)


def test_an_evaluation_that_is_asked_for_is_counted() -> None:
    assert resolved({}).eval_batch == 0
    assert resolved({"do_eval": True}).eval_batch == 8
    assert resolved({"evaluation_strategy": "steps", "per_device_eval_batch_size": 4}).eval_batch == 4
    assert resolved({"evaluation_strategy": "no", "per_device_eval_batch_size": 4}).eval_batch == 0
    found = resolved({"do_predict": True, "predict_with_generate": True, "max_target_length": 50})
    assert (found.eval_batch, found.new_tokens) == (8, 50)


def test_smaller_batches_of_evaluation_are_a_way_out() -> None:
    training = Training("pure16", lora=Lora(), micro_batch=1, length=512, eval_batch=64)
    found = remedies(model("Llama-3-8B"), training, 24 << 30)
    assert [remedy.title for remedy in found] == ["per_device_eval_batch_size: 1"]
