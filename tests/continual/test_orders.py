"""Orders as the papers have them, and which stage is which."""

from __future__ import annotations

import pytest
from continual import ContinualError, builtin, orders


def test_orders_hold_the_same_tasks_in_other_orders():
    short, long = ({order: sorted(tasks) for order, tasks in orders.ORDERS.items() if len(tasks) == n} for n in (4, 15))
    assert sorted(short) == ["order_1", "order_2", "order_3"]
    assert sorted(long) == ["order_4", "order_5", "order_6"]
    assert len(set(map(tuple, short.values()))) == len(set(map(tuple, long.values()))) == 1
    assert len(set(orders.ORDERS.values())) == 6
    assert all(len(set(tasks)) == len(tasks) for tasks in orders.ORDERS.values())


def test_the_published_sizes_are_known_of_every_task_of_the_orders():
    assert set(orders.PUBLISHED) == set(orders.ORDERS["order_6"])
    assert set(orders.STAND_INS) < set(orders.PUBLISHED)
    assert sum(held_out for _, held_out in orders.PUBLISHED.values()) == 70_861  # predict_samples of the last stage


def test_a_stage_knows_the_tasks_before_it():
    assert orders.find("order_1").up_to("yahoo", 3) == ("dbpedia", "amazon", "yahoo")


@pytest.mark.parametrize(
    ("order", "task", "stage", "said"),
    [
        ("order_7", "dbpedia", 1, "order_7: unknown; wanted one of order_1"),
        ("order_1", "amazon", 1, "--task amazon: stage 1 of order_1 is dbpedia"),
        ("order_1", "dbpedia", 0, "--stage_index 0: order_1 has stages 1 to 4"),
        ("order_1", "dbpedia", 5, "--stage_index 5: order_1 has stages 1 to 4"),
    ],
)
def test_a_stage_that_is_not_in_the_order(order: str, task: str, stage: int, said: str):
    with pytest.raises(ContinualError, match=said):
        orders.find(order).up_to(task, stage)


def test_every_task_of_the_short_orders_has_a_stand_in_and_mnli_has_none():
    assert len({orders.stand_in_for(task) for task in orders.find("order_3").tasks}) == 4
    assert set(orders.STAND_INS.values()) == set(builtin.TASKS)
    with pytest.raises(ContinualError, match=r"nothing stands in for MNLI.*\n.*--data_dir"):
        orders.stand_in_for("MNLI")
