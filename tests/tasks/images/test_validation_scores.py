"""Validation scores of images are means over the foreground classes."""

from __future__ import annotations

import torch

from dense_imb.metrics import SegmentationScores
from dense_imb.tasks.images.task import validation_scores


def test_the_background_is_no_part_of_the_means():
    scores = SegmentationScores(3)
    logits = torch.randn(1, 3, 200, generator=torch.Generator().manual_seed(0))
    label = torch.arange(200)[None] % 20
    label[label > 2] = 0
    scores.update(logits, label)
    means = validation_scores(scores)
    for name, by_class in (
        ("average_precision", scores.average_precision()),
        ("iou", scores.iou()),
        ("dice", scores.dice()),
        ("best_f1", [f1 for f1, _ in scores.best_f1()]),
    ):
        assert means[name] == (by_class[1] + by_class[2]) / 2
        assert means[name] != sum(by_class) / 3
