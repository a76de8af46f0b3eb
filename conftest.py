"""What the worked examples in the docstrings may use without importing it."""

import importlib.util

import pytest
import torch

import dense_imb.curves
import dense_imb.losses
import dense_imb.metrics
from dense_imb.statistics import ClassStatistics

# the one room that another library's absence keeps from being imported: its tests say so and skip
if importlib.util.find_spec("ignite") is None:
    collect_ignore_glob = ["dense_imb/integrations/monai/*"]


@pytest.fixture(autouse=True)
def _names_of_examples(doctest_namespace):
    doctest_namespace["torch"] = torch
    doctest_namespace["ClassStatistics"] = ClassStatistics
    for room in (dense_imb.losses, dense_imb.curves, dense_imb.metrics):
        for name in room.__all__:
            doctest_namespace[name] = getattr(room, name)
