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
        if best.get("average_precision") is not None:
            parts.append(f"average precision {best['average_precision']:.3f}")
        if scores is not None:
            parts.append(_at_the_threshold(scores))
        elif best.get("dice") is not None:  # a run of an older version
            parts.append(f"dice {best['dice']:.3f} at a probability of 1/2")
        return f"{', '.join(parts)} (validation images, mean of the foreground classes)"


def _at_the_threshold(scores: SegmentationScores) -> str:
    """Format F1 at the threshold of best F1, which `evaluate` and `segment` use by default."""
    points = scores.best_f1()[1:]
    f1 = f"F1 {mean_of_known([value for value, _ in points]):.3f}"
    if len(points) > 1:
        return f"{f1} at the thresholds chosen on the validation images"
    p = as_probability(points[0][1])
    return f"{f1} at the threshold p = {p:.3g}, chosen on the validation images"


KIND = ImagesKind()
