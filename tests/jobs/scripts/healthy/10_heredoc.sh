#!/bin/bash
set -euo pipefail
cat > ds.json <<'JSON'
{
  "zero_optimization": {"stage": 2},   
  "train_batch_size": "auto"
}
JSON
cat <<EOF > hostfile
gpu-a slots=4
gpu-b slots=4
EOF
# --a comment with a backslash \
deepspeed --hostfile hostfile --exclude gpu-b:3 train.py --note 'ends in \ ' --msg "it's # not a comment"
