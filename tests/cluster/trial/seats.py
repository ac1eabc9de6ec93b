"""What an engine gives its ranks: each writes it down, says so, and with --meet they all meet once over gloo."""

import argparse
import json
import os
import signal
import sys
from pathlib import Path

GIVEN = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"),
    *("NNODES", "NPROC_PER_NODE", "CUDA_VISIBLE_DEVICES", "CROSS_RANK", "LOCAL_SIZE"),
)


def main() -> None:
    """Run one rank. Arguments that an engine adds are written down, too."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--meet", choices=["true", "false"], default="false")
    parser.add_argument("--fail_rank", default="")
    parser.add_argument("--how", choices=["exit", "kill", "raise"], default="exit")
    options, others = parser.parse_known_args()
    rank = os.environ.get("RANK", "alone")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    given = {name: os.environ[name] for name in GIVEN if name in os.environ}
    (options.output_dir / f"rank{rank}.json").write_text(json.dumps({**given, "others": others}), encoding="utf-8")
    os.write(1, f"rank {rank} is seated\n".encode())
    if options.meet == "true":
        meet()
    if rank == options.fail_rank:
        fail(options.how)
    os.write(2, f"rank {rank} rises".encode())  # without an end of its line
    if options.fail_rank:
        signal.pause()
    sys.stdout.flush()
    os._exit(0)  # torch 2.13 now and then aborts while it is taken down (pytorch#190489)


def meet() -> None:
    """Sum the ranks' numbers over all of them."""
    from datetime import timedelta

    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    total = torch.tensor(float(dist.get_rank()))
    dist.all_reduce(total)
    os.write(1, f"sum {total.item():.0f} over {dist.get_world_size()}\n".encode())
    dist.barrier()


def fail(how: str) -> None:
    """End this rank."""
    if how == "raise":
        raise ValueError("the label of row 17 is not in the label list")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(7)


if __name__ == "__main__":
    main()
