#!/bin/bash
if ! torchrun --nproc_per_node 2 train.py --stage 1; then
  echo "stage 1 failed"; exit 1
fi
torchrun --nproc_per_node 2 train.py --stage 2 || { echo "stage 2 failed"; exit 1; }
while [ ! -f out/done ]; do sleep 10; done
(cd eval && python run.py --all)
