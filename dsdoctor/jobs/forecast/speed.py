"""The time that a training takes, as a range: what is computed, on the slowest card, and what goes over the links.

Nothing here knows how good a program is; what is stated is how good programs are known to be. The range is wide on
purpose: it tells an afternoon from a week and a week from a decade.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dsdoctor.jobs.forecast.activations import adapter_parameters
from dsdoctor.jobs.forecast.shape import ModelShape
from dsdoctor.jobs.forecast.tables import Card, cards
from dsdoctor.jobs.forecast.training import Training

Compute = Literal["fp32", "fp16", "bf16"]

# The part of a card's dense peak that a training's own operations reach. Published: GPT-3 21 %, PaLM 46 % (arXiv
# 2204.02311, table 3), Megatron-LM up to 57 % (its README); the recorded runs in the tests lie at 25 % and 38 %.
UTILISATION = (0.20, 0.57)

# Seconds a layer and pass that a card waits for Python to start its kernels, where batches are small: the recorded
# runs of a 0.5B model (161 tokens a micro-batch) took 0.8 and 1.2 ms a layer and pass. The least is a guess of a
# tenth of that, for machines of today and compiled models.
LAUNCH = (0.1e-3, 1.25e-3)

# The part of a link's rate that collectives reach, least and most. NCCL over TCP sockets; no public figure was found.
LINK_USE = (0.5, 0.95)

YEAR = 365.25 * 86400


@dataclass(frozen=True)
class Links:
    """Bytes a second between hosts (the slowest), None for one host, and between a card and its host."""

    network: float | None = None
    host: float | None = None


@dataclass(frozen=True)
class SpeedForecast:
    """Seconds of an optimizer step, least and most, and what of the most is spent on what."""

    least: float
    most: float
    compute: float
    launch: float
    transfer: float
    tokens: int  # that all ranks go through in a step
    flops: float  # of one rank in a step

    @property
    def middle(self) -> float:
        """The geometric middle of the range."""
        return float((self.least * self.most) ** 0.5)

    def seconds(self, tokens: float) -> tuple[float, float]:
        """Least and most for that many tokens."""
        steps = tokens / self.tokens
        return steps * self.least, steps * self.most


def card_of(name: str) -> Card | None:
    """The card of that name, None where its rates are not known."""
    words = name.lower().replace("-", " ").split()
    for card in cards():
        if all(part in words for part in card.name.lower().replace("-", " ").split()):
            return card
    return None


def rate(card: Card, compute: Compute) -> float:
    """Operations a second. A card without bf16 computes it as fp32."""
    value = {"fp32": card.fp32, "fp16": card.fp16, "bf16": card.bf16}[compute]
    return (value or card.fp32) * 1e12


def flops_a_token(shape: ModelShape, training: Training) -> float:
    """Operations for a token: 2 a parameter forward, 4 backward (2 where it is frozen), 2 more with checkpointing.

    Attention adds 4 x length x width a layer forward. Source: PaLM, arXiv 2204.02311, appendix B.
    """
    length = training.length or 0
    matrices = shape.parameters - shape.embeddings
    layers = shape.layers + shape.decoder_layers
    forward = 2 * matrices + 4 * length * shape.q * layers
    backward = forward if training.lora is not None else 2 * forward
    forward += 2 * adapter_parameters(shape, training)
    return forward + backward + (forward if training.checkpointing else 0)


def forecast(
    shape: ModelShape, training: Training, gpus: Sequence[Card], compute: Compute, links: Links | None = None
) -> SpeedForecast:
    """The time of a step on these kinds of cards; all ranks wait for the slowest.

    Raises:
        ValueError: the length of the samples is not known, or no card was given.
    """
    if training.length is None or not gpus:
        raise ValueError("the length of the samples, or the card, is not known")
    links = links or Links()
    own = training.micro_batch * training.accumulation * training.length
    flops = flops_a_token(shape, training) * own
    slowest = min(rate(card, compute) for card in gpus)
    passes = (4 if training.checkpointing else 3) * (shape.layers + shape.decoder_layers) * training.accumulation
    moved = _seconds_moved(shape, training, links)
    fastest = max(flops / (slowest * UTILISATION[1]), passes * LAUNCH[0], moved / LINK_USE[1])
    compute_most, launch_most, moved_most = flops / (slowest * UTILISATION[0]), passes * LAUNCH[1], moved / LINK_USE[0]
    return SpeedForecast(
        least=fastest,
        most=compute_most + launch_most + moved_most,
        compute=compute_most,
        launch=launch_most,
        transfer=moved_most,
        tokens=own * training.ranks,
        flops=flops,
    )


def _seconds_moved(shape: ModelShape, training: Training, links: Links) -> float:
    """What links take at their full rate: gradients or gathered weights between hosts, offloaded state to the host.

    A ring moves 2 (n - 1) / n of the gradients a step. ZeRO-3 gathers the weights forward and backward and spreads the
    gradients, in each micro-batch: 3 (n - 1) / n of them (arXiv 1910.02054, section 7).
    """
    ranks = training.ranks
    ring = (ranks - 1) / ranks
    wide = 2 if training.precision in ("mixed", "pure16") else 4
    weights = shape.parameters * wide
    adapters = adapter_parameters(shape, training)
    gradients = adapters * wide if training.lora is not None else weights
    sharded = training.engine == "fsdp" and training.shards_parameters
    total = 0.0
    if links.network and ranks > 1:
        if (training.engine == "deepspeed" and training.zero.stage == 3) or sharded:
            total += training.accumulation * ring * (2 * weights + gradients) / links.network
        else:
            total += 2 * ring * gradients / links.network
    if links.host and training.engine == "deepspeed" and training.zero.optimizer_on == "cpu":
        shards = ranks if training.zero.stage >= 1 else 1
        total += 2 * gradients / shards / links.host
    if links.host and training.zero.parameters_on == "cpu" and training.zero.stage == 3:
        total += 2 * training.accumulation * weights / ranks / links.host
    return total


def span(seconds: float) -> str:
    """`40 minutes`, `3.5 hours`, `12 days`, `11 years`."""
    for size, unit in ((YEAR, "years"), (86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 1.5 * size:
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 9.5 else f"{value:.1f} {unit}"
    return f"{seconds:.0f} seconds"
