"""Shell scripts that start training, read and never run: which calls they make, with which words and variables."""
