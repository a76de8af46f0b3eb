"""What the worked examples in the docstrings may use without importing it."""

from importlib.util import find_spec

import pytest
import torch

import dense_imb.curves
import dense_imb.losses
import dense_imb.metrics
from dense_imb.statistics import ClassStatistics

# imports Lightning, which is no part of the tests' packages
collect_ignore = [] if find_spec("lightning") else ["dense_imb/integrations/lightning.py"]


@pytest.fixture(autouse=True)
def _names_of_examples(doctest_namespace):
    doctest_namespace["torch"] = torch
    doctest_namespace["ClassStatistics"] = ClassStatistics
    for room in (dense_imb.losses, dense_imb.curves, dense_imb.metrics):
        for name in room.__all__:
            doctest_namespace[name] = getattr(room, name)
