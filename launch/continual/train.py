"""One stage of a continual-learning run: train on one task of an order, then measure all tasks learnt so far.

Started by torchrun on every host, one call a stage; the flags have the names of the O-LoRA program where it has them.
"""

from __future__ import annotations

import argparse
import math
import os
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual import AgreedError, ContinualError, assets, data, flags, metrics, orders, stages
from continual.ranks import Place, Ranks, join

if TYPE_CHECKING:
    import torch
    from torch import nn

    from continual import adapters, trainer
    from continual.models import Base
    from continual.trainer import Inputs


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


@dataclass(frozen=True)
class Loaded:
    """What a stage starts from."""

    base: Base
    tasks: tuple[data.Task, ...]
    previous: stages.State | None
    settings: dict[str, Any]  # what the next stage must have equal, under the names of stages.State


def _load(args: argparse.Namespace, tasks: tuple[str, ...], ranks: Ranks, clock: Clock) -> Loaded:
    """Find the model, read the data and the stage before, and hold that all ranks have the same."""
    from continual import models

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
            "lora": _shape(args).as_json(),
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
        saved = Path(args.previous_output_dir).absolute() / stages.ADAPTERS if loaded.previous else None
        adapted = adapters.attach(model, loaded.base, _shape(args), names, saved, args.seed)
        matcher = models.Matcher(adapted).to(ranks.device)
    clock.lap("model")

    settings = _settings(args, len(loaded.tasks[-1].train), ranks)
    shares = " + ".join(str(sum(sizes)) for sizes in settings.batches.sizes)
    say(
        f"continual: {settings.steps} steps of {settings.batches.global_size} examples ({shares}); trained: LoRA "
        f"{names[-1]}, {adapters.size(matcher)} parameters; frozen: {', '.join(names[:-1]) or 'none'}",
        flush=True,
    )
    result = trainer.Training(matcher, method, names, settings, ranks).run(inputs[-1][0])
    clock.lap("training")
    row = [round(trainer.accuracy(matcher, test, ranks, args.per_device_eval_batch_size), 2) for _, test in inputs]
    clock.lap("measuring")

    state = stages.State(
        token=ranks.gather(secrets.token_hex(8))[0],
        tasks=list(tasks),
        data={task.name: task.fingerprint for task in loaded.tasks},
        matrix=[*(loaded.previous.matrix if loaded.previous else []), row],
        **loaded.settings,
    )
    texts = metrics.result_files(loaded.tasks, state, str(loaded.base), result, clock.seconds["measuring"])

    def save(folder: Path) -> None:
        adapters.save(adapted, names, folder)
        adapters.verify(folder, names, adapters.size(adapted))

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


def _shape(args: argparse.Namespace) -> adapters.Shape:
    from continual import adapters

    return adapters.Shape(args.lora_r, args.lora_alpha, tuple(args.lora_target_modules))


def _settings(args: argparse.Namespace, examples: int, ranks: Ranks) -> trainer.Settings:
    from continual import trainer

    batches = trainer.deal(
        ranks.place.world_size,
        args.global_batch_size,
        args.per_device_train_batch_size,
        args.gradient_accumulation_steps,
    )
    return trainer.Settings(
        batches=batches,
        steps=args.max_steps or math.ceil(examples * args.num_train_epochs / batches.global_size),
        learning_rate=args.learning_rate,
        schedule=args.lr_scheduler_type,
        warmup_steps=args.warmup_steps,
        weight_decay=args.weight_decay,
        max_grad_norm=args.max_grad_norm,
        logging_steps=args.logging_steps,
        seed=args.seed * 1000 + args.stage_index,
    )


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


def main(argv: list[str] | None = None) -> int:
    """Run one stage; 0 when it is done and its output is verified, 1 when it failed, 2 for flags that cannot be."""
    clock = Clock(time.monotonic(), {})
    parser = flags.parser()
    args = parser.parse_args(argv)
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
        tasks = flags.check(args, place)
    except ContinualError as error:
        parser.error(str(error))
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


def _end(code: int) -> None:
    """End the process at once, without the interpreter's and torch's own teardown.

    After DistributedDataParallel on gloo a worker thread of torch may still hold a tensor when the interpreter goes,
    and aborts it: "terminate called without an active exception", exit code -6 with all work done, in 4 of 90
    processes with torch 2.13 (https://github.com/pytorch/pytorch/issues/190489). A launcher takes that for a failure.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _end(main())
