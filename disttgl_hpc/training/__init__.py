"""A training run: the loop, the trainer, sweep ends, run directory, checkpoints, resume."""
