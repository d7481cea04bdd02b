"""HDF5 files: event stores and checkpoints. The only user of h5py."""
