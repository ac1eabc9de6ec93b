#!/usr/bin/env bash
set -x -e
export WANDB_MODE=offline
PORT=$(python - <<'PY'
import socket
with socket.socket() as s:
    s.bind(("", 0))
    print(s.getsockname()[1])
PY
)
deepspeed --include localhost:0,1 --master_port "$PORT" \
  train_sft.py \
  --data_path Dahoas/rm-static --data_split 2,4,4 \
  --zero_stage 2 --output_dir ./out |& tee ./training.log
