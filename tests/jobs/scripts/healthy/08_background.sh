#!/bin/bash
# Two experiments side by side, each on its own cards.
for seed in 1 2; do
  gpu=$((seed - 1))
  CUDA_VISIBLE_DEVICES=$gpu nohup python main.py --seed $seed --out runs/seed$seed &
  pids[$seed]=$!
done
for pid in "${pids[@]}"; do
  wait "$pid" || exit 1
done
python collect.py runs
