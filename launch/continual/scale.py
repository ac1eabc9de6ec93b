"""How a training is spread over devices: the flags for it, and the config that DeepSpeed gets.

The field's word is --deepspeed CONFIG; --zero_stage alone does where nothing else is to be set.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from continual import ContinualError
from continual.batches import PER_DEVICE, SHARE, Batches

ZERO_STAGES = (0, 1, 2, 3)


def add_flags(
    group: Any, count: Callable[[str], Any], natural: Callable[[str], Any], positive: Callable[[str], Any]
) -> None:
    """Add the flags of this file, and of checkpoints, to a group of argparse."""
    group.add_argument("--global_batch_size", type=count, help="examples a step over all ranks; holds exactly")
    group.add_argument(
        "--per_device_train_batch_size", type=count, help=f"examples at once on a rank; a host's own: ${PER_DEVICE}"
    )
    group.add_argument(
        "--batch_share", type=positive, help=f"a rank's part of the batch, relative to others; a host's own: ${SHARE}"
    )
    group.add_argument("--gradient_accumulation_steps", type=count, help="micro-batches a step")
    group.add_argument("--gradient_checkpointing", action="store_true", help="compute activations twice, keep fewer")
    group.add_argument("--save_steps", type=natural, help="a checkpoint every so many steps; 0 for none (500)")
    group.add_argument("--zero_stage", type=int, choices=ZERO_STAGES, help="ZeRO through DeepSpeed; 0: DDP")
    group.add_argument("--deepspeed", type=Path, help="a config of DeepSpeed's, with zero_optimization.stage")


def zero_stage(args: argparse.Namespace) -> int:
    """The stage of ZeRO, 0 where DeepSpeed is not asked for.

    Raises:
        ContinualError: the config cannot be read, or --zero_stage contradicts it.
    """
    if args.deepspeed is None:
        return args.zero_stage or 0
    stage = _section(args.deepspeed, _read(args.deepspeed), "zero_optimization").get("stage", 0)
    if stage not in ZERO_STAGES or isinstance(stage, bool):
        raise ContinualError(f"--deepspeed {args.deepspeed}: zero_optimization.stage is {stage!r}; wanted 0, 1, 2 or 3")
    if args.zero_stage is not None and args.zero_stage != stage:
        raise ContinualError(
            f"--zero_stage {args.zero_stage}: zero_optimization.stage is {stage} in --deepspeed {args.deepspeed}\n"
            "  leave one of the two out"
        )
    return int(stage)


def config(args: argparse.Namespace, batches: Batches, precision: str, largest: int) -> dict[str, Any] | None:
    """What deepspeed.initialize gets; None without ZeRO. `largest` is the size of the largest trained parameter.

    Raises:
        ContinualError: the user's config asks for something else than the flags, or DeepSpeed is not installed.
    """
    stage = zero_stage(args)
    if not stage:
        return None
    try:
        import deepspeed  # noqa: F401
    except ImportError as error:
        raise ContinualError(
            f"ZeRO stage {stage}: DeepSpeed cannot be imported: {error}\n  pip install deepspeed"
        ) from None
    given = dict(_read(args.deepspeed)) if args.deepspeed is not None else {}
    # Ranks may be unlike: the sizes are this program's business, DeepSpeed only counts the micro-batches.
    ours: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": max(max(sizes) for sizes in batches.sizes),
        "gradient_accumulation_steps": len(batches.sizes[0]),
        "gradient_clipping": args.max_grad_norm,
    }
    for key, value in {**ours, "train_batch_size": batches.global_size}.items():
        seen = given.pop(key, "auto")
        if seen not in ("auto", value):
            raise ContinualError(f"--deepspeed {args.deepspeed}: {key} is {seen!r}, here it is {value}; wanted auto")
    for key in ("optimizer", "scheduler"):
        _refuse_own(args.deepspeed, key, given.pop(key, None))
    for key, word in (("fp16", "fp16"), ("bf16", "bf16"), ("bfloat16", "bf16")):
        section = _section(args.deepspeed, given, key)
        given.pop(key, None)
        enabled = section.get("enabled", "auto")
        if enabled not in ("auto", precision == word):
            raise ContinualError(
                f"--deepspeed {args.deepspeed}: {key}.enabled is {enabled!r}, and the precision of all ranks is "
                f"{precision}; wanted auto"
            )
        if precision == word and key != "bfloat16":
            given[key] = {name: value for name, value in section.items() if value != "auto"} | {"enabled": True}
    zero = {
        name: value for name, value in _section(args.deepspeed, given, "zero_optimization").items() if value != "auto"
    }
    # DeepSpeed's buckets have 500 million numbers by default, far more than adapters have.
    room = {"reduce_bucket_size": max(largest, 1 << 20), "allgather_bucket_size": max(largest, 1 << 20)}
    return {
        "steps_per_print": 1 << 62,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        **given,
        **ours,
        "zero_optimization": {**(room if stage < 3 else {}), **zero, "stage": stage},
    }


def _refuse_own(path: Path, key: str, section: Any) -> None:
    """Hold that an optimizer or scheduler of the config sets nothing itself: the flags do."""
    values = section.get("params", {}) if isinstance(section, Mapping) else {}
    for name, value in values.items():
        if value != "auto":
            raise ContinualError(
                f"--deepspeed {path}: {key}.params.{name} is {value!r}; wanted no {key}, or auto: "
                "--learning_rate, --weight_decay, --lr_scheduler_type and --warmup_steps set it"
            )


def _section(path: Path, given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = given.get(key, {})
    if not isinstance(section, Mapping):
        raise ContinualError(f"--deepspeed {path}: {key} is {section!r}; wanted an object")
    return section


def _read(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ContinualError(f"--deepspeed {path}: {error.strerror}") from None
    except ValueError as error:
        raise ContinualError(f"--deepspeed {path}: not JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise ContinualError(f"--deepspeed {path}: wanted a JSON object")
    return value
