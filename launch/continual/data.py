"""The tasks as labelled texts: the built-in ones, and those of a folder laid out like O-LoRA's CL_Benchmark.

A task is a list of label names and two disjoint lists of examples. Which examples are taken is fixed (the seed of a
run changes their order alone), so that every rank, stage and run of a task is measured on the same ones.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from continual import ContinualError, assets, builtin, orders
from continual.prompts import Asking, Question, asking

NO_ASKING = Asking("", "", None)
NO_LABEL = "-"  # what SNLI and MNLI write where their annotators did not agree

Example = tuple[str, int]  # a text, and the place of its label among the task's labels


@dataclass(frozen=True)
class Task:
    """A task to train or to be measured on.

    `labels` are the names that the encoder compares a text with, and the options of a generative model.
    """

    name: str
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    stand_in: str | None = None  # the built-in task behind the name
    about: str = ""  # what the built-in task is
    left_out: int = 0  # examples without an agreed label
    asking: Asking = field(default=NO_ASKING, compare=False)  # how a generative model is asked

    def question(self, example: Example, task_name: bool = True, dataset_name: bool = True) -> Question:
        """One of its examples as a generative model reads it; the flags say whether the prompt names task and data."""
        text, place = example
        prompt = self.asking.prompt(text, self.labels, task_name, dataset_name)
        return Question(prompt, self.labels[place], self.labels)

    @property
    def title(self) -> str:
        """The name with what stands in for it."""
        return f"{self.name} ({self.stand_in})" if self.stand_in else self.name

    @property
    def fingerprint(self) -> str:
        """Tells two sets of held-out examples or labels apart."""
        return hashlib.sha256(json.dumps([self.labels, self.test]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Wanted:
    """Where tasks come from, and at most how many examples; without a folder, the built-in tasks.

    `sampling` says which examples make up a limit: `balanced`, labels in turn, or `first`, the first ones of the file
    as O-LoRA's program takes them with --max_train_samples and --max_predict_samples. Its scripts set no limit.
    """

    folder: Path | None = None
    max_train: int | None = None
    max_test: int | None = None
    sampling: str = "balanced"
    order: orders.Order | None = None  # whose own sources come first


def packages(order: orders.Order, tasks: Iterable[str], folder: Path | None) -> tuple[assets.Package, ...]:
    """The packages of the index that these tasks need; `folder` is --data_dir."""
    sources = [order.source(task) for task in tasks]
    needed = any(source.builtin or (source.folder is None and folder is None) for source in sources)
    return builtin.PACKAGES if needed else ()


def load(name: str, wanted: Wanted, train: bool = True) -> Task:
    """A task, with the examples to train on if they are wanted.

    Raises:
        ContinualError: nothing built in stands in for it, the assets are not to be had, a file is missing or wrong.
    """
    source = wanted.order.source(name) if wanted.order else orders.Source()
    if source.folder is not None and not source.folder.is_dir():
        raise ContinualError(
            f"--order {source.said_at}: folder of {name} is {source.folder}, which is not there; "
            "wanted a folder with train.json, test.json and labels.json"
        )
    if source.folder is None and (source.builtin or wanted.folder is None):
        task = _load_builtin(name, source.builtin or orders.stand_in_for(name), wanted)
    else:
        task = _load_folder(source.folder or _found(wanted.folder, name), name, wanted, train)
    if source.instruction is None:
        return task
    return replace(task, asking=replace(task.asking, instruction=source.instruction))


def _load_builtin(name: str, stand_in: str, wanted: Wanted) -> Task:
    source = builtin.TASKS[stand_in]
    train, test, labels = source.read(assets.prepare(builtin.PACKAGES))
    held_out = {_clean(text) for text, _ in test}
    train = [row for row in train if _clean(row[0]) not in held_out]  # Reuters repeats some notices word for word
    return Task(
        name=name,
        labels=tuple(labels.values()),
        train=_sample(train, labels, wanted.max_train or builtin.TRAIN, f"{stand_in} train"),
        test=_sample(test, labels, wanted.max_test or builtin.TEST, f"{stand_in} test"),
        stand_in=stand_in,
        about=source.about,
        asking=Asking(source.group, stand_in, source.instruction),
    )


def _found(benchmark: Path | None, name: str) -> Path:
    """The folder of a task in one laid out like CL_Benchmark: `<group>/<name>/{train,test,labels}.json`."""
    found = sorted(path.parent for path in benchmark.glob(f"*/{name}/train.json")) if benchmark else []
    if len(found) != 1:
        seen = ", ".join(str(path) for path in found) or f"none{_instead(benchmark, name)}"
        raise ContinualError(f"--data_dir {benchmark}: wanted one <group>/{name}/train.json, found {seen}")
    return found[0]


def _instead(benchmark: Path | None, name: str) -> str:
    """What is there in a task's place, to be said where the task is not found."""
    if benchmark is None:
        return ""
    if here := sorted(benchmark.glob(f"*/{name}")):
        return f" in {here[0]}"
    if elsewhere := [*benchmark.glob(name), *benchmark.glob(f"*/*/{name}")]:
        return f"; there is {elsewhere[0]}, at another depth"
    tasks = sorted({path.parent.name for path in benchmark.glob("*/*/train.json")})
    same = [task for task in tasks if task.lower() == name.lower()]
    if same:
        return f"; there is {same[0]}"
    return f"; its tasks are {', '.join(tasks[:20])}" if tasks else "; no task is in it"


def _load_folder(folder: Path, name: str, wanted: Wanted, train: bool) -> Task:
    """A task of a folder: examples are objects with `sentence` and `label`; labels.json is the list of labels."""
    labels = _read_json(folder / "labels.json")
    if not isinstance(labels, list) or not labels:
        raise ContinualError(f"{folder / 'labels.json'}: holds {_kind(labels)}; wanted a list of label names")
    for label in labels:
        if not isinstance(label, str) or not label.strip():
            raise ContinualError(f"{folder / 'labels.json'}: a label is {label!r}; wanted a text")
    if len(set(labels)) != len(labels):
        raise ContinualError(f"{folder / 'labels.json'}: a label stands there twice; wanted each once")
    parts: dict[str, tuple[Example, ...]] = {"train": ()}
    left_out = 0
    for part, limit in (("train", wanted.max_train), ("test", wanted.max_test)):
        if part == "test" or train:
            examples, unlabelled = _read_sentences(folder / f"{part}.json", labels)
            left_out += unlabelled
            parts[part] = _taken(examples, len(labels), limit, wanted.sampling, f"{name} {part}")
    return Task(
        name=name,
        labels=tuple(labels),
        train=parts["train"],
        test=parts["test"],
        left_out=left_out,
        asking=asking(folder.parent.name, name),
    )


def _read_json(path: Path) -> object:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ContinualError(f"{path}: {error.strerror}") from None
    if content.startswith(b"version https://git-lfs"):
        raise ContinualError(
            f"{path}: a pointer of Git LFS, its content was not fetched\n  in that folder: git lfs pull"
        )
    try:
        value: object = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ContinualError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except ValueError as error:
        hint = "; wanted one list, not an object a line" if "Extra data" in str(error) else ""
        raise ContinualError(f"{path}: not JSON: {error}{hint}") from None
    except RecursionError:
        raise ContinualError(f"{path}: not JSON of examples: nested too deeply") from None
    return value


def _kind(value: object) -> str:
    """What a JSON file holds, in a word or two."""
    if isinstance(value, (list, dict, str)) and not value:
        return f"an empty {'list' if isinstance(value, list) else 'object' if isinstance(value, dict) else 'text'}"
    return {dict: "an object", list: "a list", str: "a text", type(None): "nothing"}.get(type(value), "a number")


def _read_sentences(path: Path, labels: Sequence[str]) -> tuple[list[Example], int]:
    """The examples of a file as they are, and how many have no agreed label (131 of MNLI's held-out ones have `-`)."""
    rows = _read_json(path)
    if not isinstance(rows, list) or not rows:
        raise ContinualError(f"{path}: holds {_kind(rows)}; wanted a list of examples")
    places = {label: place for place, label in enumerate(labels)}
    examples = []
    for number, row in enumerate(rows):
        sentence, label = (row.get("sentence"), row.get("label")) if isinstance(row, dict) else (None, None)
        if not isinstance(sentence, str) or not isinstance(label, str):
            raise ContinualError(f"{path}: example {number}: wanted an object with the texts sentence and label")
        if label in places:
            examples.append((sentence, places[label]))
        elif label != NO_LABEL:
            raise ContinualError(f"{path}: example {number}: label {label!r} is not in labels.json")
    if not examples:
        raise ContinualError(f"{path}: no example has a label of labels.json")
    return examples, len(rows) - len(examples)


def _clean(text: str) -> str:
    return " ".join(text.split())


def _sample(
    rows: Iterable[tuple[str, str]], labels: Mapping[str, str], limit: int, purpose: str
) -> tuple[Example, ...]:
    """At most `limit` different examples out of (text, label) pairs whose label is wanted, the labels in turn."""
    places = {label: place for place, label in enumerate(labels)}
    distinct = dict.fromkeys((_clean(text), label) for text, label in rows if text.strip() and label in places)
    return _in_turn([(text, places[label]) for text, label in distinct], len(places), limit, purpose)


def _taken(
    examples: Sequence[Example], labels: int, limit: int | None, sampling: str, purpose: str
) -> tuple[Example, ...]:
    if limit is None or sampling == "first":
        return tuple(examples[:limit])
    return _in_turn(examples, labels, limit, purpose)


def _in_turn(examples: Iterable[Example], labels: int, limit: int, purpose: str) -> tuple[Example, ...]:
    """At most `limit` examples, the labels taken in turn as long as they last; the purpose seeds the choice."""
    chance = random.Random(purpose)
    shuffled = list(examples)
    chance.shuffle(shuffled)
    by_label: list[list[Example]] = [[] for _ in range(labels)]
    for example in shuffled:
        by_label[example[1]].append(example)
    chosen: list[Example] = []
    for turn in range(max(map(len, by_label), default=0)):
        chosen += [group[turn] for group in by_label if turn < len(group)]
    chosen = chosen[:limit]
    chance.shuffle(chosen)
    return tuple(chosen)
