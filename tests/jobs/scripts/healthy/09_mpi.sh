#!/bin/bash
set -e
mpirun -np 16 --hostfile hosts.txt -x NCCL_DEBUG=WARN -x PATH \
    --bind-to none --mca pml ob1 --mca btl ^openib \
    python train.py --epochs 90 -b 64 --wd 5e-5
