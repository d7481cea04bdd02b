"""All HDF5 files: event, batch and static stores, checkpoints, kept memory and embeddings; the only user of h5py."""
