"""The built-in tasks: seven small labelled sets out of two packages of the index, a stand-in each for a named task.

Four ask for a topic or an author, three for the mood of sentences that people have scored (vaderSentiment's data:
Hutto and Gilbert, "VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text", ICWSM 2014).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from continual import assets
from continual.prompts import INSTRUCTIONS

PACKAGES = (assets.TEXTS, assets.REVIEWS)
TRAIN, TEST = 400, 200  # examples taken of each, unless told otherwise
CLEAR = 0.8  # of 4: a sentence that people scored nearer to zero is left out

Parts = tuple[Sequence[tuple[str, str]], Sequence[tuple[str, str]], Mapping[str, str]]
Folders = Mapping[str, Path]


@dataclass(frozen=True)
class BuiltIn:
    """A built-in task: what it is, how it is asked, and how its (text, label) pairs and label names are read."""

    about: str
    group: str
    instruction: str
    read: Callable[[Folders], Parts]


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


def _scored(stem: str, what: str, folders: Folders) -> Parts:
    """Sentences with a clear human score; every third text is held out, with all its sentences."""
    path = folders[assets.REVIEWS.name] / f"{stem}_GroundTruth.txt"
    train: list[tuple[str, str]] = []
    test: list[tuple[str, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        place, score, sentence = line.split("\t", 2)  # the place is text_sentence, or text where each is one sentence
        if abs(float(score)) < CLEAR:
            continue
        row = (sentence, "positive" if float(score) > 0 else "negative")
        (train if int(place.split("_")[0]) % 3 else test).append(row)
    return train, test, {"positive": f"positive {what}", "negative": f"negative {what}"}


def _mood(about: str, stem: str, what: str) -> BuiltIn:
    instruction = INSTRUCTIONS["SC"] or ""
    return BuiltIn(f"{about}, positive or negative", "SC", instruction, partial(_scored, stem, what))


def _topic(about: str, read: Callable[[Folders], Parts]) -> BuiltIn:
    return BuiltIn(about, "TC", INSTRUCTIONS["TC"] or "", read)


TASKS: Mapping[str, BuiltIn] = MappingProxyType(
    {
        "reuters-r8": _topic("newswire stories by subject, Reuters-21578", partial(_split, "reuters-r8", _REUTERS)),
        "product-reviews": _mood("sentences of product reviews", "amazonReviewSnippets", "review"),
        "newsgroups-7": _topic(
            "newsgroup postings by group, seven of 20 Newsgroups", partial(_split, "20newsgroups", _NEWSGROUPS)
        ),
        "tweet-author": BuiltIn(
            "tweets of the 2016 US election by author",
            "TC",
            "Who wrote the following paragraph? Choose one from the option.\n",
            _tweets,
        ),
        "movie-reviews": _mood("sentences of film reviews", "movieReviewSnippets", "film review"),
        "tweets-mood": _mood("tweets", "tweets", "tweet"),
        "editorials-mood": _mood("sentences of newspaper editorials", "nytEditorialSnippets", "editorial"),
    }
)
