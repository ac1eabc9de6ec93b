"""Several ranks under the real torchrun, over gloo and loopback."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.continual.conftest import LAUNCH, stage_flags

pytestmark = [pytest.mark.slow, pytest.mark.train, pytest.mark.timeout(600)]
WEIGHTS = "adapter_model.safetensors"
MODULE = ("-m", "continual.train")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def torchrun(cwd: Path, processes: int, program: tuple[str, ...], port: int, *nodes: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
    argv += [*nodes, "--master_addr", "127.0.0.1", "--master_port", str(port), *program]
    environment = os.environ | {"PYTHONPATH": str(LAUNCH), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        argv,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str], seconds: float = 240) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        pytest.fail(f"not done within {seconds} s\n{out}\n{err}")
    return process.returncode, out, err


def run(cwd: Path, processes: int, flags: list[str]) -> tuple[int, str, str]:
    return ended(torchrun(cwd, processes, (*MODULE, *flags), free_port()))


def losses(out: str) -> list[tuple[float, float]]:
    lines = [ast.literal_eval(line) for line in out.splitlines() if line.startswith("{")]
    return [(line["loss"], line["grad_norm"]) for line in lines]


def test_losses_do_not_depend_on_the_number_of_ranks(encoder: Path, benchmark: Path, tmp_path: Path):
    """Stage 2, so that the penalty counts too. 8 = 3 + 3 + 2: the shares of three ranks are not equal."""
    code, _, err = run(tmp_path, 1, stage_flags(encoder, benchmark, tmp_path))
    assert code == 0, err
    seen, accuracy = {}, {}
    for processes, other in ((1, {}), (2, {}), (3, {"per_device_train_batch_size": 2})):
        output = tmp_path / f"2 of {processes}"
        flags = stage_flags(encoder, benchmark, tmp_path, 2, lamda_2=0.01, output_dir=output, **other)
        code, out, err = run(tmp_path, processes, flags)
        assert code == 0, err
        assert out.count("continual: host ") == processes
        assert out.count("{'loss'") == 6  # by rank 0 alone
        seen[processes] = losses(out)
        accuracy[processes] = json.loads((output / "results.json").read_text())["accuracy"]
    for processes in (2, 3):
        for one, several in zip(seen[1], seen[processes], strict=True):
            assert several == pytest.approx(one, abs=2e-3)
    assert accuracy[1] == accuracy[2] == accuracy[3]


def test_every_host_has_its_own_copy(encoder: Path, benchmark: Path, tmp_path: Path):
    """Two hosts with disks of their own: two launchers in two folders, a relative output folder."""
    hosts = [tmp_path / "a", tmp_path / "b"]
    for stage in (1, 2):
        flags = stage_flags(encoder, benchmark, Path("out"), stage, max_steps=3)
        port = free_port()
        started = []
        for number, host in enumerate(hosts):
            host.mkdir(exist_ok=True)
            nodes = ("--nnodes", "2", "--node_rank", str(number))
            started.append(torchrun(host, 2 - number, (*MODULE, *flags), port, *nodes))  # 2 and 1 ranks
        results = [ended(process) for process in started]
        assert [code for code, _, _ in results] == [0, 0], results
    states = [json.loads((host / "out" / "2" / "stage.json").read_text()) for host in hosts]
    assert {**states[0], "files": {}} == {**states[1], "files": {}}
    for name in ("1-dbpedia", "2-amazon"):
        one, two = ((host / "out" / "2" / "adapter" / name / WEIGHTS).read_bytes() for host in hosts)
        assert one == two


def test_a_host_without_the_stage_before_is_named(encoder: Path, benchmark: Path, tmp_path: Path):
    hosts = [tmp_path / "a", tmp_path / "b"]
    for host in hosts:
        host.mkdir()
    assert run(hosts[0], 1, stage_flags(encoder, benchmark, Path("out"), 1, max_steps=2))[0] == 0
    flags = stage_flags(encoder, benchmark, Path("out"), 2, max_steps=2)
    port = free_port()
    started = [
        torchrun(host, 1, (*MODULE, *flags), port, "--nnodes", "2", "--node_rank", str(number))
        for number, host in enumerate(hosts)
    ]
    results = [ended(process) for process in started]
    assert all(code != 0 for code, _, _ in results)
    said = "".join(err for _, _, err in results)
    assert said.count("continual: ") == 1
    assert (
        f"continual: rank 1 (host {socket.gethostname()}): --previous_output_dir {hosts[1] / 'out' / '1'}: no such"
        in said
    )


DISTURBED = """
import sys
from continual import trainer
from continual.train import main

step = trainer.Training._step

def disturbed(self, number, inputs, batch):
    result = step(self, number, inputs, batch)
    if self.ranks.place.rank == 1 and number == {at}:
        {disturbance}
    return result

trainer.Training._step = disturbed
sys.exit(main())
"""


POISON = "self.learner.encoder.base_model.model.embeddings.word_embeddings.weight.data.fill_(float('nan'))"


@pytest.mark.parametrize(
    ("at", "disturbance", "said"),
    [
        (1, "self.parameters[0][1].data.add_(0.1)", "trains another model than rank 0"),
        (4, POISON, "loss is nan at step 5"),
    ],
    ids=["parameters", "nan"],
)
def test_a_sick_rank_is_named_in_one_line(
    encoder: Path, benchmark: Path, tmp_path: Path, at: int, disturbance: str, said: str
):
    script = tmp_path / "disturbed.py"
    script.write_text(DISTURBED.format(at=at, disturbance=disturbance))
    flags = stage_flags(encoder, benchmark, tmp_path)
    code, _, err = ended(torchrun(tmp_path, 2, (str(script), *flags), free_port()))
    assert code != 0
    assert err.count("continual: ") == 1
    assert f"continual: health: rank 1 (host {socket.gethostname()})" in err
    assert said in err
    assert not (tmp_path / "1").exists()


def test_a_rank_that_never_comes_is_named(encoder: Path, benchmark: Path, tmp_path: Path):
    """Started by hand as rank 0 of 2: torchrun would not let it come to this."""
    environment = os.environ | {"PYTHONPATH": str(LAUNCH), "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    flags = stage_flags(encoder, benchmark, tmp_path, ddp_timeout=3)
    done = subprocess.run(
        [sys.executable, *MODULE, *flags], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    assert "rank 1 did not come within 3 s" in done.stderr or "Timed out" in done.stderr


def test_sigterm_ends_every_rank_promptly(encoder: Path, benchmark: Path, tmp_path: Path):
    flags = stage_flags(encoder, benchmark, tmp_path, max_steps=1000000)
    process = torchrun(tmp_path, 2, (*MODULE, *flags), free_port())
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{'loss'"):
                break
        asked = time.monotonic()
        process.terminate()
        process.communicate(timeout=30)
        assert time.monotonic() - asked < 10
        assert process.returncode != 0
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)  # nothing of the group is left
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert not (tmp_path / "1" / "stage.json").exists()
