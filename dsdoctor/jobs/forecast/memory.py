"""The memory that a training needs on each GPU and on each host: pure arithmetic, part by part.

What is kept follows the sources: ZeRO (arXiv 1910.02054) and DeepSpeed's stage_1_and_2.py and stage3.py for who keeps
what of weights, gradients and states; torch's DDP for its buckets; transformers' docs for what a parameter takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dsdoctor.jobs.forecast.activations import adapter_parameters, has_loss_over_words, kept
from dsdoctor.jobs.forecast.evaluation import evaluating
from dsdoctor.jobs.forecast.gradients import Gradients, gradients_of
from dsdoctor.jobs.forecast.parts import Part
from dsdoctor.jobs.forecast.shape import ModelShape
from dsdoctor.jobs.forecast.states import offloaded, over, shards_of, state_sizes, width_of
from dsdoctor.jobs.forecast.training import Training

MIB = 1 << 20

# A CUDA context with the kernels that are loaded into it. 0.5 GiB with lazy loading (the default from CUDA 11.7 on),
# where an 8B model in 16 bits with LoRA was seen at 17 GB; transformers' docs, "Model training anatomy", show 1.3 GB
# without it, pytorch issue 34323 0.8 GB.
CONTEXT_LEAST, CONTEXT_MOST = 512 * MIB, 1343 * MIB

# What the caching allocator holds beyond what is in use: blocks that do not fit the next request. The least is none.
# The most is what the runs that are recorded in the tests need to lie inside the range.
FRAGMENTS_MOST = 0.15


@dataclass(frozen=True)
class MemoryForecast:
    """What a rank needs on its GPU, and in the host's memory. `complete` false: activations are not in it.

    `least` and `most` say how far the card's figure may be off: with the smallest context and no fragmentation, and
    with the largest of both.
    """

    gpu: tuple[Part, ...]
    host: tuple[Part, ...]
    trainable: int
    complete: bool

    @property
    def tensors(self) -> int:
        """Bytes of all tensors at the worst moment of a step."""
        return sum(part.size for part in self.gpu)

    @property
    def least(self) -> int:
        """Bytes that nvidia-smi would show at least."""
        return self.tensors + CONTEXT_LEAST

    @property
    def most(self) -> int:
        """Bytes that nvidia-smi would show at most."""
        return int(self.tensors * (1 + FRAGMENTS_MOST)) + CONTEXT_MOST

    @property
    def ram(self) -> int:
        """Bytes that a rank keeps in its host's memory, its program aside."""
        return sum(part.size for part in self.host)


def forecast(shape: ModelShape, training: Training, parameters: int | None = None) -> MemoryForecast:
    """The memory of one rank. `parameters` are those that the weight files' headers count, where they are known."""
    count = parameters or shape.parameters
    adapters = adapter_parameters(shape, training)
    trainable = adapters if training.lora is not None else count
    weights, gathered = _weights(shape, training, count, adapters)
    gradients = gradients_of(shape, training, trainable)
    states = _states(shape, training, trainable)
    moments = _moments(shape, training, count, gradients, gathered)
    worst = max(moments, key=lambda parts: sum(part.size for part in parts))
    held = tuple(part for part in (*weights, *states, *worst) if part.size > 0)
    return MemoryForecast(held, offloaded(shape, training, count, trainable), trainable, training.length is not None)


def _moments(
    shape: ModelShape, training: Training, count: int, gradients: Gradients, gathered: list[Part]
) -> Iterator[list[Part]]:
    """What is there beside weights and states at the moments of a step that can be the worst.

    At the start of the backward pass there are gradients only where earlier micro-batches left some.
    """
    activations = kept(shape, training)
    because = _activations_because(training)
    casts = Part("casts", _casts(shape, training, count), "16-bit copies of the weights that autocast keeps")
    passing = "what the backward pass of the loss, or one layer computed anew, takes"
    loss = Part("loss", activations.loss, passing)
    forward = Part("activations", activations.forward, because)
    yield [*gathered, *gradients.left, forward, loss, casts]
    if gradients.buckets and training.engine == "deepspeed":
        before = gradients.kept if training.accumulation > 1 else []
        yield [*gathered, *before, *gradients.buckets, forward, gradients.norm]
    everything = [*gradients.kept, *gradients.buckets]
    if activations.turn:
        decoder = [replace(part, size=int(part.size * _of_decoder(shape))) for part in everything]
        there = everything if len(gradients.left) == len(everything) else decoder
        yield [*gathered, *there, Part("activations", activations.turn, f"of the encoder: {because}"), casts]
    if activations.anew:
        table = shape.embeddings * width_of(training) if training.lora is None and training.accumulation == 1 else 0
        before = [replace(part, size=max(0, part.size - table)) for part in everything[:1]] + everything[1:]
        yield [*gathered, *before, Part("activations", activations.anew, "the first layer, computed anew")]
    tied = Part("tied gradients", _tied(shape, training), "the vocabulary's table has a gradient from either end")
    # FSDP has given back what it had gathered before it reduces the last gradients.
    yield [*([] if training.engine == "fsdp" else gathered), *everything, gradients.last, tied]
    yield [*gradients.stepping, gradients.step]
    yield [*gathered, *(gradients.left if training.accumulation == 1 else []), *evaluating(shape, training)]


def _of_decoder(shape: ModelShape) -> float:
    """The part of an encoder-decoder's parameters whose gradients are there when the decoder's pass is done."""
    encoder = shape.layers * (4 * shape.hidden * shape.q + _mlp(shape))
    return max(0.0, 1 - encoder / shape.parameters)


def _mlp(shape: ModelShape) -> int:
    layers = shape.layers + shape.decoder_layers
    return sum(each.count * each.inputs * each.outputs for each in shape.linears if each.name in ("wi", "wo")) // layers


def _weights(shape: ModelShape, training: Training, count: int, adapters: int) -> tuple[list[Part], list[Part]]:
    """The weights that are kept, and those that are gathered to be computed with."""
    width = width_of(training)
    base = count * training.base_bits // 8 if training.base_bits else count * width
    # peft keeps adapters in fp32 over 16-bit weights (autocast_adapter_dtype); DeepSpeed casts the whole module.
    base += adapters * (4 if training.precision == "pure16" else width)
    shards = shards_of(training, "weights")
    bits = f"{training.base_bits} bits" if training.base_bits else f"{8 * width} bits"
    words = f"{count + adapters:,} parameters in {bits}" + (f" over {shards} ranks" if shards > 1 else "")
    away = training.zero.parameters_on != "gpu" and training.zero.stage == 3
    kept_here = [] if away else [Part("weights", -(-base // shards), words)]
    if shards == 1 and not away:
        return kept_here, []
    live = min(count, training.zero.max_live)
    if training.engine == "fsdp":
        # Its root gathers what is in no layer and keeps it; a layer is computed with while the next one comes.
        live = min(count, shape.outside + 2 * shape.layer) if training.shards_parameters else count
    narrow = 2 if training.precision in ("autocast", "mixed", "pure16") else 4
    return kept_here, [Part("gathered weights", live * narrow, f"{live:,} parameters at a time")]


def _tied(shape: ModelShape, training: Training) -> int:
    """A table with two uses has two gradients at the end of the backward pass, and their sum: two more than is kept."""
    if training.lora is not None or not has_loss_over_words(shape, training):
        return 0
    return 2 * shape.tied * width_of(training)


def _states(shape: ModelShape, training: Training, trainable: int) -> list[Part]:
    """Optimizer states and fp32 masters on the GPU."""
    if training.engine == "deepspeed" and training.zero.optimizer_on != "gpu":
        return []
    shards = shards_of(training, "states")
    return [
        Part(name, -(-size // shards), because + over(shards))
        for name, size, because in state_sizes(training, trainable)
    ]


def _casts(shape: ModelShape, training: Training, count: int) -> int:
    """Autocast keeps a 16-bit copy of every matrix that is trained until its pass ends."""
    if training.precision != "autocast" or training.lora is not None:
        return 0
    return 2 * (count - shape.embeddings)


def _activations_because(training: Training) -> str:
    length = f"{training.length}" + (f" + {training.target_length}" if training.target_length else "")
    how = "layers' inputs alone (checkpointing)" if training.checkpointing else f"{training.attention} attention"
    return f"{training.micro_batch} × {length} tokens, {how}"
