"""How a stage trains, as far as its memory and time depend on it: out of its arguments and the DeepSpeed config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dsdoctor.jobs import dsconfig
from dsdoctor.jobs.job import DeepSpeedConfig, ResolvedJob, StageSettings

# pure16: weights, gradients and states in 16 bits. mixed: 16-bit weights, fp32 masters and states (DeepSpeed).
# autocast: fp32 weights, 16-bit computing (torch.autocast, the Trainer's --bf16 and --fp16 without DeepSpeed).
Precision = Literal["fp32", "pure16", "mixed", "autocast"]
Engine = Literal["single", "ddp", "deepspeed", "fsdp"]
Device = Literal["gpu", "cpu", "nvme"]

# Bytes of state a parameter. AdamW keeps two values of its parameter's width; bitsandbytes' two bytes; Adafactor a
# row and a column of each matrix, next to nothing. Source: transformers, docs "GPU memory usage"; arXiv 1804.04235.
Optimizer = Literal["adamw", "adamw_8bit", "adafactor", "sgd", "momentum"]

_YES = frozenset({"true", "yes", "t", "y", "1", "on"})
_LENGTH = ("max_seq_length", "max_length", "block_size", "cutoff_len", "model_max_length", "max_source_length")
_LORA_RANK = ("lora_rank", "lora_r", "lora_dim", "lora_attn_dim")
_TARGETS = ("lora_target_modules", "lora_target", "target_modules", "trainable")

# peft's TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING (peft/utils/constants.py), for what is known here.
DEFAULT_TARGETS = {
    "llama": ("q_proj", "v_proj"),
    "gpt2": ("c_attn",),
    "gpt_neox": ("query_key_value",),
    "bert": ("query", "value"),
    "t5": ("q", "v"),
}


@dataclass(frozen=True)
class Lora:
    """Adapters of this rank on these modules; without targets it is peft's own choice for the architecture."""

    rank: int = 8  # peft's default
    targets: tuple[str, ...] = ()
    dropout: float = 0.0


@dataclass(frozen=True)
class Zero:
    """DeepSpeed's ZeRO. Bucket sizes are numbers of elements; the defaults are those of DeepSpeed 0.19's config."""

    stage: int = 0
    optimizer_on: Device = "gpu"
    parameters_on: Device = "gpu"
    reduce_bucket: int | None = 500_000_000  # None: "auto", which the Trainer makes hidden size squared
    overlap: bool = False
    max_live: int = 1_000_000_000  # stage 3: parameters that are gathered at a time


@dataclass(frozen=True)
class Training:
    """What memory and time depend on, beside the model. `length` None: the job does not say it."""

    precision: Precision = "fp32"
    optimizer: Optimizer = "adamw"
    foreach: bool = False  # torch's AdamW of before transformers 4.50: a temporary as large as the parameters
    engine: Engine = "single"
    zero: Zero = Zero()
    shards_parameters: bool = True  # FSDP: full_shard; False: shard_grad_op
    lora: Lora | None = None
    base_bits: int | None = None  # weights of the base model in 4 or 8 bits
    micro_batch: int = 8
    length: int | None = None
    target_length: int = 0  # of the decoder of an encoder-decoder
    accumulation: int = 1
    checkpointing: bool = False
    attention: Literal["sdpa", "eager"] = "sdpa"  # flash attention keeps what sdpa keeps
    ranks: int = 1
    vocabulary_loss: bool | None = None  # a loss over all words a token; None: as its architecture generates
    eval_batch: int = 0  # samples that are evaluated at a time; 0: none are
    new_tokens: int = 0  # that are generated for each of them; 0: only the loss is computed
    autocast: bool = False  # over 16-bit weights: adapters in fp32 then compute in 16 bits


def training_of(job: ResolvedJob, stage: StageSettings, ranks: int, checkpoint_dtype: str | None = None) -> Training:
    """How a stage trains on that many ranks.

    `checkpoint_dtype` is what config.json says that the weights are stored in: transformers 5 loads them so, earlier
    releases in fp32 unless they are told; where the job does not say, fp32 is assumed, the larger one.
    """
    arguments = {name.lstrip("-").replace("-", "_"): value for name, value in stage.args.items() if value is not None}
    config = job.deepspeed
    zero = _zero(config) if config is not None else Zero()
    length = _number(arguments, *_LENGTH)
    targets = _number(arguments, "max_target_length") or 0
    batch = _of_config(config, "train_micro_batch_size_per_gpu")
    steps = _of_config(config, "gradient_accumulation_steps")
    shared = _number(arguments, "global_batch_size")
    if shared and batch is None:
        batch = max(1, shared // max(1, ranks) // (_number(arguments, "gradient_accumulation_steps") or steps or 1))
    fsdp = str(arguments.get("fsdp", "")).lower()
    sharded = bool(fsdp) and fsdp not in ("false", "none", "[]", "")
    return Training(
        precision=_precision(job, arguments, checkpoint_dtype),
        optimizer=_optimizer(config, arguments),
        foreach=str(arguments.get("optim", "")) == "adamw_torch",
        engine="deepspeed" if config is not None else "fsdp" if sharded else "ddp" if ranks > 1 else "single",
        zero=zero,
        shards_parameters="grad_op" not in fsdp,
        lora=_lora(job, arguments),
        base_bits=_bits(arguments),
        micro_batch=_number(arguments, "per_device_train_batch_size", "micro_batch_size", "batch_size") or batch or 8,
        length=length,
        target_length=targets,
        accumulation=_number(arguments, "gradient_accumulation_steps") or steps or 1,
        checkpointing=_is_true(arguments.get("gradient_checkpointing", False)),
        attention="eager" if str(arguments.get("attn_implementation", "")) == "eager" else "sdpa",
        ranks=max(1, ranks),
        eval_batch=_evaluated(arguments),
        new_tokens=_generated(arguments, targets),
        autocast=config is None and _asks_for_half(job, arguments),
    )


def _evaluated(arguments: Mapping[str, Any]) -> int:
    """The samples of an evaluation's batch; 8 is the Trainer's default."""
    when = str(arguments.get("eval_strategy", arguments.get("evaluation_strategy", "no"))).lower()
    asked = any(_is_true(arguments.get(name, False)) for name in ("do_eval", "do_predict", "predict_with_generate"))
    if not asked and when in ("no", "false", "none"):
        return 0
    return _number(arguments, "per_device_eval_batch_size", "eval_batch_size") or 8


def _generated(arguments: Mapping[str, Any], targets: int) -> int:
    """The tokens that are generated for a sample: transformers stops at 20 where nothing is said."""
    if not _is_true(arguments.get("predict_with_generate", False)):
        return 0
    return _number(arguments, "generation_max_length", "max_new_tokens", "val_max_target_length") or targets or 20


def _is_true(value: Any) -> bool:
    return str(value).strip().lower() in _YES


def _number(arguments: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = arguments.get(name)
        if isinstance(value, str) and value.strip().isdigit():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _of_config(config: DeepSpeedConfig | None, dotted: str) -> int | None:
    value = dsconfig.get(config, dotted) if config is not None else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _precision(job: ResolvedJob, arguments: Mapping[str, Any], stored: str | None) -> Precision:
    config = job.deepspeed
    half = _asks_for_half(job, arguments)
    if config is not None:
        blocks = [dsconfig.get(config, f"{block}.enabled") for block in ("fp16", "bf16", "bfloat16")]
        if any(_is_true(value) for value in blocks):
            return "mixed"
        return "mixed" if half and any(value == "auto" for value in blocks) else "fp32"
    loaded = str(arguments.get("torch_dtype", arguments.get("dtype", ""))).lower()
    if loaded == "auto":
        loaded = stored or ""
    if loaded in ("bfloat16", "bf16", "float16", "fp16", "half"):
        return "pure16"
    return "autocast" if half else "fp32"


def _asks_for_half(job: ResolvedJob, arguments: Mapping[str, Any]) -> bool:
    """Whether the arguments ask for 16 bits. `precision: auto` counts: every card that is left has one of the two."""
    word = str(arguments.get("precision", arguments.get("mixed_precision", ""))).lower()
    if word == "${precision}":
        word = job.job.precision or ""
    return word in ("fp16", "bf16", "auto") or any(_is_true(arguments.get(name, False)) for name in ("fp16", "bf16"))


def _optimizer(config: DeepSpeedConfig | None, arguments: Mapping[str, Any]) -> Optimizer:
    named = dsconfig.get(config, "optimizer.type") if config is not None else None
    word = str(named or arguments.get("optim", "adamw")).lower()
    if "8bit" in word or "onebit" in word:
        return "adamw_8bit" if "8bit" in word else "adamw"
    if "adafactor" in word:
        return "adafactor"
    if word == "sgd":
        momentum = dsconfig.get(config, "optimizer.params.momentum") if config is not None else 0
        return "momentum" if momentum else "sgd"
    return "adamw"


def _zero(config: DeepSpeedConfig) -> Zero:
    def of(name: str) -> Any:
        return dsconfig.get(config, f"zero_optimization.{name}")

    stage = of("stage")
    bucket, live = of("reduce_bucket_size"), of("stage3_max_live_parameters")
    auto = bucket == "auto"
    return Zero(
        stage=stage if isinstance(stage, int) and stage in (0, 1, 2, 3) else 0,
        optimizer_on=_device(of("offload_optimizer.device"), of("cpu_offload")),
        parameters_on=_device(of("offload_param.device"), of("cpu_offload_params")),
        reduce_bucket=None if auto else int(bucket) if isinstance(bucket, (int, float)) and bucket > 0 else 500_000_000,
        overlap=_is_true(of("overlap_comm")) or (of("overlap_comm") is None and stage == 3),
        max_live=int(live) if isinstance(live, (int, float)) and live > 0 else 1_000_000_000,
    )


def _device(word: Any, old: Any) -> Device:
    if word in ("cpu", "nvme"):
        return "cpu" if word == "cpu" else "nvme"
    return "cpu" if _is_true(old) else "gpu"


def _bits(arguments: Mapping[str, Any]) -> int | None:
    if _is_true(arguments.get("load_in_4bit", False)) or str(arguments.get("quantization_bit")) == "4":
        return 4
    if _is_true(arguments.get("load_in_8bit", False)) or str(arguments.get("quantization_bit")) == "8":
        return 8
    kbits = _number(arguments, "load_in_kbits")
    return kbits if kbits in (4, 8) else None


def _lora(job: ResolvedJob, arguments: Mapping[str, Any]) -> Lora | None:
    rank = _number(arguments, *_LORA_RANK)
    program = (job.job.module or job.job.script or "").lower()
    said = arguments.get("use_lora", arguments.get("use_peft"))
    if said is not None and not _is_true(said):
        return None
    asked = rank or said or "lora" in program or str(arguments.get("finetuning_type", "")).lower() == "lora"
    if not asked:
        return None
    dropout = arguments.get("lora_dropout", 0.0)
    names = next((arguments[name] for name in _TARGETS if arguments.get(name)), ())
    listed = names if isinstance(names, (list, tuple)) else str(names).split(",")
    targets = tuple(str(name).strip() for name in listed if str(name).strip())
    return Lora(rank or 8, targets, float(dropout) if isinstance(dropout, (int, float)) else 0.0)
