"""The ground floor: checks, files, safe HDF5 and random numbers, which every room may use."""
