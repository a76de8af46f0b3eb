"""Headings, formats and explanations of the scores of a comparison."""

from __future__ import annotations

from collections.abc import Collection

_HEADERS = {
    "average_precision": "AP",
    "tolerant_f1": "F1 within tolerance",
    "f1": "F1",
    "recall_at_precision": "recall at precision",
    "calibration_error": "calibration error",
    "likeliest_iou": "IoU likeliest",
    "object_recall": "objects found",
    "false_objects": "false objects",
    "natural_f1": "F1 at 1/2",
    "auc": "AUC",
    "retention_at_fakes": "kept at 1 fake",
    "retention_at_half": "kept at 1/2",
    "read_out_skill": "skill read out",
    "lit_f1": "F1 of lit pixels",
    "lit_ratio": "lit / target",
    "read_out_lit_ratio": "lit / target read out",
    "rmse": "RMSE",
    "blank_rate": "blank images",
}
FORMS = {"rmse": ".3g", "lit_ratio": ".3g", "read_out_lit_ratio": ".3g"}  # of other scores ".3f"
# scores of which more is not better
UNORDERED = ("false_objects", "lit_ratio", "read_out_lit_ratio", "rmse", "blank_rate")
# scores whose leader is named where it is not the first row, and whether more is better
SECOND = {"lit_f1": True, "rmse": False}


def header(name: str) -> str:
    """Return the heading of a score."""
    if name.startswith("removal_at_"):
        return f"removed at {name.removeprefix('removal_at_')} %"
    return _HEADERS.get(name, name.replace("_", " "))


def explain(
    scores: Collection[str], known: Collection[str], false_objects: float, has_none: bool
) -> str:
    """Return the explanation of the scores, each part after a semicolon.

    Args:
        scores: names of the scores.
        known: names of the scores that a loss has.
        false_objects: number of false objects an image of `object_recall`.
        has_none: whether a loss has no natural probability.
    """
    parts = []
    if "f1" in scores:
        parts.append("F1 at the threshold chosen on the validation images")
    if "object_recall" in known:
        parts.append(
            f"objects found at the threshold with at most {format_false_objects(false_objects)} an "
            "image on the validation images, beside the false objects an image that it makes on "
            "the test images"
        )
    if "natural_f1" in known:
        none = ", - where a loss has none" * has_none
        parts.append(f"F1 at 1/2 of the natural probability{none}")
    if "skill" in scores:
        parts += [
            "skill, as trained: 1 for a perfect map and 0 for a blank one, by the mean absolute "
            "error of cells, or of lit and empty pixels",
            "F1, RMSE and blank images with the read-out that validation images fit, where a pixel "
            "is lit above the value that lights as many validation pixels as their targets do",
            "blank images: fraction of the images with lit pixels in which none is predicted",
        ]
    return "".join(f"; {part}" for part in parts)


def format_false_objects(number: float) -> str:
    """Format the number of false objects that thresholds are chosen for.

    Example:
        >>> format_false_objects(1), format_false_objects(0.5)
        ('1 false object', '0.5 false objects')
    """
    return f"{number:g} false object{'s' * (number != 1)}"
