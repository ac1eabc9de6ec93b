"""A log of a large job, 64 ranks on eight hosts, healthy until one of them fails at its end."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

RANKS, SLOTS = 64, 8
_CHUNK = 1 << 24  # bytes written at once

# What a rank that lost its peers prints, and what the one that began it printed before.
_FAILURE = (
    (37, "Traceback (most recent call last):"),
    (37, '  File "/work/code/train.py", line 212, in <module>'),
    (37, "    trainer.train()"),
    (37, '  File "/work/code/train.py", line 118, in step'),
    (37, "    loss = model(**batch).loss"),
    (
        37,
        "torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.16 GiB (GPU 5; 39.39 GiB total capacity; "
        "36.52 GiB already allocated; 1.05 GiB free; 36.80 GiB reserved in total by PyTorch)",
    ),
    *(
        (
            rank,
            f"[E ProcessGroupNCCL.cpp:474] [Rank {rank}] Watchdog caught collective operation timeout: "
            "WorkNCCL(SeqNum=90871, OpType=ALLREDUCE, NumelIn=12582912, NumelOut=12582912, "
            "Timeout(ms)=1800000) ran for 1800703 milliseconds before timing out.",
        )
        for rank in range(RANKS)
        if rank != 37
    ),
)


def _prefix(rank: int) -> str:
    return f"gpu{rank // SLOTS:02d}:{rank}| "


def _kinds(chance: random.Random) -> list[tuple[int, Callable[[int, int], str]]]:
    """The lines of a training and how often each comes."""

    def uniform(low: float, high: float) -> float:
        return chance.uniform(low, high)

    return [
        (30, lambda rank, step: (
            f"{{'loss': {uniform(0.4, 2.5):.4f}, 'grad_norm': {uniform(0.2, 3):.6f}, "
            f"'learning_rate': {uniform(1e-6, 2e-4):.6g}, 'epoch': {step / 4096:.2f}}}"
        )),
        (25, lambda rank, step: (
            f"[2026-04-09 {step // 3600 % 24:02d}:{step // 60 % 60:02d}:{step % 60:02d},{chance.randrange(1000):03d}] "
            f"[INFO] [logging.py:107:log_dist] [Rank {rank}] step={step}, skipped=0, "
            f"lr=[{uniform(1e-6, 2e-4)}], mom=[(0.9, 0.999)]"
        )),
        (20, lambda rank, step: (
            f"{step % 100:3d}%|{'█' * (step % 10)}{' ' * (10 - step % 10)}| {step}/409600 "
            f"[{step // 3600:02d}:{step // 60 % 60:02d}:{step % 60:02d}<{chance.randrange(24):02d}:12:44,  "
            f"{uniform(1, 3):.2f}s/it]"
        )),
        (15, lambda rank, step: (
            f"INFO:__main__:rank {rank} step {step} tokens {chance.randrange(4096)} "
            f"forward {uniform(80, 120):.1f} ms backward {uniform(180, 240):.1f} ms comm {uniform(10, 30):.1f} ms"
        )),
        (7, lambda rank, step: (
            f"gpu{rank // SLOTS:02d}:{4000 + rank}:{5000 + rank} [{rank % SLOTS}] NCCL INFO Channel "
            f"{step % 32:02d}/0 : {rank}[{rank % SLOTS}] -> "
            f"{(rank + 1) % RANKS}[{(rank + 1) % SLOTS}] via P2P/CUMEM/read"
        )),
        (3, lambda rank, step: f"[Rank {rank}] saved checkpoint-{step} to /data/out/checkpoint-{step} (4.2 GB)"),
    ]  # fmt: skip


def write(path: Path, size: int, seed: int = 7) -> None:
    """Write a merged log of about `size` bytes. Blocks of lines repeat; that changes nothing for a search."""
    chance = random.Random(seed)
    kinds = _kinds(chance)
    makers = [make for weight, make in kinds for _ in range(weight)]
    with path.open("wb") as file:
        written, step = 0, 0
        distinct: list[bytes] = []
        while written < size:
            if len(distinct) < 4:
                lines = []
                length = 0
                while length < _CHUNK:
                    step += 1
                    rank = chance.randrange(RANKS)
                    line = _prefix(rank) + chance.choice(makers)(rank, step // RANKS)
                    lines.append(line)
                    length += len(line) + 1
                distinct.append(("\n".join(lines) + "\n").encode())
            written += file.write(distinct[(written // _CHUNK) % len(distinct)])
        file.write(("\n".join(_prefix(rank) + text for rank, text in _FAILURE) + "\n").encode())


if __name__ == "__main__":  # in a process of its own, so that the benchmark that wants the log stays small
    write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
