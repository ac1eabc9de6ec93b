"""The flags of a stage, with the names of the O-LoRA program where it has them, and what they must fulfil together."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from continual import ContinualError, methods, orders, scale
from continual.batches import PER_DEVICE, SHARE, Capacity, deal
from continual.ranks import PRECISIONS, Place

BUILTIN, TINY_LLAMA = "builtin", "tiny-llama"
SAMPLINGS = ("balanced", "first")
DESCRIPTION = "Train one stage of a continual-learning order, and measure every task learnt so far."


def _number(kind: type, least: float, above: bool = False) -> Callable[[str], Any]:
    """A converter for argparse: a number not below `least`, or above it."""
    wanted = f"{'a whole number' if kind is int else 'a number'} {'above' if above else 'of at least'} {least:g}"

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not math.isfinite(value) or value < least or (above and value == least):
            raise argparse.ArgumentTypeError(f"{text!r}: wanted {wanted}")
        return value

    return convert


def _share(text: str) -> float:
    """A converter for argparse: a number above 0 and below 1."""
    value: float = _number(float, 0, above=True)(text)
    if value >= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: wanted a number above 0 and below 1")
    return value


def _truth(text: str) -> bool:
    """A converter for argparse: True or False, as the O-LoRA program takes them."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r}: wanted True or False")
    return text.lower() == "true"


def _expression(text: str) -> str:
    """A converter for argparse: a regular expression."""
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r}: no regular expression: {error}") from None
    return text


class _Parser(argparse.ArgumentParser):
    """Ends with one line instead of the whole usage, and on one process of each host instead of all."""

    def error(self, message: str) -> NoReturn:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(f"continual: {message}\n  python -m continual.train --help lists all", file=sys.stderr)
        sys.exit(2)


def parser() -> argparse.ArgumentParser:
    """All flags."""
    result = _Parser(
        prog="python -m continual.train",
        description=DESCRIPTION,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    count, natural, positive = _number(int, 1), _number(int, 0), _number(float, 0, above=True)
    stage = result.add_argument_group("stage")
    stage.add_argument("--order", required=True, help=f"{', '.join(orders.ORDERS)}, or the YAML file of your own")
    stage.add_argument("--task", required=True, help="the task to train, as the order names it")
    stage.add_argument("--stage_index", required=True, type=count, help="its place in the order, from 1")
    stage.add_argument("--output_dir", required=True, type=Path, help="what the stage leaves")
    stage.add_argument("--previous_output_dir", default="", help="what the stage before left; empty in stage 1")
    _add_measuring(stage)
    stage.add_argument("--seed", type=natural, default=0, help="fresh adapters, order of examples")

    source = result.add_argument_group("model and data")
    source.add_argument(
        "--model_name_or_path", required=True, help=f"a model's folder, its name on the hub, {BUILTIN} or {TINY_LLAMA}"
    )
    which = source.add_mutually_exclusive_group()
    which.add_argument("--data", choices=[BUILTIN], help="small tasks that stand in for seven of the fifteen")
    which.add_argument("--data_dir", type=Path, help="a folder laid out like O-LoRA's CL_Benchmark")
    source.add_argument("--num_hidden_layers", type=count, help="keep only the first layers (builtin: 4)")
    source.add_argument("--max_train_samples", type=count, help="at most (builtin: 400)")
    source.add_argument("--max_predict_samples", type=count, help="held-out examples a task, at most (builtin: 200)")
    source.add_argument(
        "--sampling", choices=SAMPLINGS, default=SAMPLINGS[0], help="which of a folder's: labels in turn, or the first"
    )

    _add_lengths(source)

    method = result.add_argument_group("method")
    method.add_argument("--method", choices=methods.NAMES, default="olora", help="what is trained, and how")
    method.add_argument("--lamda_1", type=_number(float, 0), help="olora: weight of orthogonality (0.5)")
    method.add_argument("--nlora_lamda", type=_number(float, 0), help="nlora: weight of sparsity (1e-4)")
    method.add_argument("--lamda_2", type=_number(float, 0), help="olora: weight of the new LoRA's norm (0)")
    method.add_argument("--replay_size", type=count, help="replay: stored examples a task (50)")
    method.add_argument("--replay_share", type=_share, help="replay: their share of each global batch (0.25)")
    _add_gorp(method, count, positive)
    method.add_argument("--lora_r", type=count, default=8, help="rank of a LoRA")
    method.add_argument("--lora_alpha", type=count, default=32, help="scaled by alpha / r")
    method.add_argument("--lora_target_modules", nargs="+", default=[], help="default: peft's for the kind of model")

    training = result.add_argument_group("training")
    training.add_argument("--learning_rate", type=positive, default=1e-3, help="at its highest")
    training.add_argument(
        "--lr_scheduler_type", default="constant", help="constant, constant_with_warmup, linear, cosine"
    )
    training.add_argument("--warmup_steps", type=natural, default=0, help="steps until the full learning rate")
    training.add_argument("--weight_decay", type=_number(float, 0), default=0.0, help="of AdamW")
    training.add_argument("--max_grad_norm", type=positive, default=1.0, help="gradients are clipped to it")
    training.add_argument("--num_train_epochs", type=positive, default=1.0, help="rounds over the examples")
    training.add_argument("--max_steps", type=count, help="steps, instead of epochs")
    training.add_argument("--per_device_eval_batch_size", type=count, default=50, help="the same when measuring")
    training.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="auto: bf16 if all GPUs have it; CPU fp32"
    )
    training.add_argument("--logging_steps", type=count, default=10, help="a line every so many steps")
    training.add_argument("--ddp_timeout", type=positive, default=300.0, help="seconds a rank waits for the others")
    scale.add_flags(result.add_argument_group("scale"), count, natural, positive)
    return result


def _add_gorp(group: Any, count: Callable[[str], Any], positive: Callable[[str], Any]) -> None:
    """What the method gorp alone has."""
    group.add_argument("--gorp_energy", type=_share, help="gorp: share of the gradients that a basis holds (0.95)")
    group.add_argument(
        "--gorp_space", choices=methods.GORP_SPACES, help="gorp: of which gradients; moment is the paper's (gradients)"
    )
    group.add_argument("--gorp_rows", type=count, help="gorp: memory of these, at most twice as many rows (128)")
    group.add_argument("--galore_rank", type=count, help="gorp: rank of the full-rank weights' gradients (8)")
    group.add_argument("--galore_lr", type=positive, help="gorp: learning rate of the full-rank weights (1e-5)")
    group.add_argument("--galore_scale", type=positive, help="gorp: its factor (1)")
    group.add_argument("--galore_update_proj_gap", type=count, help="gorp: steps between their projectors (10)")
    group.add_argument("--optim_target_modules", type=_expression, help="gorp: modules of the full-rank weights")


def _add_lengths(group: Any) -> None:
    """What a model reads at once, and what generative ones are asked."""
    group.add_argument(
        "--max_source_length", type=_number(int, 4), default=32, help="tokens a text (encoder), or a prompt"
    )
    group.add_argument("--max_target_length", type=_number(int, 2), default=50, help="tokens an answer")
    for name in ("task", "dataset"):
        group.add_argument(f"--add_{name}_name", type=_truth, default=True, help=f"prompts name the {name}")
    group.add_argument("--load_in_bits", type=int, choices=[4, 8], help="of a generative model's weights")


def _add_measuring(group: Any) -> None:
    """What a stage measures and keeps beside the accuracy of the tasks learnt."""
    group.add_argument(
        "--measure_ahead", type=_truth, default=False, help="tasks also before they are learnt, for forward transfer"
    )
    group.add_argument(
        "--save_predictions", type=_truth, default=False, help="every held-out text with its answer, in a file of lines"
    )


def order_of(args: argparse.Namespace) -> orders.Order:
    """The order that is trained. Raises ContinualError where there is none of that name, or its file is wrong."""
    order = orders.find(args.order)
    return order.on_builtin_data() if args.data else order


def check(args: argparse.Namespace, place: Place) -> tuple[str, ...]:
    """The order's tasks up to this stage's. Raises ContinualError for flags that contradict each other."""
    from continual.trainer import SCHEDULES

    order = order_of(args)
    tasks = order.up_to(args.task, args.stage_index)
    if bool(args.previous_output_dir) != (args.stage_index > 1):
        wanted = "the folder of the stage before" if args.stage_index > 1 else "none in stage 1"
        raise ContinualError(f"--previous_output_dir {args.previous_output_dir!r}: wanted {wanted}")
    if args.data_dir is not None and not args.data_dir.is_dir():
        raise ContinualError(f"--data_dir {args.data_dir}: no such folder on {place.host}")
    for task in tasks:
        if not (args.data or args.data_dir or order.names_data_of(task)):
            raise ContinualError(
                f"--order {args.order}: {task} names no data of its own; wanted --data {BUILTIN}, or --data_dir with "
                "a folder laid out like CL_Benchmark"
            )
    if args.lr_scheduler_type not in SCHEDULES:
        raise ContinualError(f"--lr_scheduler_type {args.lr_scheduler_type}: wanted one of {', '.join(SCHEDULES)}")
    if args.warmup_steps and args.lr_scheduler_type == "constant":
        raise ContinualError(
            f"--warmup_steps {args.warmup_steps}: has no effect with --lr_scheduler_type constant; "
            "wanted 0, or constant_with_warmup"
        )
    here = Capacity.here(args.per_device_train_batch_size, args.batch_share)
    if not (os.environ.get(PER_DEVICE) or os.environ.get(SHARE)):  # else only all ranks together know
        deal(place.world_size, args.global_batch_size, here.per_device, args.gradient_accumulation_steps)
    stage = scale.zero_stage(args)
    methods.choose(args.method, vars(args)).check_zero(stage)
    if stage == 3 and args.save_steps:
        raise ContinualError(
            f"--save_steps {args.save_steps}: checkpoints within a stage are not there under ZeRO-3; wanted 0, "
            "or ZeRO stage 2\n  finished stages are kept all the same"
        )
    return tasks
