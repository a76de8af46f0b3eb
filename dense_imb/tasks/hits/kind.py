"""Hits of a detector, as a kind of data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dense_imb.metrics import ScoreHistogram
from dense_imb.metrics.score_table import percent_digits
from dense_imb.tasks.hits.recipe import HitsRecipe


class HitsKind:
    """Hits of a detector; the network scores each hit."""

    name = "hits"
    description = "hits"
    samples, scored = "events", "hits"
    watched = ("auc", "recall_at_half", "lit_at_half")
    recipe = HitsRecipe

    def load_scores(self, path: Path) -> ScoreHistogram:
        """Load the histogram of the scores of the validation hits."""
        return ScoreHistogram.load(path)

    def foreground(self, scores: ScoreHistogram) -> list[ScoreHistogram]:
        """Return the histogram of the signal."""
        return [scores]

    def headline(self, best: Mapping[str, Any], scores: ScoreHistogram | None) -> str:
        """Format the noise removed at each retention."""
        removal = ", ".join(
            f"{percent_digits(value, 2)} % at {name.removeprefix('removal_at_')} %"
            for name, value in best.items()
            if name.startswith("removal_at_") and value is not None
        )
        return f"noise removed at a retention: {removal} (validation events)"


KIND = HitsKind()
