"""Data sets on disk: images with masks, and hits files made from other formats."""
