"""Segmentation and autoencoders under dense class imbalance."""

__version__ = "0.1.0"
