"""The memory that a training needs on each GPU and on each host: pure arithmetic, part by part.

What is kept follows the sources: ZeRO (arXiv 1910.02054) and DeepSpeed's stage_1_and_2.py and stage3.py for who keeps
what of weights, gradients and states; torch's DDP for its buckets; transformers' docs for what a parameter takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from dsdoctor.jobs.forecast.activations import adapter_parameters, has_loss_over_words, kept
from dsdoctor.jobs.forecast.shape import ModelShape
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
class Part:
    """A part of the memory, in bytes, and what it is made of."""

    name: str
    size: int
    because: str


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
    gradients, step = _gradients(shape, training, trainable)
    states = _states(shape, training, trainable)
    worst = max(_moments(shape, training, count, gradients, step), key=lambda parts: sum(part.size for part in parts))
    held = tuple(part for part in (*weights, *states, *gathered, *worst) if part.size > 0)
    return MemoryForecast(held, _host(training, count, trainable), trainable, training.length is not None)


def _moments(
    shape: ModelShape, training: Training, count: int, gradients: list[Part], step: int
) -> Iterator[list[Part]]:
    """What is there beside weights and states at the moments of a step that can be the worst.

    At the start of the backward pass there are gradients only where earlier micro-batches left some.
    """
    activations = kept(shape, training)
    because = _activations_because(training)
    casts = Part("casts", _casts(shape, training, count), "16-bit copies of the weights that autocast keeps")
    left = _from_the_start(training, gradients)
    passing = "what the backward pass of the loss, or one layer computed anew, takes"
    yield [*left, Part("activations", activations.forward, because), Part("loss", activations.loss, passing), casts]
    if activations.turn:
        decoder = [replace(part, size=int(part.size * _of_decoder(shape))) for part in gradients]
        there = left if len(left) == len(gradients) else decoder
        yield [*there, Part("activations", activations.turn, f"of the encoder: {because}"), casts]
    if activations.anew:
        table = shape.embeddings * _width(training) if training.lora is None and training.accumulation == 1 else 0
        before = [replace(part, size=max(0, part.size - table)) for part in gradients[:1]] + gradients[1:]
        yield [*before, Part("activations", activations.anew, "the first layer, computed anew")]
    yield [*gradients, _last(step, _tied(shape, training))]


def _from_the_start(training: Training, gradients: list[Part]) -> list[Part]:
    """What of the gradients is there before the backward pass.

    With accumulation those of earlier micro-batches; under ZeRO-3 its flat partition and bucket, under DDP its buckets,
    which are made once. Measured on two ranks: `benchmarks/README.md`.
    """
    if training.accumulation > 1 or (training.engine == "deepspeed" and training.zero.stage == 3):
        return gradients
    return gradients[1:] if training.engine == "ddp" else []


def _of_decoder(shape: ModelShape) -> float:
    """The part of an encoder-decoder's parameters whose gradients are there when the decoder's pass is done."""
    encoder = shape.layers * (4 * shape.hidden * shape.q + _mlp(shape))
    return max(0.0, 1 - encoder / shape.parameters)


def _mlp(shape: ModelShape) -> int:
    layers = shape.layers + shape.decoder_layers
    return sum(each.count * each.inputs * each.outputs for each in shape.linears if each.name in ("wi", "wo")) // layers


def _width(training: Training) -> int:
    """Bytes of a weight that is trained."""
    return 4 if training.precision in ("fp32", "autocast") else 2


def _shards(training: Training, *, of: str) -> int:
    """Over how many ranks a thing ("states", "gradients", "weights") is spread."""
    if training.engine == "fsdp":
        return training.ranks if of != "weights" or training.shards_parameters else 1
    if training.engine != "deepspeed":
        return 1
    needed = {"states": 1, "gradients": 2, "weights": 3}[of]
    return training.ranks if training.zero.stage >= needed else 1


def _weights(shape: ModelShape, training: Training, count: int, adapters: int) -> tuple[list[Part], list[Part]]:
    """The weights that are kept, and those that are gathered to be computed with."""
    width = _width(training)
    base = count * training.base_bits // 8 if training.base_bits else count * width
    # peft keeps adapters in fp32 over 16-bit weights (autocast_adapter_dtype); DeepSpeed casts the whole module.
    base += adapters * (4 if training.precision == "pure16" else width)
    shards = _shards(training, of="weights")
    bits = f"{training.base_bits} bits" if training.base_bits else f"{8 * width} bits"
    words = f"{count + adapters:,} parameters in {bits}" + (f" over {shards} ranks" if shards > 1 else "")
    away = training.zero.parameters_on != "gpu" and training.zero.stage == 3
    kept_here = [] if away else [Part("weights", -(-base // shards), words)]
    if shards == 1 and not away:
        return kept_here, []
    live = 2 * shape.largest_layer if training.engine == "fsdp" else min(count, training.zero.max_live)
    narrow = 2 if training.precision in ("autocast", "mixed", "pure16") else 4
    return kept_here, [Part("gathered weights", live * narrow, f"{live:,} parameters at a time")]


def _gradients(shape: ModelShape, training: Training, trainable: int) -> tuple[list[Part], int]:
    """The gradients that are kept with their buckets, and what the optimizer's step takes beside everything."""
    width, shards = _width(training), _shards(training, of="gradients")
    here = -(-trainable * width // shards)
    zero = training.zero
    if training.engine == "deepspeed" and zero.stage >= 1:
        bucket = min(trainable, zero.reduce_bucket or shape.hidden**2)
        parts = [Part("gradient buckets", bucket * width * (2 if zero.overlap else 1), f"{bucket:,} elements each")]
        if zero.optimizer_on == "gpu":
            parts.insert(0, Part("gradients", here, f"{trainable:,} in {8 * width} bits" + _over(shards)))
            states = _shards(training, of="states")
            return parts, 4 * trainable // states if width == 2 else here
        return parts, 0
    parts = [Part("gradients", here, f"{trainable:,} in {8 * width} bits" + _over(shards))]
    if training.engine == "ddp" and training.ranks > 1:
        parts.append(Part("gradient buckets", trainable * width, "DDP's copies (gradient_as_bucket_view is off)"))
    if training.engine == "deepspeed" and training.precision == "mixed":
        parts.append(Part("fp32 gradients", 4 * trainable, "DeepSpeed's 16-bit optimizers add up in fp32"))
    return parts, trainable * width // shards if training.foreach else 0


def _tied(shape: ModelShape, training: Training) -> int:
    """A table with two uses has two gradients at the end of the backward pass, and their sum: two more than is kept."""
    if training.lora is not None or not has_loss_over_words(shape, training):
        return 0
    return 2 * shape.tied * _width(training)


def _last(step: int, tied: int) -> Part:
    if step >= tied:
        return Part("optimizer step", step, "temporaries of the step")
    return Part("tied gradients", tied, "the vocabulary's table has a gradient from either end")


def _states(shape: ModelShape, training: Training, trainable: int) -> list[Part]:
    """Optimizer states and fp32 masters on the GPU."""
    if training.engine == "deepspeed" and training.zero.optimizer_on != "gpu":
        return []
    shards = _shards(training, of="states")
    return [
        Part(name, -(-size // shards), because + _over(shards))
        for name, size, because in _state_sizes(training, trainable)
    ]


def _state_sizes(training: Training, trainable: int) -> list[tuple[str, int, str]]:
    width = 2 if training.precision == "pure16" and training.lora is None else 4
    each = {"adamw": 2 * width, "adamw_8bit": 2, "adafactor": 0, "sgd": 0, "momentum": width}[training.optimizer]
    found = [("optimizer states", each * trainable, f"{training.optimizer}: {each} bytes each")]
    # DeepSpeed's ZeRO clones the trained parameters into fp32 partitions whatever their own width.
    zero = training.engine == "deepspeed" and training.zero.stage >= 1
    if training.precision == "mixed" or zero:
        found.append(("fp32 masters", 4 * trainable, "fp32 copy of what is trained"))
    return found


def _casts(shape: ModelShape, training: Training, count: int) -> int:
    """Autocast keeps a 16-bit copy of every matrix that is trained until its pass ends."""
    if training.precision != "autocast" or training.lora is not None:
        return 0
    return 2 * (count - shape.embeddings)


def _host(training: Training, count: int, trainable: int) -> tuple[Part, ...]:
    """What a rank keeps in the host's memory because it is offloaded there."""
    if training.engine != "deepspeed":
        return ()
    parts = []
    shards = _shards(training, of="states")
    if training.zero.optimizer_on == "cpu":
        states = sum(size for _, size, _ in _state_sizes(training, trainable))
        parts.append(Part("optimizer", -(-(states + 4 * trainable) // shards), "states, masters and fp32 gradients"))
    if training.zero.parameters_on == "cpu" and training.zero.stage == 3:
        parts.append(Part("weights", -(-count * _width(training) // training.ranks), "offloaded parameters, pinned"))
    return tuple(parts)


def _over(shards: int) -> str:
    return f" over {shards} ranks" if shards > 1 else ""


def _activations_because(training: Training) -> str:
    length = f"{training.length}" + (f" + {training.target_length}" if training.target_length else "")
    how = "layers' inputs alone (checkpointing)" if training.checkpointing else f"{training.attention} attention"
    return f"{training.micro_batch} × {length} tokens, {how}"
