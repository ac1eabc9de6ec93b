"""How ranks train one model together: DistributedDataParallel, or DeepSpeed's ZeRO, behind one small seam.

Losses come divided by the global batch, so the gradients of all ranks are summed: the mean that both make of them is
multiplied by the world size before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from continual.ranks import Ranks

Named = Sequence[tuple[str, nn.Parameter]]
MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW, as torch calls them


class Joined(Protocol):
    """A model whose trained parameters are the same on all ranks after every step."""

    module: nn.Module
    """What is called forward."""
    meets_always: bool
    """Whether ranks wait for each other at every micro-batch, not at the last one alone."""

    def begin(self, rate: float) -> None:
        """Before the micro-batches of a step: its learning rate; no gradient is left of the step before."""

    def micro(self, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward of a micro-batch."""

    def backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradients of this rank's part of the loss."""

    def join_gradients(self) -> float | None:
        """After the last micro-batch: clip, and give the joined norm before that; None where `step` alone knows it."""

    def step(self) -> float:
        """Move the parameters; the joined gradient's norm before clipping."""

    @property
    def scales(self) -> bool:
        """Whether a loss scale is at work (fp16), which may skip a step."""

    def whole(self) -> AbstractContextManager[None]:
        """Within it every rank has every parameter whole (ZeRO-3 holds parts). All ranks enter it."""

    def state(self) -> dict[str, dict[str, Tensor]]:
        """For each trained parameter its value and the optimizer's state, whole, on the CPU. All ranks call it."""

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from `state()`, whatever the number of ranks or the seam it was taken from."""


class Plain:
    """One process, or DistributedDataParallel."""

    meets_always = False

    def __init__(
        self, learner: nn.Module, parameters: Named, own: Named, max_norm: float, ranks: Ranks, **adamw: Any
    ) -> None:
        self.parameters, self.own, self.max_norm, self.ranks = parameters, own, max_norm, ranks
        self.module = learner
        if ranks.place.world_size > 1:
            devices = [ranks.device.index] if ranks.device.type == "cuda" else None
            self.module = nn.parallel.DistributedDataParallel(learner, device_ids=devices)
        left_out = {id(parameter) for _, parameter in own}
        self.moved = [(name, parameter) for name, parameter in parameters if id(parameter) not in left_out]
        self.optimizer = torch.optim.AdamW([parameter for _, parameter in self.moved], **adamw)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=ranks.precision == "fp16")

    @property
    def scales(self) -> bool:
        """Whether a loss scale is at work."""
        return self.scaler.is_enabled()

    def begin(self, rate: float) -> None:
        """Set the learning rate, forget the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        for _, parameter in self.parameters:
            parameter.grad = None

    def micro(self, last: bool) -> AbstractContextManager[None]:
        """Gradients meet at the last micro-batch alone."""
        alone = self.ranks.place.world_size == 1
        return nullcontext() if last or alone else self.module.no_sync()  # type: ignore[operator]

    def backward(self, loss: Tensor, last: bool) -> None:
        """Scaled where fp16 needs it."""
        self.scaler.scale(loss).backward()

    def join_gradients(self) -> float | None:
        """Unscale and clip."""
        self.scaler.unscale_(self.optimizer)
        for _, parameter in self.own:  # the scaler knows the optimizer's alone
            if self.scaler.is_enabled() and parameter.grad is not None:
                parameter.grad /= self.scaler.get_scale()
        self.norm = nn.utils.clip_grad_norm_([parameter for _, parameter in self.parameters], self.max_norm).item()
        return self.norm

    def step(self) -> float:
        """A step of the optimizer, unless the scaler leaves it out."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.norm

    def whole(self) -> AbstractContextManager[None]:
        """They are."""
        return nullcontext()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """The parameters, and what AdamW holds of each."""
        result = {}
        for name, parameter in self.parameters:
            held = self.optimizer.state.get(parameter, {})
            result[name] = {"value": _copy(parameter), **{key: _copy(value) for key, value in held.items()}}
        if self.scales:
            result["loss scale"] = {"value": torch.tensor(self.scaler.get_scale())}
        return result

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Put it all back in place."""
        for name, parameter in self.parameters:
            with torch.no_grad():
                parameter.copy_(state[name]["value"])
        for name, parameter in self.moved:
            held = {key: value for key, value in state[name].items() if key != "value"}
            if held:
                self.optimizer.state[parameter] = {
                    key: value.clone() if key == "step" else value.to(parameter.device, copy=True)
                    for key, value in held.items()
                }
        if self.scales and "loss scale" in state:
            self.scaler.load_state_dict(self.scaler.state_dict() | {"scale": state["loss scale"]["value"].item()})


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


class Zero:
    """DeepSpeed's engine with ZeRO stage 1 to 3 around torch's AdamW.

    Its own CPU optimizer would be compiled on every host first (a minute) and have another rounding.
    """

    meets_always = True  # from stage 2 on; stage 1 is treated alike

    def __init__(
        self, learner: nn.Module, parameters: Named, config: Mapping[str, Any], ranks: Ranks, **adamw: Any
    ) -> None:
        import deepspeed
        import torch.distributed as dist

        self.parameters, self.ranks = parameters, ranks
        if not dist.is_initialized():  # a single process, which needs a group all the same
            backend = "gloo" if ranks.device.type == "cpu" else "cpu:gloo,cuda:nccl"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        os.environ.setdefault("LOCAL_RANK", str(ranks.place.local_rank))  # DeepSpeed asks for it, launcher or not
        self.stage: int = config["zero_optimization"]["stage"]
        optimizer = torch.optim.AdamW([parameter for _, parameter in parameters], **adamw)
        self.engine, *_ = deepspeed.initialize(
            model=learner, optimizer=optimizer, config=dict(config), dist_init_required=False
        )
        self.module: nn.Module = self.engine

    @property
    def scales(self) -> bool:
        """Whether a loss scale is at work."""
        return bool(self.engine.fp16_enabled())

    def begin(self, rate: float) -> None:
        """Set the learning rate; the engine forgets gradients after its step."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = rate

    def micro(self, last: bool) -> AbstractContextManager[None]:
        """The engine counts the micro-batches itself."""
        return nullcontext()

    def backward(self, loss: Tensor, last: bool) -> None:
        """The loss is divided by the global batch already, so not by the number of micro-batches again."""
        self.engine.backward(loss, scale_wrt_gas=False)
        if not last:
            self.engine.step()  # counts the micro-batch and moves nothing

    def join_gradients(self) -> float | None:
        """The engine does it in its step."""
        return None

    def step(self) -> float:
        """Join what is left to join, clip, step, bring the parts together."""
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        return float("inf") if norm is None else float(norm)  # None: a step left out for an overflow

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Gather the parts of ZeRO-3."""
        if self.stage < 3:
            yield
            return
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(self.engine.module.parameters()), modifier_rank=None):
            yield

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Each parameter's fp32 value and moments, brought together from the ranks."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        steps = torch.tensor(float(self.engine.global_steps - self.engine.skipped_steps))
        result = {}
        for name, parameter in self.parameters:
            held = {key: safe_get_full_optimizer_state(parameter, key) for key in MOMENTS}
            result[name] = {"value": _copy(safe_get_full_fp32_param(parameter)), "step": steps.clone()}
            result[name] |= {key: _copy(value) for key, value in held.items()}
        return result

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Divide it among the ranks again."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        self._make_room(next(iter(state.values()))["step"])
        for name, parameter in self.parameters:
            held = state[name]
            with torch.no_grad():
                if self.stage < 3:
                    parameter.copy_(held["value"])
            safe_set_full_fp32_param(parameter, held["value"].to(self.ranks.device))
            for key in MOMENTS:
                safe_set_full_optimizer_state(parameter, held[key].to(self.ranks.device), key)
        self.engine.global_steps = int(next(iter(state.values()))["step"])

    def _make_room(self, step: Tensor) -> None:
        """Let AdamW hold moments before its first step, and tell DeepSpeed where they lie."""
        optimizer = self.engine.optimizer
        inner = optimizer.optimizer
        flat = optimizer.fp32_partitioned_groups_flat if self.stage == 3 else optimizer.single_partition_of_fp32_groups
        for group in flat:
            inner.state[group] = {"step": step.clone()} | {key: torch.zeros_like(group) for key in MOMENTS}
        if self.stage < 3:
            optimizer._lazy_init_hp_params_optimizer_state()
