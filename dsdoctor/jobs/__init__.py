"""Job files, DeepSpeed configs and what follows from them; pure."""
