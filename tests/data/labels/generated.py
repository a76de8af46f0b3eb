"""The generator of the classification recipe: small data in the true on-disk formats."""

from __future__ import annotations

import importlib.util
from pathlib import Path

PATH = Path(__file__).parents[3] / "experiments" / "classification" / "small_data.py"
_spec = importlib.util.spec_from_file_location("small_data", PATH)
assert _spec is not None
assert _spec.loader is not None
small_data = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small_data)
