#!/bin/bash
GPUS_PER_NODE=8
NNODES=1
WORLD_SIZE=$(($GPUS_PER_NODE*$NNODES))
CHECKPOINT_PATH=$1
DISTRIBUTED_ARGS="
    --nproc_per_node $GPUS_PER_NODE \
    --nnodes $NNODES \
    --master_addr localhost \
    --master_port 6000
"
GPT_ARGS="
    --num-layers 24 \
    --hidden-size 1024 \
    --micro-batch-size 8 \
    --global-batch-size $((WORLD_SIZE * 8)) \
    --lr 0.00015 \
    --fp16
"
torchrun $DISTRIBUTED_ARGS pretrain_gpt.py \
    $GPT_ARGS \
    --save $CHECKPOINT_PATH \
    --load $CHECKPOINT_PATH
