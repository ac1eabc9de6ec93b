"""The table of DeepSpeed's optimizers, schedulers and values, compared with the DeepSpeed that is installed."""

from __future__ import annotations

import inspect

import pytest

from dsdoctor.checks.config_parts import config_parts

pytestmark = [pytest.mark.train, pytest.mark.slow]


def test_schedulers_and_their_parameters() -> None:
    schedules = pytest.importorskip("deepspeed.runtime.lr_schedules")
    table = config_parts()
    assert set(table.schedulers) == set(schedules.VALID_LR_SCHEDULES)
    for name, known in table.schedulers.items():
        parameters = inspect.signature(getattr(schedules, name)).parameters
        assert known == parameters.keys() - {"optimizer", "last_batch_iteration"}, name
        needed = {key for key, one in parameters.items() if one.default is one.empty} - {"optimizer"}
        assert table.needed.get(name, frozenset()) == needed, name


def test_optimizers_and_their_parameters() -> None:
    config = pytest.importorskip("deepspeed.runtime.config")
    adam = pytest.importorskip("deepspeed.ops.adam")
    torch = pytest.importorskip("torch")
    table = config_parts()
    assert set(table.optimizers) == set(config.DEEPSPEED_OPTIMIZERS)
    classes = (adam.FusedAdam, adam.DeepSpeedCPUAdam, torch.optim.Adam, torch.optim.AdamW)
    taken = {name for each in classes for name in inspect.signature(each).parameters} - {"params", "model_params"}
    assert table.optimizers["adamw"] == taken | {"torch_adam", "adam_w_mode"}


def test_what_torch_has() -> None:
    torch = pytest.importorskip("torch")
    modules = {"optimizer": torch.optim, "scheduler": torch.optim.lr_scheduler}
    for block, module in modules.items():
        assert all(hasattr(module, name) for name in config_parts().torch[block])


def test_the_parameters_of_torch_s_schedulers() -> None:
    torch = pytest.importorskip("torch")
    table = config_parts()
    assert set(table.torch_schedulers) == set(table.torch["scheduler"])
    for name, known in table.torch_schedulers.items():
        taken = set(inspect.signature(getattr(torch.optim.lr_scheduler, name)).parameters) - {"optimizer"}
        assert known - {"verbose", "last_epoch"} == taken - {"last_epoch"}, name


def test_whole_numbers() -> None:
    zero = pytest.importorskip("deepspeed.runtime.zero.config")
    pydantic = pytest.importorskip("pydantic")
    for key, least in config_parts().whole.items():
        zero.DeepSpeedZeroConfig(**{key: least})
        for wrong in (least - 1, least + 0.5, "5e8"):
            with pytest.raises(pydantic.ValidationError):
                zero.DeepSpeedZeroConfig(**{key: wrong})
