"""Tiny tasks that learn from samples without labels as well."""

from __future__ import annotations

from typing import Any

from dense_imb.data.events.virtual import VirtualEvents
from dense_imb.hits import Degradation, HitsFile
from dense_imb.tasks.build import build_denoiser, labelled_events
from dense_imb.tasks.hits.pseudo_labels import UnlabelledHits
from dense_imb.tasks.labels.pseudo_labels import UnlabelledClassImages
from dense_imb.tasks.labels.recipe import build_classifier, labelled_images, open_classified
from dense_imb.tasks.mean_teacher import SemiSupervised
from tests.runs.labelled_pictures import of_table
from tests.runs.tiny import tiny

SHARE = 0.4


def semi_classes(folder: str, *, feature_loss: str | None = None, **options: Any) -> SemiSupervised:
    """The labels of 0.4 of `write_tables`, whose teacher is sure early."""
    config = of_table(folder, labelled_share=SHARE, feature_loss=feature_loss)
    task = build_classifier(config)
    _, rest = labelled_images(open_classified(config)[0], SHARE)
    assert rest is not None
    wanted = {"threshold": 0.4, "ramp_steps": 4, **options}
    return SemiSupervised(task, UnlabelledClassImages(task, rest), **wanted)


def semi_hits(path: str, **options: Any) -> SemiSupervised:
    """The labels of 0.4 of a file of `clean_events`."""
    task = build_denoiser(tiny(path, labelled_share=SHARE))
    n = round(len(task.train) / SHARE)
    degradation = Degradation(signal=6, noise=20)
    _, rest = labelled_events(VirtualEvents(HitsFile(path), degradation, 0, count=n), SHARE)
    assert rest is not None
    wanted = {"threshold": 0.6, "ramp_steps": 4, **options}
    return SemiSupervised(task, UnlabelledHits(task, rest), **wanted)
