"""What the tests of the training package share: a tiny random encoder and tiny made-up tasks, no network."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[2] / "launch"
sys.path.insert(0, str(LAUNCH))  # the package is started from there, by its own name

WORDS = {
    "dbpedia": {"animal": "cat dog cow horse", "plant": "oak rose fern moss", "place": "town lake hill road"},
    "amazon": {"good": "fine great superb nice", "bad": "poor awful broken cheap"},
    "yahoo": {"sport": "goal match team race", "music": "song band tune drum"},
    "agnews": {"world": "war treaty border king", "business": "stock price bank trade"},
}


def write_benchmark(folder: Path, train: int = 40, test: int = 12) -> Path:
    """A folder laid out like CL_Benchmark: each label has words of its own."""
    for task, labels in WORDS.items():
        chance = random.Random(task)
        place = folder / "TC" / task
        place.mkdir(parents=True)
        (place / "labels.json").write_text(json.dumps(list(labels)))
        for part, count in (("train", train), ("test", test)):
            rows = []
            for number in range(count):
                label = list(labels)[number % len(labels)]
                words = [chance.choice([*labels[label].split(), "the"]) for _ in range(chance.randint(3, 6))]
                rows.append({"sentence": f"{' '.join(words)} {number} {part}", "label": label})
            (place / f"{part}.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmark(tmp_path_factory.mktemp("CL_Benchmark"))


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 2 layers with random weights, saved as transformers saves models."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("tiny-bert")
    words = sorted({word for labels in WORDS.values() for text in labels.values() for word in text.split()})
    words += sorted({label for labels in WORDS.values() for label in labels})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "train", "test", *words]
    vocabulary += [str(digit) for digit in range(10)] + [f"##{digit}" for digit in range(10)]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)) + "\n")
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(set(vocabulary)),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        hidden_dropout_prob=0.3,  # to be switched off: losses must not depend on the number of ranks
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes a folder with a tiny random generative model of a kind, once."""
    from tests.continual import tiny_models

    words = sorted({word for labels in WORDS.values() for text in labels.values() for word in text.split()})
    words += sorted({label for labels in WORDS.values() for label in labels})
    words += [*"0123456789:?,.", "the", "train", "test", "Answer", "Option", "Which", "topic", "Task", "TC", "news"]
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(f"tiny-{kind}")
            tiny_models.write(kind, folder, words)
            made[kind] = folder
        return made[kind]

    return make


def stage_flags(encoder: Path, benchmark: Path, output: Path, stage: int = 1, **other: object) -> list[str]:
    """The flags of a stage of order_1 on the tiny encoder; `other` are laid over them."""
    flags: dict[str, object] = {
        "order": "order_1",
        "task": list(WORDS)[stage - 1],
        "stage_index": stage,
        "output_dir": output / f"{stage}",
        "previous_output_dir": output / f"{stage - 1}" if stage > 1 else "",
        "model_name_or_path": encoder,
        "data_dir": benchmark,
        "learning_rate": 0.02,
        "max_steps": 6,
        "global_batch_size": 8,
        "logging_steps": 1,
    }
    merged = flags | other
    return [word for key, value in merged.items() for word in (f"--{key}", str(value))]
