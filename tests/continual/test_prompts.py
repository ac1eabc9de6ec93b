"""What a generative model is asked: the originals' words, in their order; and which answers count."""

from __future__ import annotations

from pathlib import Path

import pytest
from continual import builtin, data, orders, prompts
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from tests.continual.conftest import write_benchmark


def test_a_prompt_is_put_together_as_o_lora_does(tmp_path: Path):
    task = data.load("amazon", data.Wanted(write_benchmark(tmp_path)))
    question = task.question(("a fine\nand superb thing\n", 0))
    assert question == snapshot(
        prompts.Question(
            prompt="""\
Task:TC
Dataset:amazon
What is the topic of the following paragraph? Choose one from the option.
Option: good, bad \n\
a fine
and superb thing

Answer:""",
            answer="good",
            options=("good", "bad"),
        )
    )


@pytest.mark.parametrize(
    ("task_name", "dataset_name", "start"),
    [(False, False, "What is"), (True, False, "Task:SC\nWhat is"), (False, True, "Dataset:yelp\nWhat is")],
)
def test_the_names_can_be_left_out(task_name: bool, dataset_name: bool, start: str):
    prompt = prompts.asking("SC", "yelp").prompt("x", ("a",), task_name, dataset_name)
    assert prompt.startswith(f"{start} the sentiment of the following paragraph?")


def test_copa_brings_its_own_question_and_options():
    assert prompts.asking("COPA", "COPA").prompt("Which?\nA: x\nB: y", ("A", "B"), False, False) == (
        "Which?\nA: x\nB: y\nAnswer:"
    )


def test_another_folder_gets_a_general_question():
    assert "Which of the options fits" in prompts.asking("mine", "x").prompt("text", ("a", "b"))


def test_every_task_of_the_orders_has_an_instruction_of_its_kind():
    groups = {"TC", "SC", "NLI", "QQP", "BoolQA", "MultiRC", "WiC", "COPA"}
    assert set(prompts.INSTRUCTIONS) == groups
    assert all(text is None or text.endswith("Choose one from the option.\n") for text in prompts.INSTRUCTIONS.values())
    assert {builtin.TASKS[name].group for name in orders.STAND_INS.values()} == {"TC", "SC"}


def test_braces_in_a_text_are_only_text():
    assert "{0} {x}" in prompts.asking("TC", "d").prompt("{0} {x}", ("{a}",))


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("Science or Technology", "science or technology.", True),
        ("  very   positive\n", "very positive", True),
        ("positive", "very positive", False),
        ("", "A", False),
        ("Society Culture", "Society & Culture", True),
    ],
)
def test_which_answers_count(prediction: str, answer: str, right: bool):
    assert prompts.is_right(prediction, answer) is right


@given(st.text())
def test_comparing_is_settled_after_one_pass(text: str):
    once = prompts.normalized(text)
    assert prompts.normalized(once) == once
    assert prompts.is_right(f" {text}. ", text)
