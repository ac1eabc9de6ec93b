"""The encoder: a text and a label's name are turned into vectors, and the nearest label is the answer.

The label vectors come from the base model before any adapter, once, and stay: recomputed by the adapted model they
would move along with the texts. Any encoder in a local folder works; the built-in one is MiniLM-L6 cut to 4 layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from continual.data import Example, Task

SCALE = 20.0  # of the cosines, before the softmax


@dataclass(frozen=True)
class LabelledTexts:
    """Tokenized examples of a task with their labels and the vectors of the label names.

    Of several tasks joined, `candidates` says which labels, from and up to, each example may have.
    """

    rows: list[list[int]]
    gold: list[int]
    labels: Tensor
    pad_id: int
    candidates: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.rows)

    def length(self, place: int) -> int:
        """Tokens of an example."""
        return len(self.rows[place])

    def weight(self, places: Sequence[int]) -> int:
        """What the summed loss of some examples is divided by: their number."""
        return len(places)

    def joined(self, others: Sequence[LabelledTexts]) -> LabelledTexts:
        """This task's examples, then those of other tasks; each example keeps its own task's labels to choose from."""
        gold: list[int] = []
        candidates: list[tuple[int, int]] = []
        first = 0
        tasks = (self, *others)
        for task in tasks:
            gold += [first + label for label in task.gold]
            candidates += [(first + start, first + end) for start, end in task.candidates]
            first += len(task.labels)
        rows = [row for task in tasks for row in task.rows]
        return LabelledTexts(rows, gold, torch.cat([task.labels for task in tasks]), self.pad_id, candidates)

    def is_right(self, place: int, answer: int) -> bool:
        """Whether an example's answer, the place of a label, is the right one."""
        return self.gold[place] == answer

    def batch(self, places: Sequence[int], device: torch.device) -> tuple[Tensor, ...]:
        """Token numbers, mask, labels to choose from (as vectors, and from which up to which), the right ones."""
        ids, mask = pad([self.rows[place] for place in places], self.pad_id, device)
        spans = torch.tensor([self.candidates[place] for place in places], device=device)
        return ids, mask, self.labels, spans, torch.tensor([self.gold[place] for place in places], device=device)


class Matcher(nn.Module):
    """Compares texts with label vectors; called, it gives the summed loss of a batch."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor, mask: Tensor, labels: Tensor, spans: Tensor, gold: Tensor) -> Tensor:
        """The cross entropy, summed over the texts."""
        return nn.functional.cross_entropy(self.scores(ids, mask, labels, spans).float(), gold, reduction="sum")

    def scores(self, ids: Tensor, mask: Tensor, labels: Tensor, spans: Tensor) -> Tensor:
        """A row a text and a column a label; labels of other tasks are out of the question."""
        scores = SCALE * embed(self.encoder, ids, mask) @ labels.T
        label = torch.arange(scores.shape[1], device=scores.device)
        return scores.masked_fill((label < spans[:, :1]) | (label >= spans[:, 1:]), -math.inf)

    def answers(self, inputs: LabelledTexts, places: Sequence[int], device: torch.device) -> list[int]:
        """For each of some examples, the place of the nearest label."""
        ids, mask, labels, spans, _ = inputs.batch(places, device)
        return [int(nearest) for nearest in self.scores(ids, mask, labels, spans).argmax(-1)]


@dataclass(frozen=True)
class Encoding:
    """The bare encoder, and how its examples are made."""

    model: nn.Module
    tokenizer: Any
    length: int
    device: torch.device

    def inputs(self, task: Task, examples: Sequence[Example]) -> LabelledTexts:
        """Some examples of a task. Before the adapters come: the vectors of the labels are those of the bare model."""
        rows = tokenize(self.tokenizer, [text for text, _ in examples], self.length)
        vectors = label_vectors(self.model, self.tokenizer, task.labels, self.device)
        gold = [label for _, label in examples]
        candidates = [(0, len(task.labels))] * len(rows)
        return LabelledTexts(rows, gold, vectors, self.tokenizer.pad_token_id or 0, candidates)

    def learner(self, adapted: nn.Module) -> Matcher:
        """What is trained."""
        return Matcher(adapted).to(self.device)


def embed(encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """One vector of length 1 a text: the mean over its tokens, as MiniLM's sentence model was trained with."""
    hidden = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
    mask = attention_mask.unsqueeze(-1)
    return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def tokenize(tokenizer: Any, texts: Sequence[str], length: int) -> list[list[int]]:
    """Each text as at most `length` token numbers."""
    shortened = [text[: 16 * length] for text in texts]  # hardly a tokenizer has 16 letters a token on average
    return tokenizer(shortened, truncation=True, max_length=length)["input_ids"] if shortened else []


def pad(rows: Sequence[list[int]], pad_id: int, device: torch.device, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Token numbers as a rectangle, and the mask that is 1 where a token stands; shorter rows filled on one side."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad_id)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for place, row in enumerate(rows):
        taken = slice(width - len(row), width) if left else slice(len(row))
        ids[place, taken] = torch.tensor(row, dtype=torch.long)
        mask[place, taken] = 1
    return ids.to(device), mask.to(device)


@torch.no_grad()
def label_vectors(model: nn.Module, tokenizer: Any, labels: Sequence[str], device: torch.device) -> Tensor:
    """The vectors of label names under the base model, a row a label."""
    ids, mask = pad(tokenize(tokenizer, labels, 32), tokenizer.pad_token_id or 0, device)
    return embed(model, ids, mask)
