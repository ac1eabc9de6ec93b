"""The tables of launchers' options against the parsers of the launchers that are installed."""

from __future__ import annotations

import argparse

import pytest

from dsdoctor.jobs.script.launchers import ACCELERATE_FLAGS, DEEPSPEED, TORCHRUN

pytestmark = [pytest.mark.train, pytest.mark.slow]


def parted(parser: argparse.ArgumentParser) -> tuple[set[str], set[str]]:
    """Options without and with a value, with dashes."""
    flags: set[str] = set()
    values: set[str] = set()
    for action in parser._actions:
        names = {name.replace("_", "-") for name in action.option_strings}
        (flags if action.nargs == 0 else values).update(names)
    return flags, values


def test_torchrun() -> None:
    run = pytest.importorskip("torch.distributed.run")
    flags, values = parted(run.get_args_parser())
    assert values - TORCHRUN == set()
    assert flags & TORCHRUN == set()


def test_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = pytest.importorskip("deepspeed.launcher.runner")
    seen: list[argparse.ArgumentParser] = []

    def caught(self: argparse.ArgumentParser, *_: object, **__: object) -> None:
        seen.append(self)
        raise SystemExit

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", caught)
    with pytest.raises(SystemExit):
        runner.parse_args(["x"])
    flags, values = parted(seen[0])
    assert values - DEEPSPEED == set()
    assert flags & DEEPSPEED == set()


def test_accelerate() -> None:
    launch = pytest.importorskip("accelerate.commands.launch")
    flags, values = parted(launch.launch_command_parser())
    assert flags - ACCELERATE_FLAGS == set()
    assert values & ACCELERATE_FLAGS == set()


def test_training_arguments() -> None:
    dataclasses = pytest.importorskip("dataclasses")
    transformers = pytest.importorskip("transformers")
    from dsdoctor.checks.tables import training_arguments

    names = {field.name for field in dataclasses.fields(transformers.Seq2SeqTrainingArguments)}
    assert names - training_arguments() == set()
