"""What the launcher's tests launch: a few all-reduces over gloo, a line a step, a file of what the rank was given."""

import argparse
import json
import os
import socket
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

GIVEN = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "OMP_NUM_THREADS", "ODD_VALUE", "RANK", "LOCAL_RANK", "WORLD_SIZE")


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--stage", required=True)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between steps")
    parser.add_argument("--raise_on_rank", type=int, default=-1)
    options = parser.parse_args()
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank, world = dist.get_rank(), dist.get_world_size()
    for step in range(options.steps):
        total = torch.ones(1) * (rank + 1)
        dist.all_reduce(total)
        print(f"stage {options.stage} step {step} sum {total.item():.0f}", flush=True)
        if rank == options.raise_on_rank:
            raise ValueError("the label of row 17 is not in the label list")
        time.sleep(options.pause)
    given: dict[str, object] = {name: os.environ.get(name) for name in GIVEN}
    given |= {"host": socket.gethostname(), "cwd": str(Path.cwd()), "token": len(os.environ.get("HF_TOKEN", ""))}
    everyone: list[object] = [None] * world
    dist.all_gather_object(everyone, given)
    if int(os.environ["LOCAL_RANK"]) == 0:
        options.output_dir.mkdir(parents=True, exist_ok=True)
        (options.output_dir / "ranks.json").write_text(json.dumps(everyone), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # torch 2.13 now and then aborts while it is taken down, with all work done (pytorch#190489)


if __name__ == "__main__":
    main()
