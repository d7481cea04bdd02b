"""Before a run: what a batch size hides, which grid to take, how far it scales. Arithmetic, no MPI, no files."""
