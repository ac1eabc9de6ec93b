"""How far a training is, out of one line that it prints: step, loss, learning rate, throughput.

Read are the lines of transformers' Trainer (4 and 5), tqdm and Lightning bars, DeepSpeed's engine, Megatron, LLaMA
Factory, fairseq and plain `step 10 loss 0.5`. A line of no known form gives nothing, and so does a bar that may count
something else than steps: no progress is better than a wrong one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

LOOKED_AT = 4096  # characters at the end of a line; a bar draws itself over and over in one
PIECES = 6  # of a line's carriage returns that are looked at

_NUMBER = r"[-+]?\d{1,20}(?:\.\d{0,20})?(?:[eE][-+]?\d{1,3})?"
_VALUE = rf"(?:{_NUMBER}|nan|NaN|-?inf|-?Infinity)"
_ANSI = re.compile(r"\x1b\[[0-9;?]{0,12}[A-Za-z]")
_WORTH = re.compile(r"(?i)loss|%\||step|iter|update")

# {'loss': 0.5, 'learning_rate': '5e-05'} and {"loss": 0.5, "lr": 1e-4}: keys and numbers, in quotes or not.
_PAIR = re.compile(rf"""['"]([A-Za-z_/]{{1,40}})['"]: ?['"]?({_VALUE})['"]?(?=\s?[,}}])""")
_DICT = re.compile(r"""\{['"]\w""")
_BAR = re.compile(
    r"(?:^|(?<=[\s\]]))(?P<name>[A-Za-z][^%|\n]{0,80}?)?:? {0,3}\d{1,3}%\|[^|\n]{0,400}\| {0,3}"
    r"(?P<step>\d{1,12})/(?P<total>\d{1,12}) \[[\d:]{2,12}<(?:[\d:]{2,12}|\?)(?:, {0,12}"
    r"(?P<rate>[\d.]{1,12}|\?)(?P<unit>it/s|s/it|[A-Za-z]{1,12}/s|s/[A-Za-z]{1,12}))?(?P<more>[^\]\n]{0,300})\]"
)
_STEP_BAR = re.compile(r"(?i)(?:train\w*(?: \S{1,20}){0,3}|.{0,20}epoch:? ?\[?\d+(?:/\d+)?\]?|steps?|iter(?:ation)?s?)")
_EPOCH_BAR = re.compile(r"(?i)epoch:? ?\[?(\d{1,6})|^epochs?$")
_OTHER_WORK = re.compile(
    r"(?i)\b(?:eval\w*|valid\w*|val|test\w*|predict\w*|infer\w*|generat\w*|sampl(?:e|ing)\b|load\w*|download\w*|fetch\w*"
    r"|map\w*|token\w*|filter\w*|shards?|prepar\w*|build\w*|pack\w*|cach\w*|sav\w*|sanity|install\w*)\b"
)
_DEEPSPEED = re.compile(rf"\bstep=(\d{{1,12}}), skipped=(\d{{1,12}}), lr=\[({_NUMBER})")
_DEEPSPEED_SPEED = re.compile(rf"\bglobal_step=(\d{{1,12}}), RunningAvgSamplesPerSec=({_NUMBER})")
_MEGATRON = re.compile(r"\biteration +(\d{1,12})/ *(\d{1,12}) \|")
_SCALE = re.compile(rf"\bloss scale: ({_NUMBER})")
_MILLISECONDS = re.compile(rf"elapsed time per iteration \(ms\): ({_NUMBER})")
_PLAIN = re.compile(
    r"(?i)(?:\b|(?<=_))(?:step|iter(?:ation)?|update)s?\b['\"]?[ :=#\[(]{1,4}"
    r"(\d{1,12})(?: ?/ ?(\d{1,12}))?(?![\d.:%]?\d)"
)
_MMCV = re.compile(r"\bEpoch:? ?\[\d{1,6}\] ?\[ {0,6}(\d{1,12})/ ?(\d{1,12})\]")
_LOSS = re.compile(
    r"(?i)(?<![\w.-])(?:train(?:ing)?[_ /]|lm |avr?g?_|total_)?loss\b(?: is)?"
    rf"[ \t]?[:=]?[ \t]{{0,4}}({_VALUE})(?![\w%])"
)
_RATE = re.compile(rf"(?i)(?:\blearning[_ ]rate|(?<![A-Za-z])lr)\b[ ]?[:=]?[ ]{{0,3}}\[?({_NUMBER})(?![\w%])")
_EPOCH = re.compile(r"(?i)\bepoch[ :=\[]{1,3}(\d{1,6}(?:\.\d{1,6})?)")
_SPEED = re.compile(rf"(?i)({_NUMBER}) ?(it|iter|steps?|samples?|sequences?|tok|tokens?)/s(?:ec)?\b(?! ?[:=])")
_SPEED_BEFORE = re.compile(rf"(?i)\b(samples|tokens)[_/ ](?:per[_ ]sec(?:ond)?|s(?:ec)?)\b[:= ]{{1,3}}({_NUMBER})")
_ATTEMPTED = re.compile(rf"loss scale: ({_NUMBER}), (?:reducing to ({_NUMBER}))?")

_STEP_KEYS = ("step", "global_step", "current_steps", "num_updates", "iteration", "iter", "steps")
_TOTAL_KEYS = ("total_steps", "max_steps")


@dataclass(frozen=True)
class Progress:
    """What one line says of a training; None where it says nothing.

    `step` may count within an epoch (`within_epoch`). `sure` is False for a number that is only a step if more lines of
    that shape follow: a bar without a name, or a line that says `step 3` and nothing of a training.
    """

    step: int | None = None
    total: int | None = None
    loss: float | None = None
    learning_rate: float | None = None  # 0.0 only where the number is no rounded one
    epoch: float | None = None
    grad_norm: float | None = None
    steps_per_second: float | None = None
    samples_per_second: float | None = None
    tokens_per_second: float | None = None
    skipped: int | None = None  # steps left out so far (DeepSpeed)
    loss_scale: float | None = None
    overflow: bool = False  # this step was left out
    within_epoch: bool = False
    bar: bool = False
    sure: bool = True
    loss_text: str = ""  # as printed: equal texts of enough digits are an equal loss


def pieces(text: str) -> Iterator[str]:
    """The last states of a line that was drawn over itself, without colours."""
    tail = text[-LOOKED_AT:]
    if "\x1b" in tail:
        tail = _ANSI.sub("", tail)
    for piece in tail.split("\r")[-PIECES:]:
        if piece.strip():
            yield piece


def parse(text: str) -> Iterator[Progress]:
    """What a line says: a bar and a line behind it on the same row are two."""
    for piece in pieces(text):
        if _WORTH.search(piece):
            yield from _of_piece(piece)


def _of_piece(text: str) -> Iterator[Progress]:
    bars = deque(_BAR.finditer(text), maxlen=1)  # the last one drawn counts
    if bars:
        bar = bars[0]
        found = _bar(bar)
        if found is not None:
            yield found
        text = text[bar.end() :]
    if "OVERFLOW!" in text:
        attempted = _ATTEMPTED.search(text)
        scale = _number(attempted[2] or attempted[1]) if attempted else None
        yield Progress(overflow=True, loss_scale=scale)
        return
    begin = _DICT.search(text)
    said = _pairs(text[begin.start() :]) if begin else _deepspeed(text) or _megatron(text) or _plain(text)
    if said is not None:
        yield said


def _bar(found: re.Match[str]) -> Progress | None:
    name = (found["name"] or "").strip(" :")
    if _OTHER_WORK.search(name):
        return None
    epoch = _EPOCH_BAR.search(name)
    if epoch and epoch[1] is None:
        return None  # "Epoch: 50%| 2/4" counts epochs
    named = bool(_STEP_BAR.fullmatch(name))
    if name and not named:
        return None
    rate, unit, more = _number(found["rate"]), found["unit"] or "", found["more"] or ""
    if rate and unit.startswith("s/"):
        rate = 1 / rate
    values = _words(more)
    return Progress(
        step=int(found["step"]),
        total=int(found["total"]) or None,
        loss=_number(values[0]),
        loss_text=values[0] or "",
        learning_rate=_learning_rate(values[1]),
        epoch=float(epoch[1]) if epoch else None,
        steps_per_second=rate,
        within_epoch="epoch" in name.lower(),
        bar=True,
        sure=named,
    )


def _pairs(text: str) -> Progress | None:
    """A dictionary as Python or JSON prints it, if it is that of a training step."""
    values = dict(_PAIR.findall(text))
    loss = values.get("loss", values.get("train/loss"))
    if loss is None or "train_runtime" in values or any(key.startswith(("eval_", "val_")) for key in values):
        return None
    step = next((values[key] for key in _STEP_KEYS if key in values), None)
    total = next((values[key] for key in _TOTAL_KEYS if key in values), None)
    return Progress(
        step=_whole(step),
        total=_whole(total),
        loss=_number(loss),
        loss_text=loss,
        learning_rate=_learning_rate(values.get("learning_rate", values.get("lr"))),
        epoch=_number(values.get("epoch")),
        grad_norm=_number(values.get("grad_norm", values.get("gnorm"))),
        steps_per_second=_number(values.get("ups")),
        tokens_per_second=_number(values.get("throughput", values.get("tokens_per_second"))),
        loss_scale=_number(values.get("loss_scale")),
    )


def _deepspeed(text: str) -> Progress | None:
    found = _DEEPSPEED.search(text)
    if found:
        return Progress(step=int(found[1]), skipped=int(found[2]), learning_rate=_learning_rate(found[3]))
    speed = _DEEPSPEED_SPEED.search(text)
    return Progress(step=int(speed[1]), samples_per_second=_number(speed[2])) if speed else None


def _megatron(text: str) -> Progress | None:
    found = _MEGATRON.search(text)
    if not found:
        return None
    loss, rate = _words(text)
    took, scale = _MILLISECONDS.search(text), _SCALE.search(text)
    milliseconds = _number(took[1]) if took else None
    return Progress(
        step=int(found[1]),
        total=int(found[2]) or None,
        loss=_number(loss),
        loss_text=loss or "",
        learning_rate=_learning_rate(rate),
        steps_per_second=1000 / milliseconds if milliseconds else None,
        loss_scale=_number(scale[1]) if scale else None,
    )


def _plain(text: str) -> Progress | None:
    """`step 10/100 loss 0.5 lr 1e-4`, in any order and with any signs between."""
    steps = _PLAIN.search(text) or _MMCV.search(text)
    before = text[: steps.start()] if steps else text
    if _OTHER_WORK.search(before):
        return None
    loss, rate = _words(text)
    if steps is None:
        # A loss that no step stands by is only told when it is no number: it may be anything else.
        broken = loss is not None and _number(loss) is not None and loss.lower().lstrip("-") in _BROKEN
        return Progress(loss=_number(loss), loss_text=loss or "") if broken else None
    epoch, speed = _EPOCH.search(text), _speeds(text)
    return Progress(
        step=int(steps[1]),
        total=int(steps[2]) or None if steps[2] else None,
        loss=_number(loss),
        loss_text=loss or "",
        learning_rate=_learning_rate(rate),
        epoch=float(epoch[1]) if epoch else None,
        steps_per_second=speed.get("steps"),
        samples_per_second=speed.get("samples"),
        tokens_per_second=speed.get("tokens"),
        within_epoch=bool(epoch),
        sure=loss is not None or rate is not None,
    )


_BROKEN = frozenset({"nan", "inf", "infinity"})


def _words(text: str) -> tuple[str | None, str | None]:
    """The texts of loss and learning rate."""
    loss, rate = _LOSS.search(text), _RATE.search(text)
    return loss[1] if loss else None, rate[1] if rate else None


def _speeds(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for value, unit in [*_SPEED.findall(text), *((value, unit) for unit, value in _SPEED_BEFORE.findall(text))]:
        kind = {"s": "samples", "t": "tokens", "i": "steps"}[unit[0].lower()]
        kind = "steps" if unit.lower().startswith("step") else kind
        number = _number(value)
        if number is not None:
            found.setdefault(kind, number)
    return found


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _whole(text: str | None) -> int | None:
    number = _number(text)
    return int(number) if number is not None and 0 <= number < 1e12 else None


def _learning_rate(text: str | None) -> float | None:
    """The rate; a zero that a rounding may have made (`0.0000`) is not known."""
    number = _number(text)
    if number != 0 or text is None:
        return number
    decimals = text.partition(".")[2]
    rounded = 2 <= len(decimals) < 6 and "e" not in text.lower()
    return None if rounded else 0.0
