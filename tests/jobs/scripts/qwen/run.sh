torchrun --nnodes 1 --nproc_per_node 2 finetune_lora_ner_deepspeed.py --deepspeed ds_config_zero3.json
