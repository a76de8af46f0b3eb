"""Tiny tasks that learn from samples without labels as well."""

from __future__ import annotations

from typing import Any

from dense_imb.data.events.virtual import VirtualEvents
from dense_imb.hits import Degradation, HitsFile
from dense_imb.tasks.hits.pseudo_labels import FramePseudoLabels
from dense_imb.tasks.hits.recipe import split_labelled_events
from dense_imb.tasks.labels.pseudo_labels import LabelsPseudoLabels
from dense_imb.tasks.labels.recipe import open_classified, split_labelled
from dense_imb.tasks.mean_teacher import SemiSupervised, TeacherOptions
from dense_imb.tasks.recipe import build_task
from tests.runs.labelled_pictures import of_table
from tests.runs.tiny import tiny

SHARE = 0.4


def semi_classes(folder: str, *, feature_loss: str | None = None, **options: Any) -> SemiSupervised:
    """The labels of 0.4 of `write_tables`, whose teacher is sure early."""
    config = of_table(folder, labelled_share=SHARE, feature_loss=feature_loss)
    task = build_task(config)
    _, rest = split_labelled(open_classified(config.labels)[0], SHARE)
    assert rest is not None
    wanted = {"threshold": 0.4, "ramp_steps": 4, **options}
    return SemiSupervised(task, LabelsPseudoLabels(task, rest), TeacherOptions(**wanted))


def semi_hits(path: str, **options: Any) -> SemiSupervised:
    """The labels of 0.4 of a file of `clean_events`."""
    task = build_task(tiny(path, labelled_share=SHARE))
    n = round(len(task.train) / SHARE)
    degradation = Degradation(signal=6, noise=20)
    _, rest = split_labelled_events(VirtualEvents(HitsFile(path), degradation, 0, count=n), SHARE)
    assert rest is not None
    wanted = {"threshold": 0.6, "ramp_steps": 4, **options}
    return SemiSupervised(task, FramePseudoLabels(task, rest), TeacherOptions(**wanted))
