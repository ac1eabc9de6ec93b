"""The shape of the original's program, written anew for the tests: its settings are built in code."""

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

model = get_peft_model(AutoModelForCausalLM.from_pretrained("qwen/Qwen2.5-1.5B"), LoraConfig(r=8))
args = TrainingArguments(
    output_dir="output/ner",
    per_device_train_batch_size=8,
    gradient_accumulation_steps=2,
    learning_rate=1e-4,
    bf16=torch.cuda.is_bf16_supported(),
    report_to="none",
)
Trainer(model=model, args=args, train_dataset=Dataset.from_dict({})).train()
