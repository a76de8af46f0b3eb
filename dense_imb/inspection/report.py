"""The result of an inspection: numbers for JSON, and arrays for the figure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dense_imb.base.files import write_whole


@dataclass(frozen=True, repr=False)
class Inspection:
    """Result of `inspect_hits`, `inspect_images` and `inspect_values`.

    Args:
        numbers: nested dictionaries of numbers and texts.
        pictures: arrays and sample events, for the figure only.

    Example:
        >>> import h5py, numpy as np, tempfile
        >>> from dense_imb.inspection import inspect_images
        >>> path, mask = tempfile.mkdtemp() + "/lines.h5", np.eye(10, dtype=np.uint8)
        >>> with h5py.File(path, "w") as file:
        ...     file["image"], file["mask"] = np.stack([[mask * 200]] * 4), np.stack([mask] * 4)
        >>> inspection = inspect_images(path, show_progress=False)  # an Inspection
        >>> inspection.numbers["kind"], inspection.numbers["foreground_share"]["mean"]
        ('images', 0.1)
    """

    numbers: dict[str, Any]
    pictures: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        counts = ", ".join(
            f"{self.numbers[name]:,} {name}"
            for name in ("events", "hits", "files", "inspected_images")
            if isinstance(self.numbers.get(name), int)
        )
        return f"Inspection({self.numbers.get('kind')}: {counts}; text_of(...) prints it)"

    def to_json(self) -> str:
        """Return strict JSON: null where a number is unknown or infinite."""
        return json.dumps(strict(self.numbers), indent=1, allow_nan=False)

    def save_json(self, path: Path) -> None:
        """Write `to_json` to a file, whole or not at all."""
        write_whole(path, lambda to: to.write_text(self.to_json() + "\n", encoding="utf-8"))


def strict(value: Any) -> Any:
    """Replace NaN and infinity, which JSON lacks, by None.

    Example:
        >>> strict({"psnr": float("inf"), "counts": (1, 2.5)})
        {'psnr': None, 'counts': [1, 2.5]}
    """
    if isinstance(value, Mapping):
        return {str(name): strict(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
