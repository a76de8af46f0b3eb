"""Images with a mask each: folders, HDF5 files, and images without masks."""
