"""The shape of the original's program, written anew for the tests."""

import argparse

import deepspeed
import torch


def main():
    parser = argparse.ArgumentParser()
    for name in ("data_path", "model_name_or_path", "save_name", "train_mode"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--epochs", type=int)
    args = parser.parse_args()
    if torch.cuda.is_available():
        torch.cuda.set_device(0)
        deepspeed.init_distributed()
    print(args)


main()
