#!/bin/bash
set -Eeuo pipefail
trap 'echo "failed in line $LINENO" >&2' ERR

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
run() {
  local name=$1; shift
  local log="logs/${name}.log"
  mkdir -p logs
  echo "== $name"
  CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc_per_node 2 "$here/train.py" --run_name "$name" "$@" > "$log" 2>&1
}
run base --lr 1e-4
run wide --lr 5e-5 --width 1024
