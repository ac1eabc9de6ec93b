#!/bin/bash
set -x
export CUDA_VISIBLE_DEVICES=3
port=$(shuf -i25000-30000 -n1)
deepspeed --include localhost:0 --hostfile hostfiles/lab --master_port $port src/run_N_lora.py \
   --do_train --model_name_or_path initial_model/t5-large --output_dir logs_and_outputs/order_1/outputs/1-dbpedia \
   --per_device_train_batch_size 48 --learning_rate 1e-03 --num_train_epochs 10 --lamda_1 0.4
deepspeed --master_port $port src/run_N_lora.py --do_train \
   --model_name_or_path logs_and_outputs/order_1/outputs/1-dbpedia/adapter \
   --output_dir logs_and_outputs/order_1/outputs/2-amazon --learning_rate 1e-03 > logs_and_outputs/order_1/logs/2.log 2>&1
deepspeed --include localhost:0 --master_port $port src/run_N_lora.py --do_predict
