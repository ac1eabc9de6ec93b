"""The same losses whatever trains: one process, DDP, ZeRO, unlike ranks on two hosts; sick ranks; going on with others.

Over the real torchrun and DeepSpeed, gloo and loopback. Two starts of ranks do nearly all of it: see several.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import warnings
from pathlib import Path

import pytest
import torch.distributed as dist
from continual.methods import memory
from continual.train import main

from tests.continual.conftest import stage_flags
from tests.continual.several import MODULE, Runs, free_port, losses, torchrun

pytestmark = [pytest.mark.slow, pytest.mark.train, pytest.mark.timeout(900)]
WEIGHTS = "adapter_model.safetensors"
SECOND = {"lamda_2": 0.01}  # stage 2, so that the penalty counts too
METHODS = {
    "gorp": {"galore_lr": 0.01, "galore_update_proj_gap": 2},
    "replay": {"replay_share": 0.4},  # stored examples in shares that do not divide evenly
    "nlora": {},
}
POISON = "self.learner.encoder.base_model.model.embeddings.word_embeddings.weight.data.fill_(float('nan'))"


@pytest.fixture(scope="module")
def alone(encoder: Path, benchmark: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one process prints, by name; `folder` is where it left its stages."""
    runs = Runs(encoder, benchmark, tmp_path_factory.mktemp("alone"))
    folder = runs.folder
    said = {"folder": str(folder), "first": runs.alone(runs.flags(folder))}
    said["second"] = runs.alone(runs.flags(folder, 2, **SECOND))
    said["seqlora"] = runs.alone(runs.flags(folder / "seqlora", method="seqlora"))
    for method, other in METHODS.items():
        for stage in (1, 2):
            flags = runs.flags(folder / method, stage, method=method, learning_rate=0.005, **other)
            said[method] = runs.alone(flags)
    return said


@pytest.fixture(scope="module")
def two(encoder: Path, benchmark: Path, tmp_path_factory: pytest.TempPathFactory, alone: dict[str, str]) -> Runs:
    """Two ranks on one host."""
    runs = Runs(encoder, benchmark, tmp_path_factory.mktemp("two"))
    folder, first = runs.folder, Path(alone["folder"]) / "1"

    def second(name: str, **other: object) -> list[str]:
        return runs.flags(folder, 2, output_dir=folder / name, previous_output_dir=first, **SECOND, **other)

    runs.plan("ddp", second("ddp"))
    for name, other in (("ddp", {}), ("zero2", {"zero_stage": 2})):
        runs.plan(f"{name}-stopped", second(f"{name}-again", save_steps=2, **other), stop=6)
        runs.plan(f"{name}-again", second(f"{name}-again", save_steps=2, **other))
    runs.plan("other-model", runs.flags(folder / "sick"), at=1, disturbance="self.parameters[0][1].data.add_(0.1)")
    runs.plan("nan", runs.flags(folder / "sick"), at=4, disturbance=POISON)
    runs.plan("zero2", second("zero2", zero_stage=2))
    config = folder / "offload.json"
    config.write_text(json.dumps({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}))
    runs.plan("offload", second("offload", deepspeed=config))
    runs.plan("parts", runs.flags(folder, output_dir=folder / "parts", zero_stage=2, save_steps=2), stop=4)
    runs.plan("zero3", runs.flags(folder / "zero3", method="seqlora", zero_stage=3))
    runs.carry_out(2)
    return runs


@pytest.fixture(scope="module")
def goes_on(two: Runs) -> tuple[str, Path]:
    """What two ranks under ZeRO-2 began, one process goes on with, and is stopped: what it printed, where it lies."""
    output = two.folder / "parts"
    return two.alone(two.flags(two.folder, output_dir=output, save_steps=2), stop=5), output


@pytest.fixture(scope="module")
def hosts(
    encoder: Path,
    benchmark: Path,
    tmp_path_factory: pytest.TempPathFactory,
    alone: dict[str, str],
    goes_on: tuple[str, Path],
) -> Runs:
    """Two hosts with disks of their own, two ranks and one, which cannot take as much at once as the others."""
    runs = Runs(encoder, benchmark, tmp_path_factory.mktemp("hosts"))
    before, sizes = Path(alone["folder"]), (3, 3, 1)
    here = runs.folder / "host0"
    shutil.copytree(before / "1", here / "only" / "1")
    shutil.copytree(goes_on[1], here / "parts")
    runs.plan("first", runs.flags(Path("out")), sizes)
    runs.plan("second", runs.flags(Path("out"), 2, **SECOND), sizes)
    runs.plan("missing", runs.flags(Path("only"), 2))
    for method, other in METHODS.items():
        flags = runs.flags(
            Path("out"),
            2,
            method=method,
            learning_rate=0.005,
            output_dir=method,
            previous_output_dir=before / method / "1",
            **other,
        )
        runs.plan(method, flags)
    zero = {"output_dir": "zero2", "previous_output_dir": before / "1", "zero_stage": 2}
    runs.plan("zero2", runs.flags(Path("out"), 2, **SECOND, **zero), sizes)
    runs.plan("parts", runs.flags(Path("out"), output_dir="parts", zero_stage=1, save_steps=2))
    runs.carry_out(2, 1)
    return runs


def same(one: str, other: str, tolerance: float = 2e-3) -> None:
    first, second = losses(one), losses(other)
    assert len(first) == len(second) > 0
    for seen, wanted in zip(second, first, strict=True):
        assert seen == pytest.approx(wanted, abs=tolerance)


def accuracy(folder: Path) -> list[list[float]]:
    return json.loads((folder / "results.json").read_text())["accuracy"]


def weights(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob(f"adapter/*/{WEIGHTS}"))}


@pytest.mark.parametrize("name", ["ddp", "zero2", "offload"])
def test_two_ranks_have_the_losses_of_one_process(two: Runs, alone: dict[str, str], name: str):
    assert two.codes(name) == [0, 0], two.err(name)
    assert "6 steps of 8 examples (4 + 4)" in two.out(name)
    same(alone["second"], two.out(name))
    assert accuracy(two.folder / name) == accuracy(Path(alone["folder"]) / "2")
    assert "{'loss'" not in two.out(name, rank=1)
    assert two.out(name, rank=1).count("continual: host ") == 1


def test_one_process_under_zero_has_them_too(alone: dict[str, str], two: Runs):
    """Started without a launcher, so without its LOCAL_RANK."""
    flags = two.flags(two.folder, 2, output_dir=two.folder / "lonely", zero_stage=2, **SECOND)
    flags += ["--previous_output_dir", str(Path(alone["folder"]) / "1")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DeepSpeed's own
        same(alone["second"], two.alone(flags))
    dist.destroy_process_group()


def test_zero_3_has_them_too_where_the_method_allows_it(two: Runs, alone: dict[str, str]):
    assert two.codes("zero3") == [0, 0], two.err("zero3")
    same(alone["seqlora"], two.out("zero3"))
    assert accuracy(two.folder / "zero3" / "1") == accuracy(Path(alone["folder"]) / "seqlora" / "1")


@pytest.mark.parametrize("name", ["first", "second", "zero2"])
def test_unlike_ranks_on_two_hosts_have_them_too(hosts: Runs, alone: dict[str, str], name: str):
    assert hosts.codes(name) == [0, 0, 0], hosts.err(name)
    assert "6 steps of 8 examples (4 + 3 + 1)" in hosts.out(name)
    same(alone["first" if name == "first" else "second"], hosts.out(name))


def test_every_host_has_its_own_copy(hosts: Runs):
    folders = [hosts.folder / f"host{number}" / "out" / "2" for number in range(2)]
    states = [json.loads((folder / "stage.json").read_text()) for folder in folders]
    assert {**states[0], "files": {}} == {**states[1], "files": {}}
    assert sorted(weights(folders[0])) == [f"adapter/{name}/{WEIGHTS}" for name in ("1-dbpedia", "2-amazon")]
    assert weights(folders[0]) == weights(folders[1])


def test_a_host_without_the_stage_before_is_named(hosts: Runs):
    assert hosts.codes("missing") == [1, 1, 1]
    said = hosts.err("missing")
    assert said.count("continual: ") == 1
    folder = hosts.folder / "host1" / "only" / "1"
    assert f"continual: rank 2 (host {socket.gethostname()}): --previous_output_dir {folder}: no such" in said


@pytest.mark.parametrize("method", METHODS)
def test_the_number_of_ranks_makes_no_difference_to_a_method(hosts: Runs, alone: dict[str, str], method: str):
    """Stage 2, with what stage 1 left: projections, stored examples, a penalty."""
    assert hosts.codes(method) == [0, 0, 0], hosts.err(method)
    same(alone[method], hosts.out(method), 5e-3)
    one = memory.read(Path(alone["folder"]) / method / "2" / "adapter")
    three = memory.read(hosts.folder / "host1" / method / "adapter")
    assert one.examples == three.examples
    assert one.tensors.keys() == three.tensors.keys()


@pytest.mark.parametrize(
    ("name", "said"),
    [("other-model", "trains another model than rank 0"), ("nan", "loss is nan at step 5")],
)
def test_a_sick_rank_is_named_in_one_line(two: Runs, name: str, said: str):
    assert two.codes(name) == [1, 1]
    err = two.err(name)
    assert err.count("continual: ") == 1
    assert f"continual: health: rank 1 (host {socket.gethostname()})" in err
    assert said in err
    assert not (two.folder / "sick" / "1").exists()


@pytest.mark.parametrize("name", ["ddp", "zero2"])
def test_interrupted_two_ranks_end_as_uninterrupted(two: Runs, name: str):
    """To the last bit; stopped in step 6, after the checkpoints of 2 and 4."""
    assert two.codes(f"{name}-stopped") == [-1, -1], two.err(f"{name}-stopped")
    assert "resumed after step 4" in two.out(f"{name}-again")
    assert losses(two.out(f"{name}-again")) == losses(two.out(name))[4:]
    assert weights(two.folder / f"{name}-again") == weights(two.folder / name)
    assert weights(two.folder / name)


def test_a_stopped_stage_goes_on_with_other_ranks(
    two: Runs, goes_on: tuple[str, Path], hosts: Runs, alone: dict[str, str]
):
    """Two ranks under ZeRO-2, then one process, then three under ZeRO-1 on two hosts, one of which has no copy."""
    assert two.codes("parts") == [-1, -1], two.err("parts")
    assert "resumed after step 2" in goes_on[0]
    assert "resumed after step 4" in hosts.out("parts")
    # The first had come to step 3 and the second to step 4 when they were stopped.
    lines = [*_steps(two.out("parts"), 1, 2), *_steps(goes_on[0], 3, 4), *_steps(hosts.out("parts"), 5, 6)]
    same(alone["first"], "\n".join(lines))
    for host in ("host0", "host1"):
        history = json.loads((hosts.folder / host / "parts" / "trainer_state.json").read_text())["log_history"]
        assert [line["step"] for line in history] == [*range(1, 7), 6], "those before the stops are among them"


def _steps(out: str, first: int, last: int) -> list[str]:
    wanted = [f"'step': {step}," for step in range(first, last + 1)]
    return [line for line in out.splitlines() if any(step in line for step in wanted)]


def test_a_rank_that_never_comes_is_named(
    encoder: Path,
    benchmark: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """Started by hand as rank 0 of 2: torchrun would not let it come to this."""
    place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    for name, value in {**place, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    assert main(stage_flags(encoder, benchmark, tmp_path, ddp_timeout=3)) == 1
    said = capsys.readouterr().err
    assert "rank 0 (host " in said
    assert re.search(r"rank 1 did not come within 3 s|1/2 clients joined", said)
    assert "(--ddp_timeout); wanted: all 2 ranks started" in said
    assert said.count("\n") == 1, "one line, no traceback"


def test_sigterm_ends_every_rank(encoder: Path, benchmark: Path, tmp_path: Path):
    flags = stage_flags(encoder, benchmark, tmp_path, max_steps=1000000)
    process = torchrun(tmp_path, 2, (*MODULE, *flags), free_port())
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{'loss'"):
                break
        process.terminate()
        process.communicate(timeout=120)
        assert process.returncode != 0
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)  # nothing of the group is left
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert not (tmp_path / "1" / "stage.json").exists()
