"""The compiled ops that a job's DeepSpeed config needs, and whether a host has them already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dsdoctor.checks.context import JobContext, is_true
from dsdoctor.checks.installed import allows
from dsdoctor.cluster import HostEntry
from dsdoctor.facts import FactUnavailable, HostFacts
from dsdoctor.jobs import dsconfig
from dsdoctor.report.model import Evidence

_ZERO = "zero_optimization"
_TORCH_ADAM = "Do without it: \"torch_adam\": true among the optimizer's params (torch's own Adam, no build)"
_NO_OFFLOAD = 'Do without it: take "offload_optimizer" out of the config'

# Optimizers of DeepSpeed's own by name, as an op for GPUs and one for the host's processor (None: torch's is taken).
# Source: _configure_basic_optimizer of runtime/engine.py, v0.9.5, v0.14.0, v0.19.5.
_OPTIMIZERS = {
    "adam": ("fused_adam", "cpu_adam"),
    "adamw": ("fused_adam", "cpu_adam"),
    "lamb": ("fused_lamb", "fused_lamb"),
    "lion": ("fused_lion", "cpu_lion"),
    "adagrad": (None, "cpu_adagrad"),
}


@dataclass(frozen=True)
class Op:
    """An op, why it is needed, and how a job does without it.

    Ops for the processor are linked with CUDA's runtime all the same, and it is these for which DeepSpeed compares the
    toolkit's version with torch's (TorchCPUOpBuilder in op_builder/builder.py).
    """

    name: str
    because: Evidence
    instead: str

    @property
    def for_processor(self) -> bool:
        """Whether it runs on the host's processor."""
        return self.name.startswith("cpu_") or self.name == "async_io"


def needed(context: JobContext) -> tuple[Op, ...]:
    """The ops that the job's DeepSpeed config makes it load, each once."""
    found: dict[str, Op] = {}
    for op in _needed(context):
        found.setdefault(op.name, op)
    return tuple(found.values())


def _needed(context: JobContext) -> Iterator[Op]:
    config = context.deepspeed
    if config is None:
        return

    def value(dotted: str) -> Any:
        return dsconfig.get(config, dotted)

    def cited(dotted: str) -> Evidence:
        return Evidence(
            text=f"{dotted}: {_plain(value(dotted))}", source=config.path, line=dsconfig.line_of(config, dotted)
        )

    offloaded = value(f"{_ZERO}.offload_optimizer.device") in ("cpu", "nvme")
    kind = str(value("optimizer.type") or "").lower()
    if kind in _OPTIMIZERS and not is_true(value("optimizer.params.torch_adam")):
        name = _OPTIMIZERS[kind][offloaded]
        if name is not None:
            dotted = f"{_ZERO}.offload_optimizer.device" if offloaded else "optimizer.type"
            yield Op(name, cited(dotted), _TORCH_ADAM if kind.startswith("adam") else _NO_OFFLOAD)
    elif offloaded and not kind and value("zero_force_ds_cpu_optimizer") is not False:
        # With an optimizer of the program's own DeepSpeed insists on its DeepSpeedCPUAdam.
        yield Op("cpu_adam", cited(f"{_ZERO}.offload_optimizer.device"), _NO_OFFLOAD)
    for part in ("offload_optimizer", "offload_param"):
        if value(f"{_ZERO}.{part}.device") == "nvme":
            instead = f'Do without it: "device": "cpu" in {part}'
            yield Op("async_io", cited(f"{_ZERO}.{part}.device"), instead)
    for key in ("zero_quantized_weights", "zero_quantized_gradients"):
        if is_true(value(f"{_ZERO}.{key}")):
            yield Op("quantizer", cited(f"{_ZERO}.{key}"), f"Do without it: take {key} out of the config")


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def variable(host: HostFacts, entry: HostEntry, context: JobContext | None, name: str) -> str | None:
    """An environment variable as a rank of the job would have it, None where it is not set or not known."""
    given = context.variables(entry, host).get(name) if context else None
    try:
        return given if given is not None else host.environment.variables.get(name)
    except FactUnavailable:
        return None


def has_gpus(host: HostFacts) -> bool:
    """Whether torch would see a GPU: it has CUDA, and cards answer. Raises FactUnavailable."""
    return host.torch.cuda is not None and bool(host.gpu.gpus)


def installed_with_deepspeed(host: HostFacts, op: Op) -> bool:
    """Whether the op was built when DeepSpeed was installed (DS_BUILD_...). Raises FactUnavailable."""
    return op.name in host.deepspeed.installed_ops


def built_before(host: HostFacts, op: Op) -> bool:
    """Whether the op lies in the host's cache, built for this Python and CUDA; false where that is not known."""
    try:
        cache = host.extensions
    except FactUnavailable:
        return False
    name = f"{cache.environment}/{op.name}" if cache.environment else op.name
    return any(build.name == name and build.built for build in cache.builds)


def has_own_cuda_code(op: Op, deepspeed: str) -> bool:
    """Whether nvcc compiles a part of the op: cpu_adam had a kernel of its own up to DeepSpeed 0.14.2."""
    return not op.for_processor or (op.name in ("cpu_adam", "cpu_adagrad", "cpu_lion") and allows("<0.14.3", deepspeed))
