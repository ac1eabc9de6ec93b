"""An example as a generative model reads it: instruction, options, text; and when an answer counts as the right one.

Instructions, the order of the parts and the way of comparing are those of O-LoRA's program (its
configs/instruction_config.json, uie_dataset_lora.py, uie_collator.py, compute_metrics.py), so that figures can be
laid beside the published ones. CL_Benchmark's folder says which kind of task it is: `TC/dbpedia` is topic
classification.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

_CHOOSE = "Choose one from the option.\n"
_SENSE = "Given a word and two sentences, whether the word is used with the same sense in both sentence?"

# By the folder of CL_Benchmark. None: the text itself says what is asked and among what, so no options are listed.
INSTRUCTIONS = MappingProxyType(
    {
        "TC": f"What is the topic of the following paragraph? {_CHOOSE}",
        "SC": f"What is the sentiment of the following paragraph? {_CHOOSE}",
        "NLI": f'What is the logical relationship between the "sentence 1" and the "sentence 2"? {_CHOOSE}',
        "QQP": f'Whether the "first sentence" and the "second sentence" have the same meaning? {_CHOOSE}',
        "BoolQA": f"According to the following passage, is the question true or false? {_CHOOSE}",
        "MultiRC": "According to the following passage and question, is the candidate answer true or false? " + _CHOOSE,
        "WiC": f"{_SENSE} {_CHOOSE}",
        "COPA": None,
    }
)
DEFAULT_INSTRUCTION = f"Which of the options fits the following paragraph? {_CHOOSE}"  # of folders of another name


@dataclass(frozen=True)
class Question:
    """An example as a generative model reads it. `options` are all labels of the task, `answer` is one of them."""

    prompt: str
    answer: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Asking:
    """How a task's examples are asked. `group` is the kind of task, `dataset` the data's name.

    `instruction` None asks with the text alone.
    """

    group: str
    dataset: str
    instruction: str | None

    def prompt(self, text: str, labels: Sequence[str], task_name: bool = True, dataset_name: bool = True) -> str:
        """The whole prompt; the two flags are --add_task_name and --add_dataset_name, which every script has on."""
        head = f"Task:{self.group}\n" if task_name else ""
        head += f"Dataset:{self.dataset}\n" if dataset_name else ""
        return head + self._question(labels) + text + "\nAnswer:"

    def template(self, labels: Sequence[str]) -> str:
        """The prompt without names, {0} in the place of the text: what O-LoRA's program calls the instruction."""
        return self._question(labels) + "{0}\nAnswer:"

    def _question(self, labels: Sequence[str]) -> str:
        return "" if self.instruction is None else f"{self.instruction}Option: {', '.join(labels)} \n"


def asking(group: str, dataset: str) -> Asking:
    """How O-LoRA's program asks the examples of that folder of CL_Benchmark; a general question for another folder."""
    return Asking(group, dataset, INSTRUCTIONS.get(group, DEFAULT_INSTRUCTION))


def normalized(answer: str) -> str:
    """An answer as it is compared: lower case, no ASCII punctuation, single blanks."""
    kept = "".join(letter for letter in answer.lower() if letter not in string.punctuation)
    return " ".join(kept.split())


def is_right(prediction: str, answer: str) -> bool:
    """Whether a generated text is the answer: exact match after :func:`normalized`."""
    return normalized(prediction) == normalized(answer)
