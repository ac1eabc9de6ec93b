"""Generative models: a prompt goes in, the answer is learnt token by token, and generated greedily to be compared.

Prompts and the way of comparing are those of O-LoRA's program (see prompts.py). The loss is the mean over the answers'
tokens of the whole global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from continual import ContinualError
from continual.data import Example, Task
from continual.encoder import pad
from continual.prompts import is_right

IGNORED = -100  # a label that no loss is computed for, in torch and transformers
_STEM = "Answer:"  # what every prompt ends with
_TRIES = 50


@dataclass(frozen=True)
class Limits:
    """Tokens of a prompt and of an answer, at most, and what prompts name."""

    source: int
    target: int = 50
    task_name: bool = True
    dataset_name: bool = True


@dataclass(frozen=True)
class Asked:
    """A prompt, its answer with the end sign, as token numbers; the answer as text; tokens to generate at most."""

    prompt: list[int]
    answer: list[int]
    text: str
    room: int


@dataclass(frozen=True)
class Questions:
    """Examples as a generative model takes them."""

    rows: list[Asked]
    pad_id: int
    seq2seq: bool

    def __len__(self) -> int:
        return len(self.rows)

    def length(self, place: int) -> int:
        """Tokens of a prompt."""
        return len(self.rows[place].prompt)

    def weight(self, places: Sequence[int]) -> int:
        """What the summed loss of some examples is divided by: the tokens of their answers."""
        return sum(len(self.rows[place].answer) for place in places)

    def joined(self, others: Sequence[Questions]) -> Questions:
        """These examples, then those of other tasks."""
        rows = [row for task in (self, *others) for row in task.rows]
        return Questions(rows, self.pad_id, self.seq2seq)

    def is_right(self, place: int, answer: str) -> bool:
        """Whether a generated text is an example's answer."""
        return is_right(answer, self.rows[place].text)

    def batch(self, places: Sequence[int], device: torch.device) -> tuple[Tensor, ...]:
        """Token numbers, mask, and the labels: nothing is learnt of the prompt."""
        rows = [self.rows[place] for place in places]
        if self.seq2seq:
            labels, _ = pad([row.answer for row in rows], IGNORED, device)
            return *pad([row.prompt for row in rows], self.pad_id, device), labels
        ids, mask = pad([row.prompt + row.answer for row in rows], self.pad_id, device)
        labels = torch.full_like(ids, IGNORED)
        for place, row in enumerate(rows):
            start = len(row.prompt)
            labels[place, start : start + len(row.answer)] = ids[place, start : start + len(row.answer)]
        return ids, mask, labels

    def prompts(self, places: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Prompts alone, with their ends side by side, from where a decoder goes on."""
        return pad([self.rows[place].prompt for place in places], self.pad_id, device, left=not self.seq2seq)


class Answerer(nn.Module):
    """Learns answers; called, it gives the summed loss of a batch."""

    def __init__(self, model: nn.Module, tokenizer: Any, seq2seq: bool) -> None:
        super().__init__()
        self.model, self.tokenizer, self.seq2seq = model, tokenizer, seq2seq
        self.waits = False  # under ZeRO-3 every rank must make as many steps of generation

    def forward(self, ids: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        """The cross entropy of the answers' tokens, summed."""
        if self.seq2seq:
            logits = self.model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).logits
        else:
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
            labels = labels[:, 1:]
        learnt = labels != IGNORED
        return nn.functional.cross_entropy(logits[learnt].float(), labels[learnt], reduction="sum")

    def answers(self, inputs: Questions, places: Sequence[int], device: torch.device) -> list[str]:
        """For each of some examples, the generated text."""
        ids, mask = inputs.prompts(places, device)
        generated = self.model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=max(inputs.rows[place].room for place in places),
            pad_token_id=inputs.pad_id,
            eos_token_id=self.tokenizer.eos_token_id,
            synced_gpus=self.waits,
        )
        answers = generated if self.seq2seq else generated[:, ids.shape[1] :]
        texts: list[str] = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return texts


@dataclass(frozen=True)
class Generating:
    """The bare generative model, and how its examples are made."""

    model: nn.Module
    tokenizer: Any
    seq2seq: bool
    limits: Limits
    device: torch.device

    def inputs(self, task: Task, examples: Sequence[Example]) -> Questions:
        """Some examples of a task, prompts shortened to fit, answers never.

        Raises:
            ContinualError: a label without a token, or with too many; a prompt that does not fit even without its text.
        """
        answers = [self._answer(task, label) for label in task.labels]
        room = max(map(len, answers))
        prompts = self._prompts(task, examples)
        rows = [
            Asked(prompt, answers[place], task.labels[place], room)
            for prompt, (_, place) in zip(prompts, examples, strict=True)
        ]
        end = self.tokenizer.eos_token_id
        return Questions(
            rows, end if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id, self.seq2seq
        )

    def learner(self, adapted: nn.Module) -> Answerer:
        """What is trained."""
        return Answerer(adapted, self.tokenizer, self.seq2seq)

    def _answer(self, task: Task, label: str) -> list[int]:
        """The tokens of an answer as they follow the prompt, and the sign that ends it."""
        end = self.tokenizer.eos_token_id
        if end is None:
            raise ContinualError("--model_name_or_path: its tokenizer has no sign for the end of a text (eos_token)")
        if self.seq2seq:
            tokens = self._plain(label)
        else:
            stem, whole = self._plain(_STEM), self._plain(f"{_STEM} {label}")
            tokens = whole[len(stem) :] if whole[: len(stem)] == stem else self._plain(f" {label}")
        if not tokens:
            raise ContinualError(
                f"health: {task.name}: the answer {label!r} has no token, so all labels of its examples are "
                f"{IGNORED} and nothing is learnt; wanted a text that the tokenizer knows"
            )
        if len(tokens) + 1 > self.limits.target:
            raise ContinualError(
                f"--max_target_length {self.limits.target}: {task.name}: the answer {label!r} has {len(tokens) + 1} "
                "tokens, its end counted; wanted room for all of it"
            )
        return [*tokens, end]

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _prompts(self, task: Task, examples: Sequence[Example]) -> list[list[int]]:
        def prompt(example: Example) -> str:
            return task.question(example, self.limits.task_name, self.limits.dataset_name).prompt

        # Hardly a tokenizer has 16 letters a token on average.
        texts = [prompt((text[: 16 * self.limits.source], label)) for text, label in examples]
        rows = self.tokenizer(texts)["input_ids"] if texts else []
        return [
            self._without_end(row if len(row) <= self.limits.source else self._shortened(task, prompt, example))
            for row, example in zip(rows, examples, strict=True)
        ]

    def _without_end(self, row: list[int]) -> list[int]:
        """A decoder goes on where its prompt ends: without an end sign, which some tokenizers add."""
        ends = not self.seq2seq and row and row[-1] == self.tokenizer.eos_token_id
        return list(row[:-1] if ends else row)

    def _shortened(self, task: Task, prompt: Callable[[Example], str], example: Example) -> list[int]:
        """A prompt whose text is cut at its end so that instruction, options and the question's end all stay."""
        text, label = example
        bare = len(self.tokenizer(prompt(("", label)))["input_ids"])
        if bare >= self.limits.source:
            raise ContinualError(
                f"--max_source_length {self.limits.source}: {task.name}: the prompt has {bare} tokens before any text; "
                f"wanted more, such as {2 * bare}"
            )
        letters = min(len(text), 16 * self.limits.source)
        for _ in range(_TRIES):
            row: list[int] = self.tokenizer(prompt((text[:letters], label)))["input_ids"]
            if len(row) <= self.limits.source:
                return row
            fits = (self.limits.source - bare) / (len(row) - bare)
            letters = min(letters - 1, int(letters * fits))
        return list(self.tokenizer(prompt(("", label)))["input_ids"])
