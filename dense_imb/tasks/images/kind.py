"""Images with masks, as a kind of data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dense_imb.metrics import SegmentationScores
from dense_imb.metrics.score_table import mean_of_known
from dense_imb.tasks.images.recipe import ImagesRecipe


class ImagesKind:
    """Images with a mask each; the network segments them."""

    name = "images"
    description = "images with masks"
    samples, scored = "images", "pixels"
    recipe = ImagesRecipe

    def load_scores(self, path: Path) -> SegmentationScores:
        """Load the counts of the validation pixels."""
        return SegmentationScores.load(path)

    def headline(self, best: Mapping[str, Any], scores: SegmentationScores | None) -> str:
        """Format average precision, and F1 at the operating point that `evaluate` uses."""
        parts = []
        if best.get("average_precision") is not None:
            parts.append(f"average precision {best['average_precision']:.3f}")
        if scores is not None:
            f1 = mean_of_known([value for value, _ in scores.best_f1()[1:]])
            parts.append(f"F1 {f1:.3f} at the threshold chosen on the validation images")
        dice = best.get("dice") if scores is None else mean_of_known(scores.dice()[1:])
        if dice is not None:
            parts.append(f"dice {dice:.3f} at a probability of 1/2")
        return f"{', '.join(parts)} (validation images, mean of the foreground classes)"


KIND = ImagesKind()
