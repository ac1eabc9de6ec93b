"""What the fault matrix launches: a small model learnt step by step over gloo, the same to the last digit every time.

A stage begins with the weights of the stage before it and writes its own; nothing in it depends on the time or on
chance, so a run that was broken off and resumed must end with the very numbers of one that was not.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

RAISE = Path("/run/raise")  # made by a test: the ranks of this host raise at their next step
FORK = Path("/run/fork")  # the same: they start a process that leaves their session and outlives them
ORPHAN = [sys.executable, "-c", "import os, time; os.setsid(); time.sleep(600)", "left-behind"]


def before(folder: str) -> torch.Tensor:
    """The weights to begin with: those of the stage before, which lie where rank 0 runs."""
    weights = torch.zeros(16, dtype=torch.float64)
    if dist.get_rank() == 0 and folder:
        weights = torch.tensor(json.loads((Path(folder) / "weights.json").read_text(encoding="utf-8"))["weights"])
        weights = weights.to(torch.float64)
    dist.broadcast(weights, src=0)
    return weights


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--previous_output_dir", default="")
    parser.add_argument("--stage", required=True)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between steps")
    options = parser.parse_args()
    dist.init_process_group("gloo", timeout=timedelta(seconds=300))
    rank, world = dist.get_rank(), dist.get_world_size()
    weights = before(options.previous_output_dir)
    for step in range(options.steps):
        own = torch.cos(torch.arange(16, dtype=torch.float64) * (step + 1) + rank + len(options.stage))
        gradient = weights - own
        dist.all_reduce(gradient)
        weights -= 0.1 * gradient / world
        loss = float((gradient / world).square().sum())
        print(f"{{'loss': {loss:.6f}, 'learning_rate': 0.1, 'step': {step}}} stage {options.stage}", flush=True)
        if RAISE.exists():
            raise ValueError("the label of row 17 is not in the label list")
        if FORK.exists():
            FORK.unlink(missing_ok=True)
            subprocess.Popen(ORPHAN)
        time.sleep(options.pause)
    if int(os.environ["LOCAL_RANK"]) == 0:
        options.output_dir.mkdir(parents=True, exist_ok=True)
        (options.output_dir / "filling.bin").write_bytes(b"\1" * 4_000_000)
        (options.output_dir / "weights.json").write_text(json.dumps({"weights": weights.tolist()}), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # torch 2.13 now and then aborts while it is taken down, with all work done (pytorch#190489)


if __name__ == "__main__":
    main()
