"""What an evaluation takes between the steps: logits for the loss, or the keys and values of what is generated."""

from __future__ import annotations

from collections.abc import Iterator

from dsdoctor.jobs.forecast.activations import has_loss_over_words
from dsdoctor.jobs.forecast.parts import Part
from dsdoctor.jobs.forecast.shape import ModelShape
from dsdoctor.jobs.forecast.training import Training


def evaluating(shape: ModelShape, training: Training) -> Iterator[Part]:
    """The parts that are there while a batch is evaluated, without gradients; none where nothing is evaluated.

    Keys and values are kept either way: two tensors a layer and token (the decoder of an encoder-decoder has them for
    its own tokens and for the encoder's). For the loss there are logits as the model computes them, in fp32, and their
    logarithms; where it generates, those of the last token alone, and the work of one layer over the whole prompt.
    Results that the Trainer gathers on the card (without `eval_accumulation_steps`) are not counted.
    """
    batch, length = training.eval_batch, training.length
    if not batch or not length or not has_loss_over_words(shape, training):
        return
    width = 4 if training.precision == "fp32" else 2
    layers, wide = (shape.decoder_layers, shape.q) if shape.decoder_layers else (shape.layers, shape.kv)
    answer = training.new_tokens or training.target_length
    size = 2 * layers * wide * width * batch * (length + answer)
    yield Part("keys and values", size, f"an evaluation of {batch} × {length + answer} tokens")
    hidden = shape.hidden * width * batch * length
    if not training.new_tokens:
        tokens = batch * (training.target_length or length)
        logits = tokens * shape.vocabulary * (8 if width == 4 else 10)
        yield Part("logits", hidden + logits, f"of {tokens:,} tokens over {shape.vocabulary:,} words, in fp32")
        return
    layer = 3 * shape.ffn * width * batch * length + 4 * hidden
    yield Part("one layer", hidden + size // layers if shape.decoder_layers else layer, "computed over the prompts")
    yield Part("logits", batch * shape.vocabulary * (4 if width == 4 else 6), "of the last tokens, in fp32")
