"""What must hold in a healthy training; each breach ends it on all ranks with one line: what, where and when."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from continual import AgreedError
from continual.joining import Named
from continual.ranks import Ranks

CHECK_AT = 2  # steps after which parameters must have moved, and be equal on all ranks
TOLERANCE = 1e-3  # of a tensor's norm: unlike GPUs differ in the last bits, ranks that train alone differ by far more
OVERFLOWS = 10  # steps in a row that fp16's loss scaling may skip
_CALMER = "\n  a lower --learning_rate, a --warmup_steps, or --precision bf16 or fp32 instead of fp16"


class Health:
    """The checks of one training."""

    def __init__(self, ranks: Ranks, scales: bool) -> None:
        self.ranks, self.scales = ranks, scales
        self.skipped = 0  # steps in a row that the loss scale left out

    def check_step(self, step: int, loss: float, norm: float) -> None:
        """Hold that the joined gradient is finite. It is the same on all ranks, and so is what they do then."""
        if math.isfinite(norm):
            self.skipped = 0
            return
        self.skipped += 1
        if self.scales and self.skipped <= OVERFLOWS:
            return  # the scaler skips this step and scales less
        losses = [(str(self.ranks.place), loss)]
        if self.ranks.place.world_size > 1:
            losses = self.ranks.gather(losses[0])
        for where, value in losses:
            if not math.isfinite(value):
                raise AgreedError(f"health: {where}: loss is {value} at step {step}; wanted a finite number{_CALMER}")
        raise AgreedError(f"health: the gradient's norm is {norm} at step {step}; wanted a finite number{_CALMER}")

    def check_parameters(self, step: int, rate: float, parameters: Named, initial: Sequence[Tensor]) -> None:
        """Hold that training has moved the parameters (whole here), and that they are equal on all ranks."""
        if rate <= 0:
            raise AgreedError(f"health: the learning rate is {rate} at step {step}; wanted above 0")
        moved = any(not torch.equal(p.detach(), old) for (_, p), old in zip(parameters, initial, strict=True))
        sums = [(p.double().sum().item(), p.double().norm().item()) for _, p in parameters]
        reports = self.ranks.gather((str(self.ranks.place), moved or self.skipped > 0, sums))
        for where, has_moved, _ in reports:
            if not has_moved:
                raise AgreedError(
                    f"health: {where}: no trainable parameter has changed by step {step}, learning rate {rate}; "
                    "wanted: every step of the optimizer moves them"
                )
        for where, _, theirs in reports[1:]:
            for (name, _), ours, other in zip(parameters, reports[0][2], theirs, strict=True):
                allowed = TOLERANCE * (ours[1] + 1e-6)
                if not all(abs(a - b) <= allowed for a, b in zip(ours, other, strict=True)):  # nan is not equal either
                    raise AgreedError(
                        f"health: {where} trains another model than {reports[0][0]}: at step {step} {name} has sum and "
                        f"norm {other[0]:.6g} {other[1]:.6g} against {ours[0]:.6g} {ours[1]:.6g}; wanted: the same"
                    )
