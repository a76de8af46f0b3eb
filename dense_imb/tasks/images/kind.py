"""Images with masks, as a kind of data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dense_imb.metrics import ScoreHistogram, SegmentationScores
from dense_imb.metrics.score_table import mean_of_known
from dense_imb.tasks.images.recipe import ImagesRecipe
from dense_imb.tasks.images.segment import as_probability


class ImagesKind:
    """Images with a mask each; the network segments them."""

    name = "images"
    description = "images with masks"
    samples, scored = "images", "pixels"
    watched = ("best_f1", "dice", "recall_at_half", "lit_at_half")
    recipe = ImagesRecipe

    def load_scores(self, path: Path) -> SegmentationScores:
        """Load the counts of the validation pixels."""
        return SegmentationScores.load(path)

    def foreground(self, scores: SegmentationScores) -> list[ScoreHistogram]:
        """Return the histograms of the foreground classes."""
        return scores.histograms[1:]

    def headline(self, best: Mapping[str, Any], scores: SegmentationScores | None) -> str:
        """Format average precision, and F1 at the operating point that `evaluate` uses."""
        parts = []
        where = "validation images, mean of the foreground classes"
        if best.get("average_precision") is not None:
            parts.append(f"average precision {best['average_precision']:.3f}")
        if scores is not None:
            f1, where = _at_the_threshold(scores)
            parts.append(f1)
        elif best.get("dice") is not None:  # a run of an older version
            parts.append(f"dice {best['dice']:.3f} at a probability of 1/2")
        return f"{', '.join(parts)} ({where})"


def _at_the_threshold(scores: SegmentationScores) -> tuple[str, str]:
    """Format F1 at the threshold of best F1, the default of `evaluate` and `segment`, and where."""
    points = scores.best_f1()[1:]
    f1 = f"F1 {mean_of_known([value for value, _ in points]):.3f}"
    if len(points) > 1:
        where = f"validation images, mean of {len(points)} foreground classes"
        return f"{f1} at the thresholds chosen there", where
    p = as_probability(points[0][1])
    return f"{f1} at the threshold p = {p:.3g} chosen there", "validation images"


KIND = ImagesKind()
