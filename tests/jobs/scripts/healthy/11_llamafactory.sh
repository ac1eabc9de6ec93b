#!/bin/bash
export FORCE_TORCHRUN=1 NNODES=2 NODE_RANK=${NODE_RANK:-0}
export MASTER_ADDR=192.0.2.1 MASTER_PORT=29500
llamafactory-cli train examples/llama3_lora_sft.yaml learning_rate=1e-5
