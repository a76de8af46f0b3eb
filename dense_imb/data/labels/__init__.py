"""Whole images with one label each: CSV tables, CIFAR archives, long tails."""
