"""Distributed training of memory-based temporal graph neural networks under MPI (DistTGL, SC'23)."""

__version__ = "0.1.0"
