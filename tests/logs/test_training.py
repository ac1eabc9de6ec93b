"""What is said of a training from its lines: how far, how fast, what is wrong; and what is not held against it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dsdoctor.logs.training import Training

HERE = Path(__file__).parent


def fed(lines: list[str], rank: int | None = 0, pause: float = 1.0) -> tuple[Training, list[str]]:
    training, remarks = Training(), []
    for number, line in enumerate(lines):
        remarks += [remark.text for remark in training.feed("node0", rank, line, number * pause)]
    return training, remarks


def hf(loss: object, rate: object) -> str:
    return f"{{'loss': {loss!r}, 'grad_norm': 1.0, 'learning_rate': {rate!r}, 'epoch': 0.1}}"


@pytest.mark.parametrize("name", ["trainer-deepspeed-warmuplr", "trainer-deepspeed-zero2", "trainer-torchrun-gloo"])
def test_real_trainings_that_went_well(name: str) -> None:
    training, remarks = fed((HERE / "healthy" / f"{name}.log").read_text().splitlines())
    assert remarks == []
    assert (training.step, training.total) == (20, 20)
    assert training.loss is not None


@pytest.mark.parametrize("path", sorted((HERE / "healthy").iterdir()), ids=lambda path: path.name)
def test_nothing_is_held_against_any_healthy_log(path: Path) -> None:
    assert fed(path.read_text(errors="replace").splitlines())[1] == []


def test_nothing_is_said_of_cases_without_these_faults() -> None:
    """All known failures: a remark must be of the case's own kind."""
    kinds = {
        "loss is": {"loss-nan-divergence", "fp16-loss-scale-exhausted", "optimizer-never-stepped"},
        "overflow": {"fp16-loss-scale-exhausted"},
        "rate": {"learning-rate-zero", "optimizer-never-stepped", "ds-warmup-steps-invalid"},
        "exactly": {"optimizer-never-stepped", "trainable-params-not-updated", "learning-rate-zero"},
    }
    wrong = []
    for path in sorted((HERE / "cases").glob("*.yaml")):
        case = yaml.safe_load(path.read_text())
        causes = {case["root_cause"], *case.get("also_accept", ())}
        for text in fed(str(case["log"]).splitlines())[1]:
            allowed = next(names for word, names in kinds.items() if word in text)
            if not causes & allowed:
                wrong.append((path.stem, text, causes))
    assert wrong == []


def test_the_bar_of_a_training_is_the_one_that_losses_are_written_above() -> None:
    training, _ = fed(
        [
            "  0%|          | 0/4 [00:00<?, ?it/s]",  # an evaluation before the first step
            "100%|██████████| 4/4 [00:00<00:00, 10.98it/s]",
            " 10%|█         | 10/100 [00:10<01:30,  1.00it/s]",
        ]
    )
    assert training.step is None, "nothing says yet which bar it is"
    for number, line in enumerate(
        [hf(2.5, 1e-4), " 11%|█         | 11/100 [00:11<01:29,  1.00it/s]", " 50%|█████  | 2/4 [00:00<00:01]"]
    ):
        list(training.feed("node0", 0, line, 10.0 + number))
    assert (training.step, training.total) == (11, 100)


def test_lines_that_only_count_are_steps_once_they_have_gone_up_three_times() -> None:
    assert fed(["Step 1/5: building the image"])[0].step is None
    assert fed(["stage first step 1 sum 6", "stage first step 2 sum 6"])[0].step is None
    assert fed([f"stage first step {step} sum 6" for step in range(4)])[0].step == 3


def test_speed_and_time_left() -> None:
    training, _ = fed([f"step {step * 10}/1000 loss {5 - step / 100}" for step in range(11)], pause=5.0)
    assert training.speed(50.0) == pytest.approx(2.0)
    assert training.seconds_left(50.0) == pytest.approx(450)
    assert training.usual_gap() == 5.0
    late = training.speed(150.0)
    assert late is not None
    assert late < 1.0, "a step that is overdue lowers it"


def test_steps_of_an_epoch_give_no_time_left() -> None:
    lines = [f"Epoch 1:  45%|████▌     | {step}/20 [00:00<00:00, 2.0it/s, train_loss=2.3]" for step in (1, 2, 19, 1, 2)]
    training, _ = fed(lines)
    assert (training.step, training.total, training.within_epoch) == (2, 20, True)
    assert training.seconds_left(9.0) is None


def test_hosts_are_told_by_their_slowest_rank() -> None:
    training = Training()
    for step in range(1, 20):
        for host, rank, pace in (("a", 0, 1.0), ("a", 1, 1.0), ("b", 2, 2.0)):
            list(training.feed(host, rank, f"step {step} loss 1.5", step * pace))
    hosts = training.hosts(38.0)
    assert hosts["a"][0] == hosts["b"][0] == 19
    assert hosts["b"][1] == pytest.approx(0.5, rel=0.1)


# --- what is wrong


def test_a_rate_of_0_is_told_after_ten_lines_and_once() -> None:
    assert fed([hf(5.1, 0.0)] * 9)[1] == []
    _, remarks = fed([hf(5.0 + number / 100, 0.0) for number in range(40)])
    assert remarks == ["the learning rate has been 0 since the start, on 10 lines"]
    _, remarks = fed([f"step {step} loss {5 - step / 100} lr 0.0" for step in (1, 100, 200)])
    assert remarks == ["the learning rate has been 0 since the start, on 3 lines at step 200"]


@pytest.mark.parametrize(
    "rates",
    [
        [0.0, 0.0, *[1e-3] * 30],  # DeepSpeed's warm-up
        [*[0] * 16, *[1e-5] * 10],  # fp16 looks for its scale
        [*[1e-3] * 30, 0.0],  # the last step of a decay
    ],
)
def test_a_rate_of_0_at_the_ends_is_none(rates: list[float]) -> None:
    lines = []
    for number, rate in enumerate(rates):
        if rate == 0 and len(rates) == 26:
            lines.append("[deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 65536, reducing to 32768")
        lines.append(hf(5.0 - number / 100, rate))
    assert fed(lines)[1] == []


def test_a_rate_that_falls_to_0_long_before_the_end() -> None:
    lines = [f"step {step}/1000 loss {5 - step / 1000} lr {0.001 if step < 100 else 0.0}" for step in range(0, 300, 10)]
    assert fed(lines)[1] == ["the learning rate has fallen to 0 at step 120 of 1000: the rest learns nothing"]


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([hf(2.0, 1e-3), hf(float("nan"), 1e-3), hf(float("nan"), 1e-3)], "the training loss is nan"),
        (["step 7 loss inf"], "the training loss is inf at step 7"),
        (
            ["{'loss': 0.0, 'grad_norm': nan, 'learning_rate': 1e-4, 'epoch': 0.1}"] * 3,
            "the training loss is nan: shown as 0.0, with grad_norm nan (transformers' logging_nan_inf_filter)",
        ),
        (
            ["OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 2.0, reducing to 1.0"],
            "every step overflows in fp16: the loss scale has fallen to 1",
        ),
        (
            ["[deepspeed] OVERFLOW! Skipping step. Gradients are non-finite, weights were not updated."] * 30,
            "every step overflows in fp16: 30 in a row were left out",
        ),
        (
            ["[Rank 0] step=40, skipped=40, lr=[1e-05], mom=[(0.9, 0.95)]"],
            "every step overflows in fp16: all 40 were left out, nothing is learnt",
        ),
        (
            [f"step {step} loss 2.3026" for step in range(20)],
            "the loss has been exactly 2.3026 on 20 lines in a row at step 19: nothing is learnt",
        ),
    ],
)
def test_numbers_that_are_wrong(lines: list[str], wanted: str) -> None:
    assert fed(lines)[1] == [wanted]


@pytest.mark.parametrize(
    "lines",
    [
        ["{'eval_loss': nan, 'epoch': 1.0}"],
        ["{'loss': 0.0, 'grad_norm': 0.1, 'learning_rate': 1e-4, 'epoch': 0.1}"] * 30,  # learnt to the end
        [f"step {step} loss 0.12" for step in range(60)],  # rounded: too few digits to say that it is the same
        ["OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 65536, reducing to 32768"] * 3,
        ["[Rank 0] step=40, skipped=6, lr=[1e-05], mom=[(0.9, 0.95)]"],
    ],
)
def test_numbers_that_are_not(lines: list[str]) -> None:
    assert fed(lines)[1] == []


def test_equal_losses_of_several_ranks_are_no_standstill() -> None:
    training, remarks = Training(), []
    for step in range(12):
        for rank in range(8):
            remarks += list(training.feed("node0", rank, f"step {step} loss {5 - step / 7:.4f}", float(step)))
    assert remarks == []


def test_a_rank_that_falls_behind_is_told_once() -> None:
    training = Training()
    for step in range(80):
        list(training.feed("node0", 0, f"step {step} loss 1.5{step}", float(step)))
        if step < 20:
            list(training.feed("node1", 1, f"step {step} loss 1.5{step}", float(step)))
    assert training.behind(79.0, 70.0) is None, "not for as long"
    told = training.behind(79.0, 55.0)
    assert told is not None
    assert told.text == "rank 1 on node1 is behind: its last step was 19, 60 s ago; others are at 79"
    assert training.behind(99.0, 55.0) is None


def test_a_rank_that_printed_few_steps_is_not_behind() -> None:
    training = Training()
    for step in range(80):
        for rank in range(2) if step < 3 else range(1):
            list(training.feed("node0", rank, f"step {step} loss 1.5{step}", float(step)))
    assert training.behind(79.0, 30.0) is None


def test_a_flood_of_lines_and_of_ranks_costs_little() -> None:
    training = Training()
    for number in range(20_000):
        list(training.feed("node0", number % 10_000, f"step {number} loss 1.5", 1.0))
    assert len(training._streams) == 4096
    for _ in range(20_000):
        list(training.feed("node0", 1, "loss " * 800, 2.0))
