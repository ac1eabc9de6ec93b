"""What a training step keeps between forward and backward pass, and what the pass over the loss takes beside it."""

from __future__ import annotations

from dataclasses import dataclass

from dsdoctor.jobs.forecast.shape import Linear, ModelShape
from dsdoctor.jobs.forecast.tables import Terms, activations
from dsdoctor.jobs.forecast.training import DEFAULT_TARGETS, Lora, Training

# The loss over a vocabulary is computed in fp32: in the backward pass the logarithms of the probabilities, the
# gradient that comes in and the one that goes out are there at once. Measured by benchmarks/memory_forecast.py.
_LOSS_BYTES = 12


@dataclass(frozen=True)
class Kept:
    """Bytes of a micro-batch: at the end of the forward pass, and at later moments of the backward pass."""

    forward: int
    loss: int  # beside them, while the loss, or one layer anew, is computed
    turn: int = 0  # of an encoder, when the decoder's pass is done and all its gradients are there
    anew: int = 0  # with checkpointing, the last layer that is computed anew: nearly all gradients are there


def kept(shape: ModelShape, training: Training) -> Kept:
    """What a step keeps of its activations. With checkpointing each layer keeps its input alone."""
    if training.length is None:
        return Kept(0, 0)
    layers, decoder, outside = _by_part(shape, training)
    tokens = training.micro_batch * (training.target_length if shape.decoder_layers else training.length)
    loss = 0
    if has_loss_over_words(shape, training):
        loss = max(0, int(_LOSS_BYTES - _terms(shape, training)[2].get("V", 0)) * shape.vocabulary * tokens)
    if not training.checkpointing:
        turn = shape.layers * layers if shape.decoder_layers else 0
        return Kept(
            turn + shape.decoder_layers * decoder + outside if turn else shape.layers * layers + outside, loss, turn
        )
    width = 4 if training.precision in ("fp32", "autocast") else 2
    inputs = training.micro_batch * shape.hidden * width
    here = inputs * (shape.layers * training.length + shape.decoder_layers * training.target_length)
    return Kept(here + outside, max(loss, layers, decoder), anew=layers)


def lora_linears(shape: ModelShape, lora: Lora) -> tuple[Linear, ...]:
    """The matrices that adapters are put on; a target of the job is a name, or a pattern that contains it."""
    targets = lora.targets or DEFAULT_TARGETS[shape.family]
    if "all-linear" in targets or "all" in targets:
        return shape.linears
    return tuple(linear for linear in shape.linears if any(_names(target, linear.name) for target in targets))


def adapter_parameters(shape: ModelShape, training: Training) -> int:
    """The parameters of LoRA's adapters, 0 without them."""
    lora = training.lora
    if lora is None:
        return 0
    return sum(linear.count * lora.rank * (linear.inputs + linear.outputs) for linear in lora_linears(shape, lora))


def _names(target: str, name: str) -> bool:
    """Whether a target means a module: by its name, its last name, or a pattern with the name in it."""
    if target == name or target.endswith(f".{name}"):
        return True
    return len(name) > 1 and name in target and any(sign in target for sign in "|*()[]")


def has_loss_over_words(shape: ModelShape, training: Training) -> bool:
    """Whether the model ends in the vocabulary, with a loss over all words for each token."""
    return shape.generates if training.vocabulary_loss is None else training.vocabulary_loss


def _terms(shape: ModelShape, training: Training) -> tuple[Terms, Terms, Terms]:
    precision = "pure16" if training.precision == "mixed" else training.precision
    frozen = "frozen" if training.lora is not None else "trained"
    found = activations()[shape.family][f"{precision} {training.attention} {frozen}"]
    return found.layer, found.decoder, found.outside


def _by_part(shape: ModelShape, training: Training) -> tuple[int, int, int]:
    """Bytes of one layer, of one of the decoder's, and of everything outside the layers, for a micro-batch."""
    layer, decoder, outside = _terms(shape, training)
    length, target = training.length or 0, training.target_length
    batch = training.micro_batch
    one = _sum(shape, layer, length) * length
    one += length * (_dropout(shape, training, length) + _adapters(shape, training))
    two = 0.0
    if shape.decoder_layers:
        own = {name: value for name, value in decoder.items() if not name.startswith("other_")}
        two = _sum(shape, own, target) * target + decoder.get("cross", 0) * shape.heads * length * target
        two += length * (decoder.get("other_q", 0) * shape.q + decoder.get("other_h", 0) * shape.hidden)
        two += target * (2 * _dropout(shape, training, target) + 2 * _adapters(shape, training))
    ends = target if shape.decoder_layers else length
    rest = outside.get("h", 0) * shape.hidden * (length + target)
    if has_loss_over_words(shape, training):
        rest += outside.get("V", 0) * shape.vocabulary * ends
    if shape.family == "t5" and training.attention == "eager":
        rest += 4 * shape.heads * (length**2 + target**2)
    return int(batch * one), int(batch * two), int(batch * rest)


def _sum(shape: ModelShape, terms: Terms, length: int) -> float:
    """Bytes a token."""
    sizes = {
        "h": shape.hidden,
        "q": shape.q,
        "kv": shape.kv,
        "f": shape.ffn,
        "scores": shape.heads * length,
        "heads": shape.heads,
        "one": 1,
    }
    return sum(value * sizes[name] for name, value in terms.items() if name in sizes)


def _dropout(shape: ModelShape, training: Training, length: int) -> float:
    """Bytes a token and layer of dropout's masks, a byte an element on a GPU (aten::native_dropout gives a bool).

    Behind attention and feed-forward one each; T5 has one inside its feed-forward part, whose result is kept, too.
    The probabilities' mask and result are kept where attention is eager; the fused kernels draw them again.
    """
    width = 4 if training.precision == "fp32" else 2
    total = 0.0
    if shape.dropout:
        total += 2 * shape.hidden
        total += (1 + width) * shape.ffn if shape.family == "t5" else 0
    if shape.attention_dropout and training.attention == "eager":
        total += (1 + width) * shape.heads * length
    return total


def _adapters(shape: ModelShape, training: Training) -> float:
    """Bytes a token and layer that LoRA adds: each adapter's input (with dropout one of its own), and its middle."""
    if training.lora is None:
        return 0.0
    layers = max(1, shape.layers + 2 * shape.decoder_layers if shape.family == "t5" else shape.layers)
    # peft keeps adapters in fp32 over 16-bit weights: without autocast their input is kept in fp32, too.
    in_fp32 = training.precision == "fp32" or (training.precision == "pure16" and not training.autocast)
    wide = 4 if in_fp32 else 2
    total = 0.0
    # Where the input is cast for each adapter, by peft or by autocast, no two share a copy.
    casts = training.precision in ("pure16", "autocast")
    shared = set()
    for linear in lora_linears(shape, training.lora):
        share = linear.count / layers
        total += share * wide * training.lora.rank
        if training.lora.dropout:
            total += share * (1 + wide) * linear.inputs
        elif casts or linear.reads not in shared:
            shared.add(linear.reads)
            total += share * wide * linear.inputs
    return total
