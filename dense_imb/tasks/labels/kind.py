"""Whole images with one label each, as a kind of data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dense_imb.metrics import ClassificationScores, ScoreHistogram
from dense_imb.tasks.labels.recipe import LabelsRecipe

_SHOWN = ("balanced accuracy", "accuracy", "head accuracy", "middle accuracy", "tail accuracy")


class LabelsKind:
    """Whole images with one label each; the network classifies them."""

    name = "labels"
    description = "whole images"
    samples, scored = "images", "images"
    watched = ("accuracy", "head_accuracy", "middle_accuracy", "tail_accuracy", "most_called")
    recipe = LabelsRecipe

    def load_scores(self, path: Path) -> ClassificationScores:
        """Load the confusion counts of the validation images."""
        return ClassificationScores.load(path)

    def foreground(self, scores: ClassificationScores) -> list[ScoreHistogram]:
        """Return nothing: outputs of whole images stay as trained, their test sets differ."""
        return []

    def headline(self, best: Mapping[str, Any], scores: ClassificationScores | None) -> str:
        """Format the accuracies and the AUC."""
        values = {name: best.get(name.replace(" ", "_")) for name in (*_SHOWN, "auc")}
        parts = [f"{name} {value:.3f}" for name, value in values.items() if value is not None]
        return f"{', '.join(parts)} (validation images)"


KIND = LabelsKind()
