"""What is drawn into a pair to make it wrong: a value, a name, a word, as people get them wrong.

Each does one thing to a pair, or to one that lends itself to it, and says whether it did.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

Choose = Callable[[Sequence[Any]], Any]


class Pair(Protocol):
    """As much of a pair as a fault needs."""

    config: dict[str, Any]
    arguments: dict[str, str | None]
    alone: bool
    trailing: bool

    def block(self, name: str) -> dict[str, Any]: ...


def other_value(pair: Pair, choose: Choose) -> bool:
    """A value that the arguments contradict."""
    key, value = choose((
        ("train_micro_batch_size_per_gpu", 3), ("gradient_accumulation_steps", 4), ("train_batch_size", 96),
        ("gradient_clipping", 0.25),
    ))  # fmt: skip
    pair.config[key] = value
    return True


def other_optimizer_value(pair: Pair, choose: Choose) -> bool:
    """A value of the optimizer that the arguments contradict."""
    if "optimizer" not in pair.config:
        return False
    key, value = choose((("lr", 3e-5), ("weight_decay", 0.3), ("betas", [0.8, 0.999]), ("eps", 1e-6)))
    pair.config["optimizer"]["params"][key] = value
    return True


def other_scheduler_value(pair: Pair, choose: Choose) -> bool:
    """A value of the scheduler that the arguments contradict, or that means no warm-up at all."""
    if "scheduler" not in pair.config:
        return False
    key, value = choose((
        ("warmup_max_lr", 3e-5), ("warmup_num_steps", 7), ("warmup_num_steps", 0), ("warmup_num_steps", -1),
        ("total_num_steps", 77),
    ))  # fmt: skip
    if key == "total_num_steps" and pair.config["scheduler"]["type"] == "WarmupLR":
        return False
    pair.config["scheduler"]["params"][key] = value
    return True


def text_for_a_boolean(pair: Pair, choose: Choose) -> bool:
    """`"true"` in quotes."""
    block, key = choose((("bf16", "enabled"), ("fp16", "enabled"), ("zero_optimization", "overlap_comm")))
    if block == "zero_optimization" and block not in pair.config:
        return False
    pair.block(block)[key] = choose(("true", "false", "True"))
    return True


def contradicting_precision(pair: Pair, choose: Choose) -> bool:
    """A precision that the arguments do not ask for, or both at once."""
    pair.block(choose(("bf16", "fp16")))["enabled"] = choose((True, False, 1))
    return True


def both_precisions(pair: Pair, choose: Choose) -> bool:
    """Both on."""
    where = choose(("config", "arguments"))
    if where == "config":
        pair.block("fp16")["enabled"] = pair.block("bf16")["enabled"] = True
        return True
    if pair.alone:
        return False
    pair.arguments |= {"fp16": "true", "bf16": "true"}
    return True


def old_key(pair: Pair, choose: Choose) -> bool:
    """bf16 under the name that it had once."""
    block = pair.config.pop("bf16", {"enabled": "auto"})
    pair.config["bfloat16"] = choose((block, {"enabled": "true"}, {"enabled": True}, {"enabled": "auto"}))
    return True


def unknown_key(pair: Pair, choose: Choose) -> bool:
    """A key that DeepSpeed does not have, somewhere."""
    where, key = choose((
        ((), "zero_stage"), ((), "gradient_cliping"), ((), "comment"), (("zero_optimization",), "stage2_bucket"),
        (("zero_optimization",), "overlap_com"), (("zero_optimization", "offload_optimizer"), "devise"),
        (("fp16",), "enable"), (("bf16",), "opt_levels"), (("optimizer",), "parms"),
        (("optimizer", "params"), "learning_rate"), (("scheduler", "params"), "warmup_steps"),
        (("activation_checkpointing",), "partition_activation"), (("scheduler",), "params_"),
    ))  # fmt: skip
    block = pair.config
    for name in where:
        if not isinstance(block.get(name), dict):
            return False
        block = block[name]
    block[key] = choose((1, True, "auto"))
    return True


def misspelt_key(pair: Pair, choose: Choose) -> bool:
    """A key of the config with two letters the wrong way round."""
    blocks = [pair.config, *(value for value in pair.config.values() if isinstance(value, dict))]
    block = choose(blocks)
    keys = [key for key in block if len(key) > 4]
    if not keys:
        return False
    key = choose(keys)
    middle = choose(range(1, len(key) - 2))
    block[key[:middle] + key[middle + 1] + key[middle] + key[middle + 2 :]] = block.pop(key)
    return True


def wrong_kind_of_value(pair: Pair, choose: Choose) -> bool:
    """A value of a type or a range that is not taken."""
    where, value = choose((
        ("stage", 4), ("stage", "2"), ("stage", -1), ("reduce_bucket_size", 0), ("reduce_bucket_size", "5e8"),
        ("reduce_bucket_size", 5e8), ("stage3_prefetch_bucket_size", 3686.4), ("overlap_comm", 1),
        ("offload_optimizer", {"device": "gpu"}), ("offload_optimizer", True), ("offload_optimizer", None),
    ))  # fmt: skip
    pair.block("zero_optimization")[where] = value
    return True


def offload_at_the_wrong_stage(pair: Pair, choose: Choose) -> bool:
    """Parameters offloaded below stage 3, the optimizer at stage 0."""
    zero = pair.block("zero_optimization")
    zero["stage"] = choose((0, 1, 2))
    zero[choose(("offload_param", "offload_optimizer"))] = {"device": "cpu"}
    return True


def unknown_type(pair: Pair, choose: Choose) -> bool:
    """An optimizer or a scheduler that DeepSpeed does not have."""
    block = choose(("optimizer", "scheduler"))
    if block not in pair.config:
        return False
    pair.config[block]["type"] = choose(("AdamW8", "adamw", "ConstantLR", "warmuplr"))
    return True


def nothing_to_decay_over(pair: Pair, choose: Choose) -> bool:
    """A decaying scheduler that does not know how long."""
    if "scheduler" not in pair.config:
        return False
    pair.config["scheduler"]["type"] = choose(("WarmupDecayLR", "WarmupCosineLR"))
    pair.config["scheduler"]["params"].pop("total_num_steps", None)
    return True


def auto_for_nobody(pair: Pair, choose: Choose) -> bool:
    """An "auto" where nobody fills it in."""
    where = choose(("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_clipping", "steps_per_print"))
    if not pair.alone and where != "steps_per_print":
        return False
    pair.config[where] = "auto"
    return True


def unknown_argument(pair: Pair, choose: Choose) -> bool:
    """An argument that the Trainer does not have, or has no more."""
    if pair.alone:
        return False
    name, value = choose((("warmup_ratio", "0.1"), ("learning_rte", "1e-3"), ("evaluation_strategy", "no")))
    pair.arguments[name] = value
    return True


def not_json(pair: Pair, choose: Choose) -> bool:
    """A comment, and a comma too many."""
    pair.trailing = True
    return True


def no_zero_block(pair: Pair, choose: Choose) -> bool:
    """ZeRO is not mentioned."""
    return pair.config.pop("zero_optimization", None) is not None


def no_accumulation(pair: Pair, choose: Choose) -> bool:
    """The config leaves the accumulation to the arguments."""
    return pair.config.pop("gradient_accumulation_steps", None) is not None


def no_batch_at_all(pair: Pair, choose: Choose) -> bool:
    """None of the three batch sizes."""
    for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
        pair.config.pop(key, None)
    return True


FAULTS: tuple[Callable[[Pair, Choose], bool], ...] = (
    other_value, other_optimizer_value, other_scheduler_value, text_for_a_boolean, contradicting_precision,
    both_precisions, old_key, unknown_key, misspelt_key, wrong_kind_of_value, offload_at_the_wrong_stage, unknown_type,
    nothing_to_decay_over, auto_for_nobody, unknown_argument, not_json, no_batch_at_all, no_zero_block, no_accumulation,
)  # fmt: skip
