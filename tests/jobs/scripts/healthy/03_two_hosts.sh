#!/bin/bash
# usage: two_hosts.sh NODE_RANK
: "${1:?node rank}"
export NCCL_SOCKET_IFNAME=eno1
MASTER=${MASTER_ADDR:-192.0.2.1}
exec torchrun \
  --nnodes=2 --node_rank="$1" --nproc_per_node=4 \
  --rdzv_backend=c10d --rdzv_endpoint="$MASTER:29500" --rdzv_id=job42 \
  -m pkg.train -c configs/base.yaml --lr 3e-4 --seed -1
