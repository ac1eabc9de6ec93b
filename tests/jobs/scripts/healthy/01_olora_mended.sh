#!/usr/bin/env bash
set -euo pipefail
# One stage after the other; a stage that fails stops the script.
ROOT=logs_and_outputs/order_1
mkdir -p "$ROOT/logs" "$ROOT/outputs"
model=initial_model/t5-large
k=1
for task in dbpedia amazon yahoo agnews; do
  out="$ROOT/outputs/${k}-${task}"
  deepspeed --master_port 29511 src/run_uie_lora.py \
    --do_train \
    --model_name_or_path "$model" \
    --task_config_dir "configs/order1_configs/$task" \
    --output_dir "$out" \
    --learning_rate 1e-03 --lr_scheduler_type constant \
    2>&1 | tee "$ROOT/logs/$k.log"
  model="$out/adapter"
  k=$((k + 1))
done
# What all four tasks have come to: predicted once, with the last stage's adapter.
deepspeed --master_port 29511 src/run_uie_lora.py \
  --do_predict --predict_with_generate \
  --model_name_or_path "$model" \
  --task_config_dir configs/order1_configs/agnews \
  --output_dir "$ROOT/outputs/predicted" \
  2>&1 | tee "$ROOT/logs/predicted.log"
