"""One stage of a continual-learning run: train on one task of an order, then measure all tasks learnt so far.

Started by torchrun on every host, one call a stage; the flags have the names of the O-LoRA program where it has them.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import math
import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from continual import AgreedError, ContinualError, flags, metrics, stages
from continual.batches import Capacity, deal_to
from continual.clock import Clock, collect_again, spent
from continual.ranks import Place, Ranks, answer_with_stacks, join
from continual.starting import Loaded, Ready, fetch, load, make_ready

if TYPE_CHECKING:
    from torch import nn

    from continual import trainer
    from continual.checkpoints import Checkpoints
    from continual.methods.memory import Memory
    from continual.trainer import Inputs, Measured, Training


def _stage(args: argparse.Namespace, tasks: tuple[str, ...], ranks: Ranks, clock: Clock) -> None:
    """Load, train, measure, save; each part is finished by all ranks or by none."""
    from continual import methods

    loaded = load(args, tasks, ranks)
    clock.lap("data")
    say = print if ranks.place.rank == 0 else _say_nothing
    say(_opening(args, loaded, ranks.precision), flush=True)
    with ranks.together():
        import peft  # noqa: F401 - the time of these imports is counted apart
        import transformers  # noqa: F401
    clock.lap("imports")
    method = methods.choose(args.method, vars(args))
    with ranks.together():
        ready = make_ready(args, loaded, method, ranks)
    names = ready.learning.start.adapters
    collect_again()
    clock.lap("model")
    # A fresh LoRA adds nothing: what stage 1 begins with answers as the bare model does.
    first = (*ready.tests, *ready.coming) if ready.coming and not loaded.previous else ()
    bare = _row(_measure(args, ready, first, ranks))
    clock.lap("measuring")
    training, checkpoints = _training(args, loaded, ready, ranks)
    say(f"continual: {training}", flush=True)
    result = training.run(ready.train, ready.earlier, checkpoints)
    with training.joined.whole():
        task = loaded.tasks[-1]
        kept = ranks.of_first(ready.learning.keep(task.name, task.train))
    clock.lap("training")
    measured = _measure(args, ready, ready.tests, ranks)
    following = _row(_measure(args, ready, ready.coming[:1], ranks))
    clock.lap("measuring")
    state = stages.State(
        token=ranks.gather(secrets.token_hex(8))[0],
        tasks=list(tasks),
        data={task.name: task.fingerprint for task in loaded.tasks},
        matrix=[*(loaded.previous.matrix if loaded.previous else []), _row(measured)],
        untrained=list(loaded.previous.untrained if loaded.previous else bare),
        ahead=[*_known_ahead(loaded.previous, bare, len(tasks)), *following],
        seconds=[*(loaded.previous.seconds if loaded.previous else []), ranks.of_first(clock.rounded())],
        **loaded.settings,
    )
    answers = [each.answers for each in measured] if args.save_predictions else []
    figures = metrics.Figures(loaded.order, loaded.tasks, state, str(loaded.base), answers)
    texts = metrics.result_files(figures, result, clock.seconds["measuring"])
    texts["summary.txt"] += "\n" + spent(state.seconds) + "\n"
    with training.joined.whole():
        _save(args.output_dir.absolute(), ready.adapted, names, kept, state, texts, ranks)
    if ranks.place.local_rank == 0:
        checkpoints.remove()
    clock.lap("saving")
    say("\n" + texts["summary.txt"])
    say("continual: seconds: " + ", ".join(f"{part} {seconds:.1f}" for part, seconds in clock.seconds.items()))
    say(f"continual: stage {args.stage_index} {args.task} is done: {args.output_dir}", flush=True)


def _measure(args: argparse.Namespace, ready: Ready, tests: tuple[Inputs, ...], ranks: Ranks) -> list[Measured]:
    """What the model answers to each of these."""
    from continual import trainer

    return [trainer.measure(ready.learner, test, ranks, args.per_device_eval_batch_size) for test in tests]


def _row(measured: list[Measured]) -> list[float]:
    return [round(each.accuracy, 2) for each in measured]


def _known_ahead(previous: stages.State | None, bare: Sequence[float | None], stage: int) -> list[float | None]:
    """What each task up to a stage's was answered like just before it was learnt; None where that was not measured."""
    known: list[float | None] = list(previous.ahead if previous else bare[:1])
    return [*known, *[None] * stage][:stage]


def _training(args: argparse.Namespace, loaded: Loaded, ready: Ready, ranks: Ranks) -> tuple[Training, Checkpoints]:
    """The training with its ranks joined, and its checkpoints."""
    from continual import scale, trainer
    from continual.adapters import trainable
    from continual.generative import Answerer

    here = Capacity.here(args.per_device_train_batch_size, args.batch_share)
    everyone = [Capacity(*rank) for rank in ranks.gather((here.per_device, here.share))]
    with ranks.together():
        settings = _settings(args, len(ready.train), everyone)
        largest = max(parameter.numel() for _, parameter in trainable(ready.learner))
        zero = scale.config(args, settings.batches, ranks.precision, largest)
    training = trainer.Training(ready.learner, ready.learning, settings, ranks, zero)
    if isinstance(ready.learner, Answerer):
        ready.learner.waits = scale.zero_stage(args) == 3 and ranks.place.world_size > 1
    return training, _checkpoints(args, loaded, settings, ranks)


# What may differ between a training and the one that goes on from its checkpoint: where it runs, how often it speaks.
_FREE = """
    output_dir previous_output_dir data_dir model_name_or_path max_predict_samples per_device_eval_batch_size
    per_device_train_batch_size batch_share gradient_accumulation_steps gradient_checkpointing zero_stage deepspeed
    precision logging_steps save_steps ddp_timeout measure_ahead
    save_predictions
"""


def _checkpoints(args: argparse.Namespace, loaded: Loaded, settings: trainer.Settings, ranks: Ranks) -> Checkpoints:
    from continual import scale
    from continual.checkpoints import FOLDER, SAVE_STEPS, Checkpoints, fingerprint

    train = loaded.tasks[-1].train
    fits = fingerprint(
        {
            **{name: value for name, value in vars(args).items() if name not in _FREE.split()},
            **loaded.settings,
            "data": hashlib.sha256(json.dumps(train).encode()).hexdigest(),
            "previous": loaded.previous.token if loaded.previous else None,
            "precision": ranks.precision,
            "global_batch_size": settings.batches.global_size,
            "steps": settings.steps,
        }
    )
    every = (0 if scale.zero_stage(args) == 3 else SAVE_STEPS) if args.save_steps is None else args.save_steps
    return Checkpoints(args.output_dir.absolute() / FOLDER, fits, every)


def _save(
    folder: Path,
    adapted: nn.Module,
    names: tuple[str, ...],
    kept: Memory,
    state: stages.State,
    texts: dict[str, str],
    ranks: Ranks,
) -> None:
    """Write the stage's folder on every host, since the next stage starts on each; once where hosts share a disk."""
    from continual import adapters
    from continual.methods import memory

    def save(target: Path) -> None:
        adapters.save(adapted, names, target)
        adapters.verify(target, names, adapters.size(adapted))
        memory.write(kept, target)

    with ranks.together():
        if ranks.place.rank == 0:
            stages.write(folder, state, save, texts)
    with ranks.together():
        if ranks.place.local_rank == 0 and not stages.holds(folder, state.token):
            stages.write(folder, state, save, texts)


def _say_nothing(*_: object, **__: object) -> None:
    """Stand in for print on the ranks after the first."""


def _settings(args: argparse.Namespace, examples: int, everyone: list[Capacity]) -> trainer.Settings:
    from continual import trainer

    batches = deal_to(everyone, args.global_batch_size, args.gradient_accumulation_steps)
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


def _opening(args: argparse.Namespace, loaded: Loaded, precision: str) -> str:
    task = loaded.tasks[-1]
    lines = [
        f"continual: {loaded.order.name} stage {args.stage_index} of {len(loaded.order.tasks)}: {task.title}, "
        f"{len(task.train)} examples, {len(task.test)} held out, {len(task.labels)} labels",
        f"continual: method {args.method}, seed {args.seed}, precision {precision}, base {loaded.base}",
    ]
    if task.stand_in and not loaded.order.names_data_of(task.name):
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
        answer_with_stacks()
        place = Place.from_environment()
        tasks = flags.check(args, place)
    except ContinualError as error:
        parser.error(str(error))
    clock.lap("imports")
    problem = fetch(args, place)
    clock.lap("assets")
    ranks: Ranks | None = None
    try:
        ranks = join(place, args.precision, args.ddp_timeout)
        with ranks.together():
            if problem is not None:
                raise problem
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
    gc.disable()  # until the model is loaded
    _end(main())
