"""Scores print one short line in a REPL."""

from __future__ import annotations

import pytest
import torch

from dense_imb.hits.table import Evaluation
from dense_imb.metrics import OperatingPoint, ScoreHistogram, TolerantF1
from dense_imb.metrics.operating_point import Aim

from .processes import empty_scores, update

LINES = {
    "ScoreHistogram": "ScoreHistogram(72 signal, 138 noise; AUC 0.5795, AP 0.3958)",
    "HitScores": "HitScores(7 events, ",
    "SegmentationScores": "SegmentationScores(1,008 pixels, 3 classes; mean IoU 0.",
    "ObjectScores": "ObjectScores(",
    "ImageQuality": "ImageQuality(7 images; PSNR of prediction ",
    "TolerantF1": "TolerantF1(",
    "ClassificationScores": "ClassificationScores(84 images, 3 classes; accuracy 0.",
    "ValueScores": "ValueScores(7 images, 1,008 pixels; MAE 0.",
    "ReadOutTally": "ReadOutTally(1,008 pixels, ",
}


@pytest.mark.parametrize("i", range(len(empty_scores())))
def test_every_score_prints_one_line(i):
    for scores in (empty_scores()[i], update(empty_scores(), 0, 7)[i]):
        text = repr(scores)
        assert "\n" not in text
        assert len(text) < 120
    assert text.startswith(LINES[type(scores).__name__])


def test_an_empty_histogram_prints_no_score():
    assert repr(ScoreHistogram()) == "ScoreHistogram(0 signal, 0 noise; AUC nan, AP nan)"


def test_an_operating_point_prints_its_threshold_and_its_effect():
    point = OperatingPoint(0.5, "probability", 0.97, 0.9, 2 / 3, n_signal=3000, n_noise=200)
    assert repr(point) == (
        "OperatingPoint(probability >= 0.5; "
        "3,000 signal, 200 noise; retention 0.97, removal 0.9, purity 0.6667)"
    )


def test_curves_and_tables_print_their_size():
    histogram, tolerant = ScoreHistogram(50), TolerantF1(n_bins=50)
    histogram.update(torch.tensor([0.1, 0.9]), torch.tensor([False, True]))
    assert repr(histogram.curve()) == "Curve(51 thresholds)"
    assert repr(tolerant.curve()) == "TolerantCurve(51 thresholds)"
    rows = tuple({"scorer": name, "auc": 0.5} for name in ("blank", "net", "blank"))
    table = Evaluation(rows, Aim("retention", 0.97), (0.97,), "5 validation events")
    assert repr(table) == "Evaluation(3 rows of blank, net)"
