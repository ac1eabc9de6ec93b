"""A training of a few all-reduces over gloo whose ranks print their steps, and in the middle do as they are told."""

import argparse
import os
import socket
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

MIDDLE = 30


def wait_for_the_data() -> None:
    """What rank 1 does instead of its step."""
    time.sleep(600)


def evaluate(seconds: float) -> None:
    """Compute on every rank, without a word."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        torch.ones(200, 200) @ torch.ones(200, 200)


def save_checkpoint(folder: Path, seconds: float) -> None:
    """Write for a while; rank 0 alone, the others wait for it."""
    if dist.get_rank() == 0:
        end = time.monotonic() + seconds
        with (folder / "checkpoint.bin").open("wb") as file:
            while time.monotonic() < end:
                file.seek(0)
                file.write(bytes(4 << 20))
                file.flush()
                time.sleep(0.05)
    dist.barrier()


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--behaviour", default="healthy")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=12.0)
    options = parser.parse_args()
    dist.init_process_group("gloo", timeout=timedelta(minutes=10))
    rank, behaviour = dist.get_rank(), options.behaviour
    options.output_dir.mkdir(parents=True, exist_ok=True)
    for step in range(1, options.steps + 1):
        if step == MIDDLE:
            if behaviour == "sleep" and rank == 1:
                wait_for_the_data()
            if behaviour == "evaluation":
                evaluate(options.seconds)
            if behaviour == "checkpoint":
                save_checkpoint(options.output_dir, options.seconds)
        loss = torch.tensor([float("nan") if behaviour == "nan" and step > MIDDLE else 5.0 / step])
        dist.all_reduce(loss)
        rate = 0.0 if behaviour == "lr0" else 1e-4
        print(f"step {step}/{options.steps} loss {loss.item():.6f} lr {rate} on {socket.gethostname()}", flush=True)
        time.sleep(0.05)
    if int(os.environ["LOCAL_RANK"]) == 0:
        (options.output_dir / "done.txt").write_text("done", encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # as in trial.py


if __name__ == "__main__":
    main()
