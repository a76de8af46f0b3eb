"""Comparison of losses on the user's own data: the same network, steps and seeds for each."""

from dense_imb.compare.contestants import Contestant, contestants, parse_contestant
from dense_imb.compare.page import write_page
from dense_imb.compare.run import compare
from dense_imb.compare.table import ComparisonTable

__all__ = [
    "ComparisonTable",
    "Contestant",
    "compare",
    "contestants",
    "parse_contestant",
    "write_page",
]
