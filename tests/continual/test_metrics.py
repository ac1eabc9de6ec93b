"""Average, backward transfer, forgetting, and the table of them."""

from __future__ import annotations

import pytest
from continual import metrics
from inline_snapshot import snapshot

# What O-LoRA's own run of order_1 on T5-large logged (its logs_and_outputs folder).
OLORA = [[98.71], [98.55, 57.76], [97.41, 57.41, 71.91], [97.74, 56.07, 71.04, 88.62]]
TASKS = ("dbpedia", "amazon", "yahoo", "agnews")


def test_the_published_run_of_order_1():
    assert metrics.average(OLORA) == pytest.approx(78.37, abs=0.005)
    assert metrics.backward_transfer(OLORA) == pytest.approx(-1.18, abs=0.005)
    assert metrics.forgetting(OLORA) == pytest.approx((0.97 + 1.69 + 0.87) / 3)


def test_forgetting_counts_from_the_best_stage_and_transfer_from_the_first():
    matrix = [[50.0], [70.0, 60.0], [65.0, 60.0, 90.0]]
    assert metrics.forgetting(matrix) == pytest.approx((5.0 + 0.0) / 2)
    assert metrics.backward_transfer(matrix) == pytest.approx((15.0 + 0.0) / 2)


def test_after_one_stage_there_is_an_average_alone():
    assert metrics.average([[40.0]]) == 40.0
    assert metrics.backward_transfer([[40.0]]) is None
    assert metrics.forgetting([[40.0]]) is None


@pytest.mark.parametrize("matrix", [[None, [1.0, 2.0]], [[1.0], None], [[1.0], [None, 2.0]]])
def test_what_a_missing_stage_leaves_unknown_is_not_guessed(matrix: list[list[float | None] | None]):
    assert metrics.backward_transfer(matrix) is None
    assert metrics.table(matrix, ("a", "b"), ("a", "b")).count("\n") == 7


def test_a_missing_stage_between_leaves_forgetting_known():
    matrix = [[80.0], None, [70.0, 50.0, 90.0]]
    assert metrics.average(matrix) == 70.0
    assert metrics.forgetting(matrix) is None  # of task 2 nothing is known before the end
    assert metrics.forgetting([[80.0], [None, 60.0], [70.0, 50.0, 90.0]]) == 10.0


def test_the_table():
    assert metrics.table(OLORA[:3], TASKS, [f"{task} (x)" for task in TASKS]) == snapshot("""\
after stage  dbpedia (x)  amazon (x)  yahoo (x)  agnews (x)
1 dbpedia          98.71           -          -           -
2 amazon           98.55       57.76          -           -
3 yahoo            97.41       57.41      71.91           -
4 agnews               -           -          -           -

average              75.58   tasks learnt by stage 3 of 4
backward transfer    -0.82   earlier tasks, since they were learnt
forgetting            0.82   earlier tasks, since they were best
""")
