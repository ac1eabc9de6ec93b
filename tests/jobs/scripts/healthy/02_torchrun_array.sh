#!/bin/bash
set -e
ARGS=(
  --model_name_or_path meta-llama/Llama-2-7b-hf   # on the hub
  # --load_in_4bit
  --bf16 True
  --output_dir "out/$(date +%F)"
  --fsdp "full_shard auto_wrap"
)
torchrun --standalone --nproc_per_node="${NPROC:-8}" train.py "${ARGS[@]}" "$@"
