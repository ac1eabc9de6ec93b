"""What the lines of all ranks say about a training that goes on: how far it is, how fast, and what is wrong with it.

Fed line by line with the time each came; keeps a bounded state. What it remarks is remarked once.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from dsdoctor.logs.progress import Progress, parse

KEPT = 20  # steps and gaps remembered of a rank
RANKS = 4096  # looked at
LINES_A_SECOND = 50  # parsed of a rank; a flood of lines says no more than that
SHAPES = 8  # of lines that may be steps, a rank

# One step with a rate of 0 is how DeepSpeed's warm-up begins (two from 0.15.3 on), and fp16 leaves out up to 16 steps
# while it looks for its loss scale, in which the rate stays where it was.
ZERO_LINES, ZERO_LINES_FP16 = 10, 30
ZERO_STEPS, ZERO_STEPS_FP16 = 20, 50  # enough with three lines, where steps are printed
SAME_LINES = 20  # with exactly the same loss, of at least SAME_DIGITS digits
SAME_DIGITS = 4
OVERFLOWS = 30  # steps in a row that were left out; the scale falls from 65,536 to 1 in 16
BEHIND_STEPS = 10
QUIET = 60.0  # seconds after which another rank's steps are taken for the run's

_DIGITS = re.compile(r"\d+")
if TYPE_CHECKING:
    Stream = tuple[str, "int | None"]


@dataclass(frozen=True)
class Remark:
    """Something about the training that is worth saying while it goes on. `text` begins in lower case."""

    kind: str
    text: str
    host: str
    rank: int | None


@dataclass
class _Stream:
    """One rank's own progress."""

    step: int | None = None
    total: int | None = None
    within_epoch: bool = False
    at: float = 0.0  # when the step last changed
    points: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=KEPT))
    told: float | None = None  # steps a second, as the program itself says
    steps_seen: int = 0
    bar: Progress | None = None  # the last bar without a name: the training's, if a loss follows
    bar_total: int | None = None  # of the bar that is the training's
    shapes: dict[str, tuple[int, int]] = field(default_factory=dict)  # of lines like `step 3`: last number, times
    second: int = -1
    lines: int = 0
    zeros: int = 0  # lines with rate 0 in a row
    first_zero: int | None = None  # the step of the first of them
    rate_seen: bool = False  # a rate that is not 0
    same: tuple[str, int] = ("", 0)  # the last loss as printed, and on how many lines in a row
    hidden_nan: int = 0
    overflows: int = 0  # steps left out in a row
    overflow_seen: bool = False

    def speed(self, now: float) -> float | None:
        """Steps a second over the last steps; while the next one is overdue it falls."""
        if len(self.points) >= 2:
            (first, low), (last, high) = self.points[0], self.points[-1]
            gap = (last - first) / (len(self.points) - 1)
            end = now if now - last > 3 * gap else last
            return (high - low) / (end - first) if end > first else None
        return self.told


class Training:
    """The progress of one stage over all its ranks."""

    def __init__(self) -> None:
        self.loss: float | None = None
        self.learning_rate: float | None = None
        self.epoch: float | None = None
        self.samples_per_second: float | None = None
        self.tokens_per_second: float | None = None
        self.last_step_at: float | None = None  # when any rank last said that a step was done
        self._streams: dict[Stream, _Stream] = {}
        self._gaps: deque[float] = deque(maxlen=KEPT)  # seconds between such lines
        self._lead: Stream | None = None  # whose step is the run's
        self._said: set[str] = set()

    def feed(self, host: str, rank: int | None, text: str, now: float) -> Iterator[Remark]:
        """Take a line (or the present state of a bar) that came at `now`, in seconds of any steady clock."""
        stream = self._streams.get((host, rank))
        if stream is None:
            if len(self._streams) >= RANKS:
                return
            stream = self._streams[host, rank] = _Stream()
        if stream.second != int(now):
            stream.second, stream.lines = int(now), 0
        stream.lines += 1
        if stream.lines > LINES_A_SECOND:
            return
        for said in parse(text):
            for kind, remark in self._take((host, rank), stream, said, text, now):
                if kind not in self._said:
                    self._said.add(kind)
                    yield Remark(kind, remark, host, rank)

    # --- where it is

    @property
    def _leading(self) -> _Stream | None:
        return self._streams[self._lead] if self._lead is not None else None

    @property
    def step(self) -> int | None:
        """The step of the rank that is furthest; within the epoch where only that is known."""
        return self._leading.step if self._leading else None

    @property
    def total(self) -> int | None:
        """Of how many."""
        return self._leading.total if self._leading else None

    @property
    def within_epoch(self) -> bool:
        """Whether step and total count within an epoch."""
        return self._leading.within_epoch if self._leading else False

    def speed(self, now: float) -> float | None:
        """Steps a second of the rank that is furthest."""
        return self._leading.speed(now) if self._leading else None

    def seconds_left(self, now: float) -> float | None:
        """Until the last step at the present speed; None where that is not known."""
        speed = self.speed(now)
        if not speed or self.step is None or self.total is None or self.within_epoch:
            return None
        return max(0, self.total - self.step) / speed

    def hosts(self, now: float) -> dict[str, tuple[int, float | None]]:
        """Step and speed of each host whose ranks print steps; those of its rank that is least far."""
        found: dict[str, tuple[int, float | None]] = {}
        for (host, _), stream in self._streams.items():
            if stream.step is not None and (host not in found or stream.step < found[host][0]):
                found[host] = (stream.step, stream.speed(now))
        return found

    def usual_gap(self) -> float | None:
        """Seconds from one line that tells a step to the next, usually; None until there were three."""
        return median(self._gaps) if len(self._gaps) >= 2 else None

    def behind(self, now: float, patience: float) -> Remark | None:
        """The rank that has said nothing of a step for `patience` seconds while the others went on, told once.

        Only of ranks that have printed steps as regularly as the others did.
        """
        front = self._leading
        if front is None or front.step is None or front.within_epoch or "behind" in self._said:
            return None
        for (host, rank), stream in self._streams.items():
            late = stream.step is not None and front.step - stream.step >= BEHIND_STEPS and now - stream.at >= patience
            if late and stream.steps_seen >= BEHIND_STEPS and front.at > stream.at + patience / 2:
                self._said.add("behind")
                where = f"rank {rank} on {host}" if rank is not None else host
                text = f"{where} is behind: its last step was {stream.step}, {now - stream.at:.0f} s ago; others are at"
                return Remark("behind", f"{text} {front.step}", host, rank)
        return None

    # --- taking a line

    def _take(self, key: Stream, stream: _Stream, said: Progress, text: str, now: float) -> Iterator[tuple[str, str]]:
        if said.overflow:
            yield from self._overflow(stream, said)
            return
        step = self._step_of(stream, said, text)
        if step is not None:
            self._advance(key, stream, step, said, now)
        elif said.loss is not None and not said.bar and stream.step is None:
            self._tick(now)  # losses without steps are progress, too
        for name in ("learning_rate", "epoch", "samples_per_second", "tokens_per_second"):
            value = getattr(said, name)
            if value is not None:
                setattr(self, name, value)
        if said.steps_per_second is not None and step is not None:
            stream.told = said.steps_per_second
        if said.loss is not None:
            self.loss = said.loss
        if said.sure:
            yield from self._judge(stream, said, step if step is not None else stream.step)

    def _step_of(self, stream: _Stream, said: Progress, text: str) -> int | None:
        """The step that a line tells, if it is sure to be one."""
        if said.bar and not said.sure:
            stream.bar = said
            if stream.bar_total is None or said.total != stream.bar_total:
                return None
        elif said.loss is not None and stream.bar is not None and said.step is None:
            # The line of losses is written above the training's bar: the one that was drawn last.
            bar, stream.bar_total = stream.bar, stream.bar.total
            stream.total = bar.total
            return bar.step
        elif not said.sure:
            shape = _DIGITS.sub("#", text[:60])
            last, times = stream.shapes.get(shape, (-1, 0))
            times = times + 1 if said.step is not None and said.step > last else 1
            if shape in stream.shapes or len(stream.shapes) < SHAPES:
                stream.shapes[shape] = (said.step or 0, times)
            if times < 3:
                return None
        if said.step is not None and said.total is not None:
            stream.total = said.total
        return said.step

    def _advance(self, key: Stream, stream: _Stream, step: int, said: Progress, now: float) -> None:
        stream.within_epoch = said.within_epoch if not said.bar or said.sure else False
        if step == stream.step:
            return
        if stream.step is not None and step < stream.step:
            stream.points.clear()  # another epoch, or another loop
        stream.step, stream.at = step, now
        stream.steps_seen += 1
        stream.points.append((now, step))
        if stream.total is not None and step > stream.total:
            stream.total = None
        lead = self._leading
        # The rank whose line came first is followed, until another is further or it has gone quiet.
        if lead is None or lead is stream or lead.step is None or step > lead.step or now - lead.at > QUIET:
            self._lead = key
            self._tick(now)

    def _tick(self, now: float) -> None:
        if self.last_step_at is not None and now > self.last_step_at:
            self._gaps.append(now - self.last_step_at)
        self.last_step_at = now

    # --- what is wrong

    def _judge(self, stream: _Stream, said: Progress, step: int | None) -> Iterator[tuple[str, str]]:
        where = f" at step {step}" if step is not None else ""
        if said.loss is not None:
            stream.overflows = 0
            if not math.isfinite(said.loss):
                yield "nan", f"the training loss is {'nan' if math.isnan(said.loss) else 'inf'}{where}"
            elif said.loss == 0 and said.grad_norm is not None and not math.isfinite(said.grad_norm):
                stream.hidden_nan += 1
                if stream.hidden_nan >= 3:
                    text = f"the training loss is nan{where}: shown as 0.0, with grad_norm {said.grad_norm}"
                    yield "nan", f"{text} (transformers' logging_nan_inf_filter)"
            elif not said.bar:
                yield from self._constant(stream, said.loss_text, where)
        if said.learning_rate is not None:
            yield from self._zero_rate(stream, said.learning_rate, step, where)
        if said.skipped is not None and step is not None and said.skipped >= step >= OVERFLOWS:
            yield "fp16", f"every step overflows in fp16: all {step} were left out, nothing is learnt"

    def _constant(self, stream: _Stream, text: str, where: str) -> Iterator[tuple[str, str]]:
        last, times = stream.same
        stream.same = (text, times + 1 if text == last else 1)
        digits = len(text.partition("e")[0].replace(".", "").lstrip("-+0"))
        if stream.same[1] >= SAME_LINES and digits >= SAME_DIGITS and "rate" not in self._said:
            text = f"the loss has been exactly {text} on {SAME_LINES} lines in a row{where}"
            yield "constant", f"{text}: nothing is learnt"

    def _zero_rate(self, stream: _Stream, rate: float, step: int | None, where: str) -> Iterator[tuple[str, str]]:
        if rate != 0:
            stream.zeros, stream.first_zero, stream.rate_seen = 0, None, True
            return
        stream.zeros += 1
        stream.first_zero = step if stream.first_zero is None else stream.first_zero
        steps = step - stream.first_zero if step is not None and stream.first_zero is not None else 0
        fp16 = stream.overflow_seen
        long = stream.zeros >= (ZERO_LINES_FP16 if fp16 else ZERO_LINES)
        if not long and not (stream.zeros >= 3 and steps >= (ZERO_STEPS_FP16 if fp16 else ZERO_STEPS)):
            return
        if not stream.rate_seen:
            yield "rate", f"the learning rate has been 0 since the start, on {stream.zeros} lines{where}"
        elif stream.total is not None and step is not None and stream.total - step > stream.total / 20:
            yield "rate", f"the learning rate has fallen to 0{where} of {stream.total}: the rest learns nothing"

    def _overflow(self, stream: _Stream, said: Progress) -> Iterator[tuple[str, str]]:
        stream.overflow_seen = True
        stream.overflows += 1
        if said.loss_scale is not None and said.loss_scale <= 1:
            yield "fp16", f"every step overflows in fp16: the loss scale has fallen to {said.loss_scale:g}"
        elif stream.overflows >= OVERFLOWS:
            yield "fp16", f"every step overflows in fp16: {stream.overflows} in a row were left out"
