"""What the worked examples in the docstrings may use without importing it."""

import pytest
import torch

import dense_imb.losses
from dense_imb.statistics import ClassStatistics


@pytest.fixture(autouse=True)
def _names_of_examples(doctest_namespace):
    doctest_namespace["torch"] = torch
    doctest_namespace["ClassStatistics"] = ClassStatistics
    for name in dense_imb.losses.__all__:
        doctest_namespace[name] = getattr(dense_imb.losses, name)
