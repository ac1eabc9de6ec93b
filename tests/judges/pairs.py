"""Draws pairs of a DeepSpeed config and training arguments: right ones, and ones with up to two things wrong in them.

`choose` is whatever picks one of several: hypothesis' draw in the tests, a seeded random generator in the sweep.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.judges.faults import FAULTS, Choose

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
