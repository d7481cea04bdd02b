"""MPI: grid, shared windows, memory daemon and its clients. With cli the only user of mpi4py."""
