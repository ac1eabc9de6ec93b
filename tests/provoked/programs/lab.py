"""The little training that the failures befall: a model, batches, a data-parallel loop on the CPU."""

import datetime

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

group = None  # the ranks that the training runs on: all of them


def start(seconds=60, patience=None):
    """Join the process group; the rank of this process.

    Collectives of the training wait `patience` seconds, once all ranks have come together within `seconds`.
    """
    global group
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=seconds))
    if patience is not None:
        group = dist.new_group(timeout=datetime.timedelta(seconds=patience))
    return dist.get_rank()


def model(width=32):
    """The same weights on every rank."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))


def batches(count, size=8):
    """Batches as a loader gives them: a dictionary of tensors."""
    chance = torch.Generator().manual_seed(1)
    for _ in range(count):
        inputs = torch.randn(size, 16, generator=chance)
        yield {"inputs": inputs, "labels": inputs.sum(1, keepdim=True)}


def train(prepare=lambda step, batch: None, steps=100_000):
    """Train data-parallel; `prepare` is given every batch first."""
    net = DistributedDataParallel(model(), process_group=group)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for step, batch in enumerate(batches(steps)):
        prepare(step, batch)
        loss = torch.nn.functional.mse_loss(net(batch["inputs"]), batch["labels"])
        if step % 5 == 0 and step < 20 and dist.get_rank() == 0:
            print(f"step {step} loss {loss.item():.4f} lr 0.05", flush=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net
