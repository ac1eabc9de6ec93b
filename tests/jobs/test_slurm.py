"""What #SBATCH lines ask for, in all the ways in which it may be written; and how many ranks a call wants."""

from __future__ import annotations

import pytest

from dsdoctor.jobs.script.ranks import ranks_of, shape_of
from dsdoctor.jobs.script.slurm import request_of
from tests.jobs.reading import read


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ("--nodes=2 --gres=gpu:4 --time=12:00:00", (2, 4, 43200)),
        ("-N 2 --gpus-per-node a100:8 -t 90", (2, 8, 5400)),
        ("-N2 -G 16 -t2-12", (2, 8, 216000)),
        ("--nodes 4-4 --gres shard:2,gpu:v100:3(S:0-1) --time 1-2:30", (4, 3, 95400)),
        ("--nodes=1-4 --gres=gpu --time=10:30", (None, 1, 630)),
        ("--gpus=3 --nodes=2 --time=UNLIMITED", (2, None, None)),
        ("--time=2-01:02:03", (None, None, 176523)),
        ("--nodes --time", (None, None, None)),
        ("--nodes=0 --gres=gpu:0", (None, None, None)),
        ("", (None, None, None)),
    ],
)
def test_what_is_asked_for(lines: str, wanted: tuple[int | None, int | None, int | None]) -> None:
    request = request_of(read(f"#!/bin/bash\n#SBATCH {lines}\npython t.py\n").directives)
    assert (request.nodes, request.gpus, request.seconds) == wanted
    assert set(request.lines.values()) <= {2}


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        ("torchrun t.py", (1, 1)),
        ("torchrun --nnodes 2 --nproc-per-node=4 t.py", (2, 4)),
        ("torchrun --nnodes 1:4 --nproc_per_node gpu t.py", (None, None)),
        ("torchrun --nnodes $N --nproc_per_node 4 t.py", (None, 4)),
        ("deepspeed t.py", (1, None)),
        ("deepspeed --num_gpus=2 t.py", (1, 2)),
        ("deepspeed --hostfile h --num_gpus 2 t.py", (None, 2)),
        ("deepspeed --include localhost:0,1,3 t.py", (1, 3)),
        ("deepspeed -H h -i a:0,1@b:2,3 t.py", (2, 2)),
        ("deepspeed -H h -i a:0@b:2,3 t.py", (2, None)),
        ("deepspeed -H h --include a@b:1 t.py", (None, None)),
        ("accelerate launch --num_machines 2 --num_processes 8 t.py", (2, 4)),
        ("accelerate launch --num_machines 2 --num_processes 7 t.py", (None, None)),
        ("accelerate launch t.py", (None, None)),
        ("python t.py", (None, None)),
    ],
)
def test_how_many_ranks_a_call_wants(call: str, wanted: tuple[int | None, int | None]) -> None:
    (found,) = read(call).calls
    assert shape_of(found) == wanted
    assert ranks_of(found) == (wanted[0] * wanted[1] if wanted[0] and wanted[1] else None)


def test_accelerates_config_counts_where_the_words_do_not() -> None:
    (call,) = read("accelerate launch --config_file acc.yaml t.py").calls
    assert shape_of(call, {"num_processes": 8, "num_machines": 2}) == (2, 4)
    assert shape_of(call, {"num_processes": "8"}) == (None, None)
