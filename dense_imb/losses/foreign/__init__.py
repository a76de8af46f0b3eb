"""Losses by name, sums of losses, and losses of other libraries."""
