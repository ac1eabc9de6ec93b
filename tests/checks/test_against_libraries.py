"""What the checks say of transformers, DeepSpeed and torch, compared with what those do when they are asked."""

from __future__ import annotations

import itertools
import json
import os
from types import SimpleNamespace
from typing import Any

import pytest

from dsdoctor.checks import run_checks
from dsdoctor.checks.casefile import CaseJob
from dsdoctor.checks.ifname import select
from dsdoctor.checks.tables import config_keys
from dsdoctor.facts import Address, Interface, NetworkFacts
from dsdoctor.report.model import Severity
from tests.checks.building import resolved

pytestmark = [pytest.mark.train, pytest.mark.slow]

SETTINGS: list[Any] = [None, "auto", True, False, "true"]


def test_precision_pairs_are_those_that_transformers_compares() -> None:
    pytest.importorskip("deepspeed")
    integration = pytest.importorskip("transformers.integrations.deepspeed")
    compared = 0
    for fp16, bf16, flag in itertools.product(SETTINGS, SETTINGS, (None, "fp16", "bf16")):
        config = {name: {"enabled": value} for name, value in (("fp16", fp16), ("bf16", bf16)) if value is not None}
        flags = {"fp16": flag == "fp16", "bf16": flag == "bf16"}
        told = integration.HfTrainerDeepSpeedConfig(json.loads(json.dumps(config)))
        told.trainer_config_process(arguments(**flags))
        theirs = sorted(line.split()[2].split("=")[0] for line in told.mismatches)
        found = run_checks(
            None,
            resolved(CaseJob(args={**flags, "per_device_train_batch_size": 8}, deepspeed=json.dumps(config))),
            select=["precision-disagrees"],
        ).findings
        if any("both fp16 and bf16 on" in finding.message for finding in found):
            continue  # DeepSpeed refuses it; transformers may come first with its own words
        ours = sorted(finding.message.split()[0] for finding in found)
        assert ours == theirs, (config, flags)
        compared += 1
    assert compared > 50


def arguments(**flags: bool) -> SimpleNamespace:
    """As much of TrainingArguments as the comparison reads."""
    return SimpleNamespace(
        world_size=1,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=1,
        max_grad_norm=1.0,
        learning_rate=1e-3,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=0.0,
        save_on_each_node=False,
        fp16_full_eval=False,
        bf16_full_eval=False,
        fp16_backend="auto",
        fp16_opt_level="O1",
        **flags,
    )


def test_the_models_of_the_config_have_the_keys_that_were_read_from_their_sources() -> None:
    """The table is written from sources; here are pydantic's own words on the same classes."""
    pytest.importorskip("deepspeed")
    from deepspeed.comm.config import CommsLoggerConfig
    from deepspeed.monitor.config import DeepSpeedMonitorConfig
    from deepspeed.runtime.precision_config import DeepSpeedBF16Config, DeepSpeedFP16Config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    found = {"fp16": DeepSpeedFP16Config, "bf16": DeepSpeedBF16Config, "comms_logger": CommsLoggerConfig}
    zero = DeepSpeedZeroConfig.model_fields
    found["zero_optimization"] = DeepSpeedZeroConfig
    for name in ("offload_param", "offload_optimizer"):
        found[f"zero_optimization.{name}"] = zero[name].annotation.__args__[0]
    for name in ("tensorboard", "wandb", "csv_monitor", "comet"):
        found[name] = type(getattr(DeepSpeedMonitorConfig(), name))
    keys = config_keys().keys
    for block, model in found.items():
        assert {field.alias or name for name, field in model.model_fields.items()} == keys.refused[block], block
        inner = {name for name, field in model.model_fields.items() if field.alias}
        assert inner == set(keys.inner.get(block, ())), block


class Watched(dict):  # type: ignore[type-arg]
    """A mapping that notes what it is asked for."""

    asked: set[str]

    def get(self, key: Any, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __contains__(self, key: Any) -> bool:
        self.asked.add(key)
        return super().__contains__(key)

    def keys(self) -> Any:
        return self

    def __copy__(self) -> Watched:
        return self


def test_deepspeed_asks_its_config_for_the_keys_that_were_read_from_its_sources() -> None:
    config = pytest.importorskip("deepspeed.runtime.config")
    watched = Watched({"train_batch_size": 1, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1})
    watched.asked = set()
    config.DeepSpeedConfig(watched)
    keys = config_keys().keys
    known = keys.ignored[""] | {key for key in keys.removed if "." not in key}
    assert watched.asked <= known
    assert len(watched.asked) > 50


def test_what_is_called_refused_is_refused_and_what_is_called_ignored_is_ignored() -> None:
    config = pytest.importorskip("deepspeed.runtime.config")
    for block in ("zero_optimization", "zero_optimization.offload_optimizer", "fp16", "bf16", "tensorboard"):
        value: dict[str, Any] = {"surely_no_key": 1}
        for name in reversed(block.split(".")):
            value = {name: value}
        with pytest.raises(Exception, match="surely_no_key"):
            config.DeepSpeedConfig({"train_batch_size": 1, **value})
    for block in ("", "optimizer", "activation_checkpointing", "flops_profiler", "checkpoint"):
        extra = {"type": "Adam"} if block == "optimizer" else {}
        value = {block: {"surely_no_key": 1, **extra}} if block else {"surely_no_key": 1}
        config.DeepSpeedConfig({"train_batch_size": 1, **value})
    for key in config_keys().keys.removed:
        block, _, inner = key.rpartition(".")
        value = {block: {inner: {}}} if block else {key: {}}
        with pytest.raises(config.DeepSpeedConfigError):
            config.DeepSpeedConfig({"train_batch_size": 1, **value})


# Values by key: those at which the real DeepSpeedConfig stops must be errors here, and no others.
VALUES: dict[str, list[Any]] = {
    "zero_optimization": [
        *({"stage": stage} for stage in ("3", 3.0, True, 4, "x", None, -1)),
        *({"stage": 2, "overlap_comm": value} for value in ("true", "ja", 1, 2, None, "On")),
        *({"stage": 2, "reduce_scatter": value} for value in (None, [], "no", 0, 0.5)),
        *({"stage": 2, "reduce_bucket_size": value} for value in ("500", "5e8", 5e8, 0, 1.5)),
        {"stage": 2, "offload_optimizer": {"device": "cpu", "pin_memory": "vielleicht"}},
        *(True, False, 2, "auto"),
    ],
    "fp16": [{"enabled": value} for value in ("true", "ja", 1, 2, "false")] + [True, "auto"],
    "tensorboard": [{"enabled": "x"}, {"enabled": "yes"}],
    "optimizer": ["AdamW", {"type": "AdamW"}],
    "scheduler": ["WarmupLR"],
    "train_batch_size": [8, "8", 8.5, 0, -8],
    "gradient_accumulation_steps": ["2", 0, 2],
    "wall_clock_breakdown": ["false", False],
    "flops_profiler": [{"enabled": "true"}],
    "prescale_gradients": ["false"],
    "gradient_clipping": ["1.0"],
    "communication_data_type": ["fp8", "bf16"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in VALUES.items() for value in values])
def test_values_that_deepspeed_refuses(key: str, value: Any) -> None:
    config = pytest.importorskip("deepspeed.runtime.config")
    whole = {"train_batch_size": 8, "train_micro_batch_size_per_gpu": 8, key: value}
    if key == "train_batch_size":
        del whole["train_micro_batch_size_per_gpu"]
    if key == "gradient_accumulation_steps":
        whole = {"train_micro_batch_size_per_gpu": 1, key: value}
    try:
        config.DeepSpeedConfig(json.loads(json.dumps(whole)))
        refused = False
    except Exception:
        refused = True
    checks = ["config-value-refused", "quoted-value"]
    found = run_checks(None, resolved(CaseJob(args={"mode": "x"}, deepspeed=json.dumps(whole))), select=checks).findings
    assert any(finding.severity is Severity.ERROR for finding in found) is refused, [each.message for each in found]


def test_two_precisions_are_refused_by_deepspeed() -> None:
    config = pytest.importorskip("deepspeed.runtime.config")
    value = {"train_batch_size": 1, "fp16": {"enabled": True}, "bfloat16": {"enabled": True}}
    with pytest.raises(AssertionError, match="simultaneously"):
        config.DeepSpeedConfig(value)


@pytest.mark.parametrize("kind", ["WarmupLR", "WarmupDecayLR", "WarmupCosineLR"])
def test_warm_up_of_no_steps_and_of_one(kind: str) -> None:
    torch = pytest.importorskip("torch")
    schedules = pytest.importorskip("deepspeed.runtime.lr_schedules")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    more = {} if kind == "WarmupLR" else {"total_num_steps": 10}
    with pytest.raises(ValueError, match="warmup_num_steps must be a positive integer"):
        getattr(schedules, kind)(optimizer, warmup_num_steps=0, **more)
    scheduler = getattr(schedules, kind)(optimizer, warmup_num_steps=1, **more)
    rates = []
    for _ in range(3):
        rates.append(
            optimizer.param_groups[0]["lr"]
        )  # what the optimizer steps with; the engine steps the scheduler after it
        scheduler.step()
    assert rates[:2] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert rates[2] > 5e-4


@pytest.mark.parametrize("value", ["lo", "lo,", "=lo", "^lo", "lo,nosuch0", "nosuch0", "n", "lo:"])
def test_gloo_takes_names_as_the_check_does(value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", value)
    lo = Interface(name="lo", up=True, loopback=True, addresses=(Address(address="127.0.0.1", prefix=8),))
    selected = select("GLOO_SOCKET_IFNAME", value, NetworkFacts(interfaces=(lo,)))
    expected = selected is not None and bool(selected.problems)
    try:
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
        failed = False
        torch.distributed.destroy_process_group()
    except RuntimeError:
        failed = True
    assert failed is expected, os.environ["GLOO_SOCKET_IFNAME"]
