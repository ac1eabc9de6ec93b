#!/bin/bash
# one call on each host; NODE_RANK is the host's number
export FORCE_TORCHRUN=1
export NNODES=2
export MASTER_ADDR=192.0.2.7
NODE_RANK=$1 llamafactory-cli train qwen_full_sft.yaml
