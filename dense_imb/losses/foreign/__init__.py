"""Losses from text, sums of losses, and losses of other libraries."""
