"""Every HDF5 file: event, batch and static stores, checkpoint parts, embeddings. The only user of h5py."""
