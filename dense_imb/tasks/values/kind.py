"""Images with maps of values, as a kind of data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dense_imb.metrics import ScoreHistogram
from dense_imb.metrics.values import ValueScores
from dense_imb.tasks.values.recipe import ValuesRecipe


class ValuesKind:
    """Images with a map of values each; the network predicts the map."""

    name = "values"
    description = "images with maps of values"
    samples, scored = "images", "pixels"
    watched = ("balanced_mae", "mae", "f1", "recall_at_half")
    recipe = ValuesRecipe

    def load_scores(self, path: Path) -> ValueScores:
        """Load the errors of the validation images."""
        return ValueScores.load(path)

    def foreground(self, scores: ValueScores) -> list[ScoreHistogram]:
        """Return no histograms: values have no probabilities."""
        return []

    def headline(self, best: Mapping[str, Any], scores: ValueScores | None) -> str:
        """Format the balanced error, beside that of a blank map."""
        over = "cells" if scores is not None and scores.cells else "lit and empty pixels"
        parts = [
            f"mean absolute error {best.get('balanced_mae') or math.nan:.4g}, mean over {over}"
        ]
        if best.get("skill") is not None:
            side = "below" if best["skill"] >= 0 else "above"
            parts.append(f"{100 * abs(best['skill']):.3g} % {side} that of a blank map")
        if best.get("lit_ratio") is not None:
            level = "" if scores is None else f" above {scores.level:.3g}"
            parts.append(f"lit / target pixels {best['lit_ratio']:.3g}{level}")
        return f"{', '.join(parts)} (validation images, as trained)"


KIND = ValuesKind()
