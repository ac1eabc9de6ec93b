"""One stage of a continual-learning run: train on one task of an order, then measure all tasks learnt so far.

Started by torchrun on every host, one call a stage; the flags have the names of the O-LoRA program where it has them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from continual import AgreedError, ContinualError, assets, data, metrics, orders, stages
from continual.ranks import PRECISIONS, Place, Ranks, join

if TYPE_CHECKING:
    import torch
    from torch import nn

    from continual.models import Base
    from continual.trainer import Inputs, Result

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
    stage.add_argument("--order", required=True, choices=list(orders.ORDERS), help="the order of tasks")
    stage.add_argument("--task", required=True, help="the task to train, as the order names it")
    stage.add_argument("--stage_index", required=True, type=count, help="its place in the order, from 1")
    stage.add_argument("--output_dir", required=True, type=Path, help="what the stage leaves")
    stage.add_argument("--previous_output_dir", default="", help="what the stage before left; empty in stage 1")
    stage.add_argument("--seed", type=natural, default=0, help="fresh adapters, order of examples")

    source = result.add_argument_group("model and data")
    source.add_argument("--model_name_or_path", required=True, help="a local encoder's folder, or: builtin")
    which = source.add_mutually_exclusive_group(required=True)
    which.add_argument("--data", choices=["builtin"], help="small tasks that stand in for those of orders 1 to 3")
    which.add_argument("--data_dir", type=Path, help="a folder laid out like O-LoRA's CL_Benchmark")
    source.add_argument("--num_hidden_layers", type=count, help="keep only the first layers (builtin: 4)")
    source.add_argument("--max_source_length", type=_number(int, 4), default=32, help="tokens a text")
    source.add_argument("--max_train_samples", type=count, help="at most (builtin: 400)")
    source.add_argument("--max_predict_samples", type=count, help="held-out examples a task, at most (builtin: 200)")

    method = result.add_argument_group("method")
    method.add_argument("--method", choices=["olora", "seqlora"], default="olora", help="a LoRA a task, or one for all")
    method.add_argument("--lamda_1", type=_number(float, 0), default=0.5, help="olora: weight of orthogonality")
    method.add_argument("--lamda_2", type=_number(float, 0), default=0.0, help="olora: weight of the new LoRA's norm")
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
    training.add_argument("--global_batch_size", type=count, help="examples a step over all ranks; holds exactly")
    training.add_argument("--per_device_train_batch_size", type=count, help="examples at once on a rank")
    training.add_argument("--gradient_accumulation_steps", type=count, help="micro-batches a step")
    training.add_argument("--per_device_eval_batch_size", type=count, default=50, help="the same when measuring")
    training.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="auto: bf16 if all GPUs have it; CPU fp32"
    )
    training.add_argument("--logging_steps", type=count, default=10, help="a line every so many steps")
    training.add_argument("--ddp_timeout", type=positive, default=300.0, help="seconds a rank waits for the others")
    return result


@dataclass
class Clock:
    """Seconds a part of the stage took."""

    since: float
    seconds: dict[str, float]

    def lap(self, part: str) -> None:
        """Count the time since the last lap to a part."""
        now = time.monotonic()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self.since
        self.since = now


def _check_flags(args: argparse.Namespace, place: Place) -> tuple[str, ...]:
    """The order's tasks up to this stage's. Raises ContinualError for flags that contradict each other."""
    from continual.trainer import SCHEDULES, deal

    tasks = orders.check_stage(args.order, args.task, args.stage_index)
    if bool(args.previous_output_dir) != (args.stage_index > 1):
        wanted = "the folder of the stage before" if args.stage_index > 1 else "none in stage 1"
        raise ContinualError(f"--previous_output_dir {args.previous_output_dir!r}: wanted {wanted}")
    if args.data_dir is not None and not args.data_dir.is_dir():
        raise ContinualError(f"--data_dir {args.data_dir}: no such folder on {place.host}")
    if args.data:
        for task in tasks:
            orders.stand_in_for(task)
    if args.lr_scheduler_type not in SCHEDULES:
        raise ContinualError(f"--lr_scheduler_type {args.lr_scheduler_type}: wanted one of {', '.join(SCHEDULES)}")
    if args.warmup_steps and args.lr_scheduler_type == "constant":
        raise ContinualError(
            f"--warmup_steps {args.warmup_steps}: has no effect with --lr_scheduler_type constant; "
            "wanted 0, or constant_with_warmup"
        )
    deal(place.world_size, args.global_batch_size, args.per_device_train_batch_size, args.gradient_accumulation_steps)
    return tasks


@dataclass(frozen=True)
class Loaded:
    """What a stage starts from."""

    base: Base
    tasks: tuple[data.Task, ...]
    previous: stages.State | None
    settings: dict[str, Any]  # what the next stage must have equal, under the names of stages.State


def _load(args: argparse.Namespace, tasks: tuple[str, ...], ranks: Ranks, clock: Clock) -> Loaded:
    """Find the model, read the data and the stage before, and hold that all ranks have the same."""
    from continual import adapters, models

    with ranks.together():
        if ranks.place.local_rank == 0 and args.model_name_or_path == models.BUILTIN:
            assets.prepare((assets.MODEL,))
        if ranks.place.local_rank == 0 and args.data:
            assets.prepare(data.BUILTIN_PACKAGES)
    clock.lap("assets")
    with ranks.together():
        base = models.find(args.model_name_or_path, args.num_hidden_layers)
        limits = (args.max_train_samples, args.max_predict_samples)
        read = [
            data.load_builtin(task, *limits) if args.data else data.load_folder(args.data_dir, task, *limits)
            for task in tasks
        ]
        settings = {
            "order": args.order,
            "method": args.method,
            "seed": args.seed,
            "base": base.identity,
            "lora": adapters.Shape(args.lora_r, args.lora_alpha, tuple(args.lora_target_modules)).as_json(),
        }
        previous = None
        if args.previous_output_dir:
            folder = Path(args.previous_output_dir).absolute()
            previous = stages.read(folder)
            learnt = {task.name: task.fingerprint for task in read[:-1]}
            stages.check_follows(folder, previous, {"tasks": list(tasks[:-1]), "data": learnt} | settings)
    ranks.same("the sha256 of the base model's weights", base.sha256)
    ranks.same("the data's fingerprint", [task.fingerprint for task in read])
    ranks.same("the carrying-out that --previous_output_dir comes from", previous.token if previous else None)
    clock.lap("data")
    return Loaded(base, tuple(read), previous, settings)


def _stage(args: argparse.Namespace, tasks: tuple[str, ...], ranks: Ranks, clock: Clock) -> None:
    """Load, train, measure, save; each part is finished by all ranks or by none."""
    from continual import adapters, methods, models, trainer

    loaded = _load(args, tasks, ranks, clock)
    say = print if ranks.place.rank == 0 else _say_nothing
    say(_opening(args, loaded, ranks.precision), flush=True)
    method = methods.choose(args.method, args.lamda_1, args.lamda_2)
    names = method.adapters(tasks)
    with ranks.together():
        import peft  # noqa: F401 - the time of these imports is counted apart
        import transformers  # noqa: F401
    clock.lap("imports")
    with ranks.together():
        model, tokenizer = models.load(loaded.base)
        model.to(ranks.device)
        inputs = [_inputs(task, args.max_source_length, model, tokenizer, ranks.device) for task in loaded.tasks]
        shape = adapters.Shape(args.lora_r, args.lora_alpha, tuple(args.lora_target_modules))
        saved = Path(args.previous_output_dir).absolute() / stages.ADAPTERS if loaded.previous else None
        adapted = adapters.attach(model, loaded.base, shape, names, saved, args.seed)
        matcher = models.Matcher(adapted).to(ranks.device)
    clock.lap("model")

    batches = trainer.deal(
        ranks.place.world_size,
        args.global_batch_size,
        args.per_device_train_batch_size,
        args.gradient_accumulation_steps,
    )
    count = len(loaded.tasks[-1].train)
    settings = trainer.Settings(
        steps=args.max_steps or math.ceil(count * args.num_train_epochs / batches.global_size),
        learning_rate=args.learning_rate,
        schedule=args.lr_scheduler_type,
        warmup_steps=args.warmup_steps,
        weight_decay=args.weight_decay,
        max_grad_norm=args.max_grad_norm,
        logging_steps=args.logging_steps,
        seed=args.seed * 1000 + args.stage_index,
    )
    size = sum(parameter.numel() for _, parameter in adapters.trainable(matcher))
    shares = " + ".join(str(sum(sizes)) for sizes in batches.sizes)
    say(
        f"continual: {settings.steps} steps of {batches.global_size} examples ({shares}), adapter {names[-1]} with "
        f"{size} parameters, {len(names) - 1} frozen ones beside it",
        flush=True,
    )
    training = trainer.Training(matcher, method, names, batches, settings, ranks)
    result = training.run(inputs[-1][0])
    clock.lap("training")
    row = [round(trainer.accuracy(matcher, test, ranks, args.per_device_eval_batch_size), 2) for _, test in inputs]
    clock.lap("evaluation")

    state = stages.State(
        token=ranks.gather(secrets.token_hex(8))[0],
        tasks=list(tasks),
        data={task.name: task.fingerprint for task in loaded.tasks},
        matrix=[*(loaded.previous.matrix if loaded.previous else []), row],
        **loaded.settings,
    )
    texts = _texts(args, loaded, state, result, clock)

    def save(folder: Path) -> None:
        adapters.save(adapted, names, folder)
        adapters.verify(folder, names, adapted)

    output = args.output_dir.absolute()
    with ranks.together():
        if ranks.place.rank == 0:
            stages.write(output, state, save, texts)
    with ranks.together():  # the next stage starts on every host: each needs the folder, unless the disk is shared
        if ranks.place.local_rank == 0 and not stages.holds(output, state.token):
            stages.write(output, state, save, texts)
    clock.lap("saving")
    say("\n" + texts["summary.txt"])
    say("continual: seconds: " + ", ".join(f"{part} {seconds:.1f}" for part, seconds in clock.seconds.items()))
    say(f"continual: stage {args.stage_index} {args.task} is done: {output}", flush=True)


def _say_nothing(*_: object, **__: object) -> None:
    """Stand in for print on the ranks after the first."""


def _inputs(
    task: data.Task, length: int, model: nn.Module, tokenizer: Any, device: torch.device
) -> tuple[Inputs, Inputs]:
    """A task's examples for training and for measuring, tokenized; the labels' vectors are those of the bare model."""
    from continual import models, trainer

    vectors = models.label_vectors(model, tokenizer, task.labels, device)
    train, test = (
        trainer.Inputs(
            models.tokenize(tokenizer, [text for text, _ in part], length),
            [label for _, label in part],
            vectors,
            tokenizer.pad_token_id or 0,
        )
        for part in (task.train, task.test)
    )
    return train, test


def _opening(args: argparse.Namespace, loaded: Loaded, precision: str) -> str:
    task = loaded.tasks[-1]
    lines = [
        f"continual: {args.order} stage {args.stage_index} of {len(orders.tasks_of(args.order))}: {task.title}, "
        f"{len(task.train)} examples, {len(task.test)} held out, {len(task.labels)} labels",
        f"continual: method {args.method}, seed {args.seed}, precision {precision}, base {loaded.base}",
    ]
    if task.stand_in:
        lines.append(f"continual: {task.name} itself is not trained: built-in {task.stand_in} stands in ({task.about})")
    return "\n".join(lines)


def _texts(
    args: argparse.Namespace, loaded: Loaded, state: stages.State, result: Result, clock: Clock
) -> dict[str, str]:
    """The files of figures beside the adapters, by name."""
    train = {
        "epoch": round(result.samples / len(loaded.tasks[-1].train), 2),
        "train_loss": round(result.loss, 4),
        "train_runtime": round(result.seconds, 2),
        "train_samples": len(loaded.tasks[-1].train),
        "train_samples_per_second": round(result.samples / result.seconds, 2),
        "train_steps_per_second": round(result.steps / result.seconds, 2),
    }
    predict: dict[str, Any] = {
        f"predict_exact_match_for_{task.name}": value
        for task, value in zip(loaded.tasks, state.matrix[-1], strict=True)
    }
    predict["predict_exact_match"] = round(sum(state.matrix[-1]) / len(state.matrix[-1]), 4)
    predict["predict_samples"] = sum(len(task.test) for task in loaded.tasks)
    predict["predict_runtime"] = round(clock.seconds["evaluation"], 2)
    results = {
        "order": state.order,
        "method": state.method,
        "seed": state.seed,
        "tasks": list(orders.tasks_of(state.order)),
        "stand_ins": {task.name: task.stand_in for task in loaded.tasks if task.stand_in},
        "accuracy": state.matrix,
        "average": metrics.average(state.matrix),
        "backward_transfer": metrics.backward_transfer(state.matrix),
        "forgetting": metrics.forgetting(state.matrix),
    }
    texts = {
        "train_results.json": train,
        "predict_results.json": predict,
        "all_results.json": train | predict,
        "results.json": results,
    }
    return {name: json.dumps(value, indent=2) + "\n" for name, value in texts.items()} | {
        "summary.txt": _summary(args, loaded, state)
    }


def _summary(args: argparse.Namespace, loaded: Loaded, state: stages.State) -> str:
    """The table of all stages so far, and what it was made with."""
    every = orders.tasks_of(state.order)
    titles = [f"{task} ({orders.STAND_INS[task]})" if args.data else task for task in every]
    lines = [
        f"{state.order}, {state.method}, seed {state.seed}: accuracy in % on held-out examples",
        f"base model {loaded.base}",
    ]
    if args.data:
        lines.append("In brackets the small built-in task that was trained and measured in the place of the named one.")
    return "\n".join(lines) + "\n\n" + metrics.table(state.matrix, every, titles)


def main(argv: list[str] | None = None) -> int:
    """Run one stage; 0 when it is done and its output is verified, 1 when it failed, 2 for flags that cannot be."""
    clock = Clock(time.monotonic(), {})
    flags = parser()
    args = flags.parse_args(argv)
    # Before transformers is imported: everything is local, and its bars and advice would stand in every rank's log.
    for name, value in {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)
    try:
        place = Place.from_environment()
        tasks = _check_flags(args, place)
    except ContinualError as error:
        flags.error(str(error))
    clock.lap("imports")
    ranks: Ranks | None = None
    try:
        ranks = join(place, args.precision, args.ddp_timeout)
        clock.lap("joining")
        _stage(args, tasks, ranks, clock)
    except AgreedError as error:
        if place.rank == 0:
            print(f"continual: {error}", file=sys.stderr, flush=True)
        if ranks is not None:
            ranks.gather(None)  # a rank that is gone already has torchrun end the one that still has to speak
            ranks.leave()
        return 1
    except ContinualError as error:
        print(f"continual: {error}", file=sys.stderr, flush=True)
        return 1
    ranks.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
