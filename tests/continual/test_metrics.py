"""Average, backward transfer, forgetting, and the table of them."""

from __future__ import annotations

import pytest
from continual import metrics
from hypothesis import given
from hypothesis import strategies as st
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


def test_forward_transfer_is_what_earlier_tasks_gave_to_later_ones():
    matrix = [[90.0], [88.0, 70.0], [85.0, 66.0, 60.0]]
    untrained, ahead = [20.0, 50.0, 10.0], [20.0, 58.0, 13.0]
    assert metrics.forward_transfer(matrix, untrained, ahead) == pytest.approx(((58 - 50) + (13 - 10)) / 2)
    assert metrics.forward_transfer(matrix[:2], untrained, ahead[:2]) == 8.0
    assert metrics.forward_transfer(matrix[:1], untrained, ahead[:1]) is None
    assert metrics.forward_transfer(matrix, untrained, [20.0, None, 13.0]) is None
    assert metrics.forward_transfer(matrix, [], []) is None


def test_the_matrix_as_csv_leaves_empty_what_is_not_known():
    assert metrics.csv_table([[98.71], None, [97.41, 57.41, 71.91]], TASKS) == snapshot("""\
stage,task,dbpedia,amazon,yahoo,agnews
1,dbpedia,98.71,,,
2,amazon,,,,
3,yahoo,97.41,57.41,71.91,
""")


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


MATRICES = st.integers(1, 6).flatmap(
    lambda size: st.tuples(*(st.lists(st.floats(0, 100), min_size=k, max_size=k) for k in range(1, size + 1)))
)


@given(MATRICES)
def test_forgetting_is_never_less_than_what_backward_transfer_lost(matrix: tuple[list[float], ...]):
    if len(matrix) > 1:
        forgotten, transfer = metrics.forgetting(matrix), metrics.backward_transfer(matrix)
        assert forgotten is not None and transfer is not None
        assert forgotten >= -transfer - 1e-9
    assert metrics.average(matrix) == pytest.approx(sum(matrix[-1]) / len(matrix))


def test_the_table_says_forward_transfer_where_it_was_measured():
    assert "forward transfer     +5.50   later tasks" in metrics.table(OLORA, TASKS, TASKS, 5.5)
    assert "forward" not in metrics.table(OLORA, TASKS, TASKS)


def test_the_table():
    assert metrics.table(OLORA[:3], TASKS, [f"{task} (x)" for task in TASKS]) == snapshot("""\
after stage  dbpedia  amazon   yahoo  agnews
                 (x)     (x)     (x)     (x)
1 dbpedia      98.71       -       -       -
2 amazon       98.55   57.76       -       -
3 yahoo        97.41   57.41   71.91       -
4 agnews           -       -       -       -

average              75.58   tasks learnt by stage 3 of 4
backward transfer    -0.82   earlier tasks, since they were learnt
forgetting            0.82   earlier tasks, since they were best
""")
