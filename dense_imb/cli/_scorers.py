"""Baselines by the name that the commands give them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # --help must not wait for torch
    from dense_imb.hits import Geometry, Scorer, Sensors


def baseline(typed: str, geometry: Geometry | Sensors, *, option: str = "MODEL") -> Scorer:
    """Return a baseline for a geometry, as typed: "hit-density", "hit-density(radius_t=10)"."""
    from dense_imb.base.checks import check_choice
    from dense_imb.base.files import missing_path
    from dense_imb.hits import BASELINES, make_baseline
    from dense_imb.losses.foreign.parse import parse_call

    known = [name.lower().replace(" ", "-") for name in BASELINES]
    name, parenthesis, rest = typed.partition("(")
    name = name.strip()
    runs = ["RUN (the folder of a run)"] if option == "MODEL" else []
    if runs and name not in known and "/" in name:
        raise missing_path(
            Path(name), "the folder of a run", lambda beside: (beside / "config.yaml").is_file()
        )
    check_choice(option, name, [*runs, *known])
    if name == "dbscan" and importlib.util.find_spec("sklearn") is None:
        raise ValueError("Expected scikit-learn for dbscan, got none: pip install scikit-learn.")
    options: dict[str, Any] = {}
    if parenthesis:
        try:
            _, unnamed, options = parse_call(f"baseline({rest}", typed)
        except ValueError:
            unnamed = [typed]
        if unnamed:
            raise ValueError(
                f'Expected options by name, "hit-density(radius_xy=5, radius_t=10)" say, '
                f"got {typed!r}."
            )
    return make_baseline(name, geometry, **options)
