"""torchrun of the stand-in: as many ranks as were asked for, each with its number."""

from __future__ import annotations

import os
import subprocess
import sys

from torch import WISHES

words = sys.argv[1:]
given = {name: words[words.index(f"--{name}") + 1] for name in ("nproc_per_node", "node_rank", "master_port", "nnodes")}
if given["master_port"] in WISHES.get("taken", []):
    sys.exit(
        "DistNetworkError: port: 29500, useIpv6: false, code: -98, name: EADDRINUSE, message: address already in use"
    )
program = words[words.index("--no_python") + 1 :]
local = int(given["nproc_per_node"])  # all hosts have as many
numbers = [(n, int(given["node_rank"]) * local + n) for n in range(local)]
world = {"WORLD_SIZE": str(local * int(given["nnodes"]))}
ranks = [
    subprocess.Popen(program, env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(n)})
    for n, rank in numbers
]
sys.exit(max(abs(rank.wait()) for rank in ranks))
