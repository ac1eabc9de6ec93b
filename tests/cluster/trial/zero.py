"""A few steps of a real DeepSpeed engine on CPU: what `engine: deepspeed` is for."""

import argparse
import json
import os
from pathlib import Path

import deepspeed
import torch


def main() -> None:
    """Train a line of weights with ZeRO; rank 0 writes the losses down."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--local_rank", type=int, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--deepspeed", type=Path, required=True)
    options = parser.parse_args()
    deepspeed.init_distributed("gloo")
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 1)
    config = json.loads(options.deepspeed.read_text(encoding="utf-8"))
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
    inputs = torch.ones(4, 8) * (1 + torch.distributed.get_rank())
    losses = []
    for step in range(5):
        loss = engine(inputs).pow(2).mean()
        engine.backward(loss)
        engine.step()
        losses.append(loss.item())
        print(f"step {step} loss {loss.item():.6f}", flush=True)
    if torch.distributed.get_rank() == 0:
        options.output_dir.mkdir(parents=True, exist_ok=True)
        (options.output_dir / "losses.json").write_text(json.dumps(losses), encoding="utf-8")
    torch.distributed.barrier()
    os._exit(0)  # torch 2.13 now and then aborts while it is taken down (pytorch#190489)


if __name__ == "__main__":
    main()
