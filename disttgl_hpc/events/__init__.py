"""Event streams in memory: T-CSR, statistics, synthetic streams. NumPy and numba only."""
