"""The shape of the original's program: its argument classes, its trainer's override. Written anew for the tests."""

from dataclasses import dataclass, field

from transformers import HfArgumentParser, Seq2SeqTrainer, Seq2SeqTrainingArguments


@dataclass
class ModelArguments:
    model_name_or_path: str = field(default=None)
    lora_dim: int = field(default=8)


@dataclass
class DataArguments:
    data_dir: str = field(default=None)
    task_config_dir: str = field(default=None)
    instruction_file: str = field(default=None)
    instruction_strategy: str = field(default="single")
    max_source_length: int = field(default=512)
    max_target_length: int = field(default=50)
    add_task_name: bool = field(default=False)
    add_dataset_name: bool = field(default=False)
    overwrite_cache: bool = field(default=False)


@dataclass
class LearningArguments(Seq2SeqTrainingArguments):
    lamda_1: float = field(default=0.5)
    lamda_2: float = field(default=0)


class Learner(Seq2SeqTrainer):
    def training_step(self, model, inputs):
        model.train()
        loss = self.compute_loss(model, self._prepare_inputs(inputs))
        if self.deepspeed:
            loss = self.deepspeed.backward(loss)
        else:
            loss.backward()
        return loss.detach()


def main():
    parser = HfArgumentParser((ModelArguments, DataArguments, LearningArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    print(model_args, data_args, training_args)


if __name__ == "__main__":
    main()
