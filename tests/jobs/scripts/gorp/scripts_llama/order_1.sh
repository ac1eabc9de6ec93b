#!/bin/bash
# bash scripts_llama/order_1.sh OUT RANK LR TARGETS "localhost:0,1" GALORE_LR
#                               $1  $2   $3 $4      $5            $6
set -x
export CUDA_DEVICE_ORDER="PCI_BUS_ID"
export NCCL_P2P_DISABLE=1
export NCCL_IB_DISABLE=1

port=$(shuf -i25000-30000 -n1)

deepspeed --include $5 --master_port $port src/run_uie_lora.py \
   --do_train \
   --do_predict \
   --predict_with_generate \
   --model_name_or_path initial_model/llama \
   --data_dir CL_Benchmark \
   --task_config_dir configs/order1_configs/dbpedia \
   --instruction_file configs/instruction_config.json \
   --output_dir logs_and_outputs_llama/order_1/$1/1-dbpedia \
   --per_device_train_batch_size 1 \
   --per_device_eval_batch_size 4 \
   --gradient_accumulation_steps 8 \
   --learning_rate $3 \
   --num_train_epochs 1 \
   --deepspeed configs/ds_configs/stage2_llama.config \
   --run_name order1_round1 \
   --overwrite_output_dir \
   --lr_scheduler_type constant \
   --warmup_steps 0 \
   --evaluation_strategy no \
   --save_strategy no \
   --lora_modules ".*self_attn.(q_proj|v_proj).*" \
   --optim_target_modules $4 \  //says that the projection is on
   --proj_lora_modules ".*self_attn.(q_proj|v_proj).loranew_A.*" \
   --galore_rank $2 \  
   --galore_scale 0.25 \
   --galore_lr $6 \
   --gradient_checkpointing True

sleep 5

deepspeed --include $5 --master_port $port src/run_uie_lora.py \
   --do_train \
   --do_predict \
   --predict_with_generate \
   --model_name_or_path logs_and_outputs_llama/order_1/$1/1-dbpedia/adapter \
   --data_dir CL_Benchmark \
   --task_config_dir configs/order1_configs/amazon \
   --instruction_file configs/instruction_config.json \
   --output_dir logs_and_outputs_llama/order_1/$1/2-amazon \
   --per_device_train_batch_size 1 \
   --gradient_accumulation_steps 8 \
   --learning_rate $3 \
   --deepspeed configs/ds_configs/stage2_llama.config \
   --run_name order1_round2 \
   --lr_scheduler_type constant \
   --warmup_steps 0 \
   --save_strategy no \
   --optim_target_modules $4 \
   --galore_rank $2 \
   --galore_lr $6 \
   --gradient_checkpointing True
