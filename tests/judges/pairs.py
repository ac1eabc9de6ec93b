"""Draws pairs of a DeepSpeed config and training arguments: right ones, and ones with up to two things wrong in them.

`choose` is whatever picks one of several: hypothesis' draw in the tests, a seeded random generator in the sweep.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Choose = Callable[[Sequence[Any]], Any]
LEFT_OUT = object()


@dataclass
class Pair:
    """A config and the arguments beside it. `alone`: the script calls `deepspeed.initialize`, and there is no Trainer.

    `faults` names what was drawn into it, for the tables; neither our checks nor the judge see it.
    """

    config: dict[str, Any]
    arguments: dict[str, str | None] = field(default_factory=dict)  # None: a flag without a value
    alone: bool = False
    trailing: bool = False  # whether the text of the config has a comment and a comma too many
    faults: list[str] = field(default_factory=list)

    @property
    def argv(self) -> list[str]:
        """The arguments as they stand on a command line."""
        return [word for name, value in self.arguments.items() for word in (f"--{name}", value) if word is not None]

    @property
    def text(self) -> str:
        """The config as it stands in its file."""
        text = json.dumps(self.config, indent=2)
        return "// for the two cards\n" + text[:-2] + ",\n}\n" if self.trailing else text + "\n"

    def as_asked(self) -> dict[str, Any]:
        """The pair as the judge wants it."""
        return {"config": self.config, "text": self.text, "argv": self.argv, "alone": self.alone}

    def block(self, name: str) -> dict[str, Any]:
        """A block of the config, made where it is not there."""
        made: dict[str, Any] = self.config.setdefault(name, {})
        return made


def draw(choose: Choose) -> Pair:
    """A pair, with none, one or two of the `FAULTS`; some faults do nothing to some pairs and are not counted then."""
    pair = _right(choose)
    for _ in range(choose((0, 1, 1, 1, 2))):
        fault = choose(FAULTS)
        if fault(pair, choose):
            pair.faults.append(fault.__name__)
    return pair


def _right(choose: Choose) -> Pair:
    """A pair in which nothing is wrong: every value that both have is equal, "auto", or only among the arguments."""
    alone = choose((False, False, False, True))
    pair = Pair({}, alone=alone)
    batch, accumulation = choose((1, 2, 4)), choose((1, 1, 2))
    rate, decay, clip = choose(("1e-3", "5e-4", None)), choose(("0.01", None)), choose(("0.5", None))
    given = {
        "per_device_train_batch_size": str(batch),
        "gradient_accumulation_steps": str(accumulation) if accumulation > 1 else None,
        "learning_rate": rate,
        "weight_decay": decay,
        "max_grad_norm": clip,
        "max_steps": choose(("2", "3")),
        "lr_scheduler_type": choose(("constant", "linear", "constant_with_warmup", None)),
        "warmup_steps": choose(("0", "1", "2", None)),
    }
    if not alone:
        pair.arguments = {name: value for name, value in given.items() if value is not None}
    spell = _spelling(choose, alone)
    pair.config["train_micro_batch_size_per_gpu"] = batch if alone else choose(("auto", batch))
    pair.config["gradient_accumulation_steps"] = accumulation if alone else choose(("auto", accumulation))
    _put(pair.config, "train_batch_size", spell(batch * accumulation))
    _put(pair.config, "gradient_clipping", spell(float(clip or 1.0)))
    _precision(pair, choose)
    _zero(pair, choose)
    _optimizer(pair, choose, spell, float(rate or 5e-5), float(decay or 0.0))
    if "optimizer" in pair.config:
        _scheduler(pair, choose, spell, float(rate or 5e-5))
    _put(pair.config, "wall_clock_breakdown", choose((False, LEFT_OUT)))
    _put(pair.config, "steps_per_print", choose((2000, LEFT_OUT)))
    return pair


def _spelling(choose: Choose, alone: bool) -> Callable[[Any], Any]:
    """How a value that the arguments have, too, is written in the config."""
    return lambda value: choose((value, LEFT_OUT) if alone else ("auto", "auto", value, LEFT_OUT))


def _put(block: dict[str, Any], key: str, value: Any) -> None:
    if value is not LEFT_OUT:
        block[key] = value


def _precision(pair: Pair, choose: Choose) -> None:
    which = choose(("bf16", "bf16", "fp16", None))
    if which and not pair.alone:
        pair.arguments[which] = choose((None, "true", "True"))
    for name in ("fp16", "bf16"):
        if choose((True, name == which)):
            value = which == name if pair.alone else choose(("auto", which == name))
            pair.config[name] = {"enabled": value}
            if name == "fp16":
                _put(pair.config[name], "loss_scale", choose((0, LEFT_OUT)))
                _put(pair.config[name], "initial_scale_power", choose((8, LEFT_OUT)))


def _zero(pair: Pair, choose: Choose) -> None:
    stage = choose((0, 1, 2, 2, 3))
    size = (LEFT_OUT, 500) if pair.alone else ("auto", LEFT_OUT, 500)
    zero = pair.config["zero_optimization"] = {"stage": stage}
    for key in ("overlap_comm", "contiguous_gradients", "reduce_scatter"):
        _put(zero, key, choose((True, LEFT_OUT)))
    _put(zero, "reduce_bucket_size", choose(size))
    _put(zero, "allgather_bucket_size", choose((200, 5e8, LEFT_OUT)))
    offload = {"device": choose(("cpu", "none")), "pin_memory": False}
    if stage in (1, 2, 3) and not pair.alone:
        _put(zero, "offload_optimizer", choose((offload, LEFT_OUT)))
    if stage == 3:
        _put(zero, "offload_param", choose((offload, LEFT_OUT)))
        for key in ("stage3_prefetch_bucket_size", "stage3_param_persistence_threshold"):
            _put(zero, key, choose(size))
        _put(zero, "stage3_gather_16bit_weights_on_model_save", choose((True, LEFT_OUT)))


def _optimizer(pair: Pair, choose: Choose, spell: Callable[[Any], Any], rate: float, decay: float) -> None:
    if choose((True, False)):
        params: dict[str, Any] = {}
        _put(params, "lr", spell(rate))
        _put(params, "weight_decay", spell(decay))
        _put(params, "betas", spell([0.9, 0.999]))
        _put(params, "eps", spell(1e-8))
        pair.config["optimizer"] = {"type": choose(("AdamW", "AdamW", "Adam")), "params": params}


def _scheduler(pair: Pair, choose: Choose, spell: Callable[[Any], Any], rate: float) -> None:
    kind = choose(("WarmupLR", "WarmupLR", "WarmupDecayLR", None))
    if kind is None:
        return
    steps = int(pair.arguments.get("warmup_steps") or 0)
    params: dict[str, Any] = {}
    _put(params, "warmup_min_lr", choose((0, LEFT_OUT) if pair.alone else ("auto", 0, LEFT_OUT)))
    _put(params, "warmup_max_lr", spell(rate))
    _put(params, "warmup_num_steps", choose((1, 2)) if pair.alone else spell(max(1, steps)))
    if kind == "WarmupDecayLR":
        params["total_num_steps"] = 10 if pair.alone else "auto"
    pair.config["scheduler"] = {"type": kind, "params": params}


# Each of these does one thing wrong to a pair, or to one that lends itself to it, and says whether it did.


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
