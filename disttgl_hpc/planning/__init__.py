"""Before a run: information loss of large batches, choice of a grid, prediction of scaling."""
