"""How many tokens a stage goes through: out of its steps, its samples, or the size of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dsdoctor.jobs.forecast.training import Training
from dsdoctor.jobs.job import StageSettings

# Bytes of text a token. English has about four letters a token (OpenAI's help page "What are tokens"); a Chinese
# character is three bytes in UTF-8 and one to three tokens for a vocabulary that hardly has any (LLaMA's 32,000
# words). JSON's names and quotes are among the bytes, too.
BYTES_A_TOKEN = (1.0, 6.0)


@dataclass(frozen=True)
class Work:
    """Tokens of a stage over all ranks, least and most, and where they come from."""

    least: float
    most: float
    because: str


def work_of(stage: StageSettings, training: Training, data_bytes: int | None = None) -> Work | None:
    """The tokens of a stage, None where nothing tells them."""
    if training.length is None:
        return None
    arguments = {name.lstrip("-").replace("-", "_"): value for name, value in stage.args.items() if value is not None}
    epochs = _positive(arguments, "num_train_epochs", "epochs") or 3.0  # the Trainer's default
    batch = training.micro_batch * training.accumulation * training.ranks
    steps = _positive(arguments, "max_steps", "total_num_steps")
    if steps:
        tokens = steps * batch * training.length
        return Work(tokens, tokens, f"{steps:,.0f} steps of {batch} × {training.length} tokens")
    samples = _positive(arguments, "max_train_samples", "max_samples")
    if samples:
        tokens = epochs * samples * training.length
        return Work(tokens, tokens, f"{epochs:g} × {samples:,.0f} samples of {training.length} tokens")
    if data_bytes:
        fewest, bytes_most = BYTES_A_TOKEN
        least, most = epochs * data_bytes / bytes_most, epochs * data_bytes / fewest
        return Work(least, most, f"{epochs:g} × {data_bytes:,} bytes of data, {fewest:g} to {bytes_most:g} a token")
    return None


def _positive(arguments: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        try:
            value = float(str(arguments.get(name)))
        except ValueError:
            continue
        if 0 < value < 1e18:
            return value
    return None
