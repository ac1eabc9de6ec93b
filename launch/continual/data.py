"""The tasks as labelled texts: the built-in ones, and those of a folder laid out like O-LoRA's CL_Benchmark.

A task is a list of label names and two disjoint lists of examples. Which examples are taken is fixed (the seed of a
run changes their order alone), so that every rank, stage and run of a task is measured on the same ones.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from continual import ContinualError, assets, orders

BUILTIN_TRAIN, BUILTIN_TEST = 400, 200
BUILTIN_PACKAGES = (assets.TEXTS, assets.REVIEWS)

Example = tuple[str, int]  # a text, and the place of its label among the task's labels


@dataclass(frozen=True)
class Task:
    """A task to train or to be measured on. `labels` are the names the encoder compares a text with."""

    name: str
    labels: tuple[str, ...]
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    stand_in: str | None = None  # the built-in task behind the name
    about: str = ""  # what the built-in task is

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
    """Where tasks come from, and at most how many examples; without a folder, the built-in tasks."""

    folder: Path | None = None
    max_train: int | None = None
    max_test: int | None = None


def load(name: str, wanted: Wanted, train: bool = True) -> Task:
    """A task, with the examples to train on if they are wanted.

    Raises:
        ContinualError: nothing built in stands in for it, the assets are not to be had, a file is missing or wrong.
    """
    return _load_builtin(name, wanted) if wanted.folder is None else _load_folder(wanted.folder, name, wanted, train)


def _load_builtin(name: str, wanted: Wanted) -> Task:
    stand_in = orders.stand_in_for(name)
    about, read = _BUILTIN[stand_in]
    train, test, labels = read(assets.prepare(BUILTIN_PACKAGES))
    held_out = {_clean(text) for text, _ in test}
    train = [row for row in train if _clean(row[0]) not in held_out]  # Reuters repeats some notices word for word
    return Task(
        name=name,
        labels=tuple(labels.values()),
        train=_sample(train, labels, wanted.max_train or BUILTIN_TRAIN, f"{stand_in} train"),
        test=_sample(test, labels, wanted.max_test or BUILTIN_TEST, f"{stand_in} test"),
        stand_in=stand_in,
        about=about,
    )


def _load_folder(folder: Path, name: str, wanted: Wanted, train: bool) -> Task:
    """A task of a folder laid out like CL_Benchmark: `<group>/<name>/{train,test,labels}.json`.

    Examples are objects with `sentence` and `label`; labels.json is the list of labels.
    """
    found = sorted(path.parent for path in folder.glob(f"*/{name}/train.json"))
    if len(found) != 1:
        seen = ", ".join(str(path) for path in found) or "none"
        raise ContinualError(f"--data_dir {folder}: wanted one <group>/{name}/train.json, found {seen}")
    labels = _read_json(found[0] / "labels.json")
    if not isinstance(labels, list) or not labels or not all(isinstance(label, str) for label in labels):
        raise ContinualError(f"{found[0] / 'labels.json'}: wanted a list of label names")
    named = {label: label for label in labels}
    parts: dict[str, tuple[Example, ...]] = {"train": ()}
    for part, limit in (("train", wanted.max_train), ("test", wanted.max_test)):
        if part == "test" or train:
            rows = _read_sentences(found[0] / f"{part}.json", named)
            parts[part] = _sample(rows, named, limit, f"{name} {part}")
    return Task(name=name, labels=tuple(named), train=parts["train"], test=parts["test"])


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ContinualError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ContinualError(f"{path}: not JSON: {error}") from None


def _read_sentences(path: Path, labels: Mapping[str, str]) -> list[tuple[str, str]]:
    rows = _read_json(path)
    if not isinstance(rows, list) or not rows:
        raise ContinualError(f"{path}: wanted a list of examples")
    pairs = []
    for number, row in enumerate(rows):
        sentence, label = (row.get("sentence"), row.get("label")) if isinstance(row, dict) else (None, None)
        if not isinstance(sentence, str) or not isinstance(label, str):
            raise ContinualError(f"{path}: example {number}: wanted an object with the texts sentence and label")
        if label not in labels:
            raise ContinualError(f"{path}: example {number}: label {label!r} is not in labels.json")
        pairs.append((sentence, label))
    return pairs


def _clean(text: str) -> str:
    return " ".join(text.split())


def _sample(
    rows: Iterable[tuple[str, str]], labels: Mapping[str, str], limit: int | None, purpose: str
) -> tuple[Example, ...]:
    """At most `limit` examples, the labels taken in turn as long as they last; all of them without a limit.

    `rows` hold (text, label); the purpose seeds the choice.
    """
    places = {label: place for place, label in enumerate(labels)}
    distinct = dict.fromkeys((_clean(text), label) for text, label in rows if text.strip() and label in places)
    examples = [(text, places[label]) for text, label in distinct]
    if limit is None:
        return tuple(examples)
    chance = random.Random(purpose)
    chance.shuffle(examples)
    by_label: list[list[Example]] = [[] for _ in places]
    for example in examples:
        by_label[example[1]].append(example)
    chosen: list[Example] = []
    for turn in range(max(map(len, by_label), default=0)):
        chosen += [group[turn] for group in by_label if turn < len(group)]
    chosen = chosen[:limit]
    chance.shuffle(chosen)
    return tuple(chosen)


# The built-in tasks -----------------------------------------------------------------------------------------------

Parts = tuple[Sequence[tuple[str, str]], Sequence[tuple[str, str]], Mapping[str, str]]
Folders = Mapping[str, Path]

_REUTERS = {
    "acq": "company acquisition",
    "crude": "crude oil",
    "earn": "company earnings",
    "grain": "grain and wheat",
    "interest": "interest rates",
    "money-fx": "foreign exchange",
    "ship": "shipping",
    "trade": "international trade",
}
_NEWSGROUPS = {
    "comp.graphics": "computer graphics",
    "rec.autos": "cars",
    "rec.sport.hockey": "hockey",
    "sci.crypt": "cryptography",
    "sci.med": "medicine",
    "sci.space": "space",
    "talk.politics.mideast": "middle east politics",
}
_AUTHORS = {"HillaryClinton": "Hillary Clinton", "realDonaldTrump": "Donald Trump"}
_POLARITY = {"positive": "positive review", "negative": "negative review"}
_LINK = re.compile(r"https?://\S*")


def _table(path: Path) -> list[dict[str, str]]:
    """The rows of a tab-separated file of Orange: names in the first line, their kinds in the next two."""
    with path.open(encoding="utf-8", newline="") as lines:
        csv.field_size_limit(1 << 24)  # a newsgroup posting can be longer than the module's default of 128 KiB
        rows = list(csv.DictReader(lines, delimiter="\t"))
    return [{key: value or "" for key, value in row.items() if key} for row in rows[2:]]


def _split(stem: str, labels: Mapping[str, str], folders: Folders) -> Parts:
    """A set of texts by category that comes divided into train and test."""
    train, test = (
        [(row["Text"], row["Category"]) for row in _table(folders[assets.TEXTS.name] / f"{stem}-{part}.tab")]
        for part in ("train", "test")
    )
    return train, test, labels


def _tweets(folders: Folders) -> Parts:
    """Tweets of the 2016 election by author, retweets and links left out; every third one is held out."""
    rows = [
        (_LINK.sub("", row["Content"]), row["Author"])
        for row in _table(folders[assets.TEXTS.name] / "election-tweets-2016.tab")
        if row["Is retweet"] == "False"
    ]
    return [row for i, row in enumerate(rows) if i % 3], rows[::3], _AUTHORS


def _reviews(folders: Folders) -> Parts:
    """Sentences of product reviews with a clear human score (at least 0.8 of 4); every third review is held out."""
    text = (folders[assets.REVIEWS.name] / assets.REVIEWS.members).read_text(encoding="ascii")
    train: list[tuple[str, str]] = []
    test: list[tuple[str, str]] = []
    for line in text.splitlines():
        place, score, sentence = line.split("\t", 2)
        if abs(float(score)) < 0.8:
            continue
        row = (sentence, "positive" if float(score) > 0 else "negative")
        (train if int(place.split("_")[0]) % 3 else test).append(row)
    return train, test, _POLARITY


_BUILTIN: Mapping[str, tuple[str, Callable[[Folders], Parts]]] = {
    "reuters-r8": ("newswire stories by subject, Reuters-21578", partial(_split, "reuters-r8", _REUTERS)),
    "product-reviews": ("sentences of product reviews, positive or negative", _reviews),
    "newsgroups-7": (
        "newsgroup postings by group, seven of 20 Newsgroups",
        partial(_split, "20newsgroups", _NEWSGROUPS),
    ),
    "tweet-author": ("tweets of the 2016 US election by author", _tweets),
}
