#!/bin/bash
# --ds_zero_stage: the stage of ZeRO that the program builds its config for
# --log_steps: every how many steps it prints

deepspeed \
    --hostfile hostfile.txt \
    dxm_llm_main.py \
    --data_path data/FinCorpus_tokenized \
    --model_name_or_path /data/models/Llama-2-7b-hf \
    --save_name model/model-pretrained \
    -train_mode pretrain \
    --epochs 1 \
    --per_device_train_batch_size 4 \
    --max_length 4096 \
    --ds_zero_stage 3 \
    --log_steps 2 \
    --save_steps 40 \
    --gradient_checkpointing
