"""Numpy only: graph, sampler, negatives, batches, node memory, schedule, metrics. No MPI, files or torch."""
