#!/bin/sh
set -eu
accelerate launch --config_file configs/zero2.yaml --num_processes 4 --main_process_port 29501 \
  run_clm.py \
  --model_name_or_path gpt2 --dataset_name wikitext \
  --per_device_train_batch_size 8 --do_train --output_dir /tmp/clm
