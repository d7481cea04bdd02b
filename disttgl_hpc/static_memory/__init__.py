"""Pre-training of static node memory from the training events."""
