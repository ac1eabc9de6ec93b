#!/bin/bash
set -e
mode="${1:-train}"
case "$mode" in
  train)
    deepspeed --num_gpus 4 train.py --deepspeed --deepspeed_config ds.json
    ;;
  eval)
    python eval.py --ckpt latest
    ;;
  *)
    echo "usage: $0 train|eval" >&2
    exit 2
    ;;
esac
if [[ -n "${UPLOAD:-}" ]]; then
  rsync -a --exclude '/checkpoints' --exclude='*.tmp' out/ store:/results/
fi
