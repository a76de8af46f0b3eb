"""Constructors of tasks and of pseudo-labels take few arguments; options go into dataclasses."""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass

import pytest

from dense_imb import tasks
from dense_imb.tasks.hits.pseudo_labels import FramePseudoLabels
from dense_imb.tasks.images.pseudo_labels import ImagesPseudoLabels
from dense_imb.tasks.labels.pseudo_labels import LabelsPseudoLabels

MOST = 5
CLASSES = [getattr(tasks, name) for name in tasks.__all__ if inspect.isclass(getattr(tasks, name))]
# a dataclass is a list of names and values: its fields may be many
BUILT = [
    *(one for one in CLASSES if not is_dataclass(one)),
    FramePseudoLabels,
    ImagesPseudoLabels,
    LabelsPseudoLabels,
]


def arguments_of(built: type) -> list[str]:
    return list(inspect.signature(built).parameters)


@pytest.mark.parametrize("built", BUILT, ids=lambda built: built.__name__)
def test_at_most_five_arguments(built):
    assert len(arguments_of(built)) <= MOST, arguments_of(built)


def test_the_tasks_are_among_them():
    names = {one.__name__ for one in BUILT}
    assert names >= {"FramesTask", "ImagesTask", "LabelsTask", "SemiSupervised", "TrainedNetwork"}


def test_a_sixth_argument_is_seen():
    class Six:
        def __init__(self, a, b, c, d, e, f):
            pass

    assert len(arguments_of(Six)) > MOST
