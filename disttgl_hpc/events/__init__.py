"""The event stream in memory: T-CSR, statistics, synthetic streams. NumPy and numba only."""
