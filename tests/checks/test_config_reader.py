"""Reading what a DeepSpeed takes in its config: two generations of sources, broken ones, and hosts that are asked."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from dsdoctor.checks import run_checks
from dsdoctor.checks.casefile import CaseJob
from dsdoctor.checks.tables import config_keys as table
from dsdoctor.cluster import Cluster, HostEntry, Member, Reach
from dsdoctor.facts import FactUnavailable, HostFacts, Section, Snapshot
from dsdoctor.hosts.config_keys import with_config_keys
from dsdoctor.hosts.config_reader.answer import config_keys
from tests.checks.building import resolved
from tests.checks.deepspeed_table import installed
from tests.checks.deepspeed_table import table as written

# As releases before 0.17 are built: pydantic 1, names in constants.py, most blocks read key by key.
EARLY = {
    "runtime/constants.py": """
        TRAIN_BATCH_SIZE = "train_batch_size"
        FP16 = "fp16"
        BFLOAT16 = "bf16"
        BFLOAT16_OLD = "bfloat16"
        OPTIMIZER = "optimizer"
        TYPE = "type"
        ACT = "activation_checkpointing"
    """,
    "runtime/config_utils.py": """
        from pydantic import BaseModel

        class DeepSpeedConfigModel(BaseModel):
            class Config:
                extra = "forbid"
                allow_population_by_field_name = True

        def get_scalar_param(param_dict, param_name, param_default_value):
            return param_dict.get(param_name, param_default_value)
    """,
    "runtime/zero/config.py": """
        from typing import Optional
        from pydantic import Field
        from deepspeed.runtime.config_utils import DeepSpeedConfigModel

        def get_zero_config(param_dict):
            if "zero_optimization" in param_dict:
                zero = param_dict["zero_optimization"]
            else:
                zero = {}
            return ZeroConfig(**zero)

        class Offload(DeepSpeedConfigModel):
            device: str = "none"
            pin: bool = False

        class ZeroConfig(DeepSpeedConfigModel):
            stage: int = 0
            offload_param: Optional[Offload] = None
            gather: bool = Field(False, alias="stage3_gather")
            stage3_gather_fp16: bool = Field(False, deprecated=True, new_param="gather")
            cpu_pinned: bool = Field(None, deprecated=True, new_param="offload_param or other", set_new_param=False)
    """,
    "runtime/activation.py": """
        from .constants import ACT

        class Activation:
            def __init__(self, param_dict):
                block = param_dict[ACT] if ACT in param_dict.keys() else {}
                self._initialize(block)

            def _initialize(self, block):
                self.cpu = block.get("cpu_checkpointing", False)
    """,
    "runtime/lr_schedules.py": """
        WARMUP, DECAY = "WarmupLR", "WarmupDecayLR"
        WARMUP_LR = "WarmupLR"
        VALID_LR_SCHEDULES = [WARMUP_LR]

        class WarmupLR:
            def __init__(self, optimizer, total, warmup_steps=10, last_batch_iteration=-1):
                pass
    """,
    "runtime/config.py": """
        import copy
        from .constants import *
        from .activation import Activation
        from .config_utils import get_scalar_param
        from .zero.config import get_zero_config

        def get_bfloat16_enabled(param_dict):
            for key in [BFLOAT16, BFLOAT16_OLD]:
                if key in param_dict.keys():
                    return get_scalar_param(param_dict[key], "enabled", False)
            return False

        def get_fp16(param_dict):
            if FP16 in param_dict:
                fp16_dict = param_dict[FP16]
                return [fp16_dict.get("enabled"), fp16_dict.get("loss_scale")]

        def get_optimizer_params(param_dict):
            if OPTIMIZER in param_dict.keys() and TYPE in param_dict[OPTIMIZER].keys():
                return param_dict[OPTIMIZER]["params"]

        class DeepSpeedConfig(object):
            def __init__(self, config, mpu=None):
                self._param_dict = config
                self._initialize_params(copy.copy(self._param_dict))

            def _initialize_params(self, param_dict):
                self.batch = get_scalar_param(param_dict, TRAIN_BATCH_SIZE, None)
                self.bf16, self.fp16 = get_bfloat16_enabled(param_dict), get_fp16(param_dict)
                self.zero = get_zero_config(param_dict)
                self.activation = Activation(param_dict)
                self.optimizer_params = get_optimizer_params(param_dict)
                self.pipeline = param_dict.get("pipeline", {})
                self.clip = param_dict.get("gradient_clipping", 0.0)
    """,
}

# As later ones are: pydantic 2, a model for each block, and a list of what was given up.
LATE = {
    **EARLY,
    "runtime/config_utils.py": """
        from pydantic import BaseModel, ConfigDict

        class DeepSpeedConfigModel(BaseModel):
            model_config = ConfigDict(extra="forbid", populate_by_name=True)
    """,
    "monitor/config.py": """
        from deepspeed.runtime.config_utils import DeepSpeedConfigModel

        def get_monitor_config(param_dict):
            blocks = {key: param_dict.get(key, {}) for key in ("tensorboard", "wandb")}
            return MonitorConfig(**blocks)

        class TensorBoardConfig(DeepSpeedConfigModel):
            enabled: bool = False

        class WandbConfig(TensorBoardConfig):
            team: str = ""

        class MonitorConfig(DeepSpeedConfigModel):
            tensorboard: TensorBoardConfig = {}
            wandb: WandbConfig = {}
    """,
    "runtime/config.py": """
        from .constants import *
        from ..monitor.config import get_monitor_config
        from .config_utils import DeepSpeedConfigModel
        from .zero.config import get_zero_config

        _REMOVED_TOP_LEVEL_CONFIG_KEYS = {"amp": "Apex was removed."}
        _REMOVED_ZERO_CONFIG_KEYS = {"mics": "MiCS was removed."}

        class BF16Config(DeepSpeedConfigModel):
            enabled: bool = False

        class Loose(DeepSpeedConfigModel):
            model_config = {"extra": "allow"}
            free: int = 0

        def get_bfloat16_config(param_dict):
            block = param_dict.get(BFLOAT16, None)
            if block is None:
                block = param_dict.get(BFLOAT16_OLD, {})
            return BF16Config(**block)

        class DeepSpeedConfig(object):
            def __init__(self, config):
                self._param_dict = config
                self.bf16 = get_bfloat16_config(config)
                self.monitor = get_monitor_config(config)
                self.loose = Loose(**config.get("loose", {}))
                self.zero = get_zero_config(config)
                self.given = [config.get(key) for key in ("train_batch_size", "gradient_clipping")]
    """,
}


def tree(folder: Path, files: dict[str, str]) -> Path:
    """The files in a folder called deepspeed."""
    for name, text in files.items():
        path = folder / "deepspeed" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder / "deepspeed"


def test_sources_of_an_early_release(tmp_path: Path) -> None:
    keys = config_keys(str(tree(tmp_path, EARLY)))
    assert keys["refused"] == {
        "zero_optimization": ["cpu_pinned", "offload_param", "stage", "stage3_gather", "stage3_gather_fp16"],
        "zero_optimization.offload_param": ["device", "pin"],
    }
    assert keys["ignored"] == {
        "": sorted(
            [
                "activation_checkpointing",
                "bf16",
                "bfloat16",
                "data_parallel_size",
                "fp16",
                "gradient_clipping",
                "optimizer",
                "pipeline",
                "sequence_parallel_size",
                "train_batch_size",
                "zero_optimization",
            ]
        ),
        "activation_checkpointing": ["cpu_checkpointing"],
        "bf16": ["enabled"],
        "bfloat16": ["enabled"],
        "fp16": ["enabled", "loss_scale"],
        "optimizer": ["params", "type"],
    }
    assert keys["inner"] == {"zero_optimization": ["gather"]}
    assert keys["old"] == {"zero_optimization.stage3_gather_fp16": "stage3_gather"}
    assert keys["removed"] == []
    assert (keys["schedulers"], keys["needed"]) == ({"WarmupLR": ["total", "warmup_steps"]}, {"WarmupLR": ["total"]})


def test_sources_of_a_late_release(tmp_path: Path) -> None:
    keys = config_keys(str(tree(tmp_path, LATE)))
    assert {block: keys["refused"][block] for block in ("bf16", "bfloat16", "tensorboard", "wandb")} == {
        "bf16": ["enabled"],
        "bfloat16": ["enabled"],
        "tensorboard": ["enabled"],
        "wandb": ["enabled", "team"],
    }
    assert "loose" in keys["ignored"][""]
    assert "loose" not in {**keys["refused"], **keys["ignored"]}  # it takes anything
    assert keys["removed"] == ["amp", "zero_optimization.mics"]


def test_a_block_that_goes_where_it_is_not_followed_is_not_judged(tmp_path: Path) -> None:
    late = LATE["runtime/config.py"].replace(
        "self.zero =", 'self.other = config.get("other", {})\n                self.seen = self.other.get("seen")\n'
        '                self.sent = outside(config["sent"].get("key"), config["sent"])\n                self.zero ='
    )  # fmt: skip
    keys = config_keys(str(tree(tmp_path, {**LATE, "runtime/config.py": late})))
    assert {"other", "sent"} <= set(keys["ignored"][""])
    assert not {"other", "sent"} & set({**keys["refused"], **keys["ignored"]})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "def broken(:",
        "class DeepSpeedConfig:\n    pass\n",
        "class DeepSpeedConfig:\n    x = 1" + "+1" * 20000,
        "\0",
    ],
    ids=["empty", "not Python", "another way", "deep", "NUL"],
)
def test_sources_that_cannot_be_followed_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "config.py").write_text(text)
    with pytest.raises(ValueError, match=r"runtime/config\.py"):
        config_keys(str(tmp_path))


def test_functions_that_call_each_other_without_end(tmp_path: Path) -> None:
    text = LATE["runtime/config.py"] + textwrap.dedent("""
        def endless(config):
            return endless(config["again"])
    """).replace("\n", "\n        ")
    text = text.replace("self._param_dict = config", "self._param_dict = config\n                endless(config)")
    assert "again" in config_keys(str(tree(tmp_path, {**LATE, "runtime/config.py": text})))["ignored"][""]


def test_the_table_is_what_the_installed_deepspeed_has() -> None:
    """`python -m tests.checks.deepspeed_table` writes it anew."""
    folder = installed()
    shipped = Path(__file__).parents[2] / "dsdoctor" / "checks" / "data" / "deepspeed_keys.json"
    assert shipped.read_text() == written(config_keys(str(folder)))


def member(name: str, folder: Path, version: str) -> Member:
    """This machine as a host with a DeepSpeed in a folder."""
    rows: dict[str, Any] = {
        "deepspeed": {"version": version, "path": str(folder)},
        "packages": {"distributions": [{"name": "deepspeed", "version": version}]},
    }
    snapshot = Snapshot(host=name, sections={key: Section(value=value) for key, value in rows.items()})
    return Member(HostEntry(name, 1, local=True), Reach(True), HostFacts(snapshot))


def test_one_host_of_each_release_is_asked_and_the_config_judged_by_it(tmp_path: Path) -> None:
    early, late = tree(tmp_path / "early", EARLY), tree(tmp_path / "late", LATE)
    nowhere = tmp_path / "nowhere"
    cluster = Cluster(
        (
            member("a", early, "0.9.2"),
            member("b", nowhere, "0.9.2"),  # the same release: it is not asked
            member("c", late, "0.18.0"),
            member("d", nowhere, table().keys.version),
            member("e", nowhere, "0.18.9"),
        )
    )
    cluster = with_config_keys(cluster, [table().keys.version])
    assert [answer(each) for each in cluster] == ["0.9.2", "", "0.18.0", "", ""]
    config = '{"train_batch_size": 1, "bf16": {"enabled": true, "check_grad_overflow": true}}'
    found = run_checks(cluster, resolved(CaseJob(deepspeed=config)), select=["unknown-config-key"]).findings
    assert [(finding.hosts, finding.message.split(";")[0]) for finding in found] == [
        (("c",), "bf16.check_grad_overflow is no key of DeepSpeed 0.18.0, which stops there"),
        (("a", "b"), "bf16.check_grad_overflow is no key of DeepSpeed 0.9.2, and is passed over without a word"),
    ]


def answer(each: Member) -> str:
    """The release whose keys are in a host's facts, "" where there are none."""
    assert each.facts is not None
    try:
        return each.facts.config_keys.version
    except FactUnavailable:
        return ""
