"""The cure of a collapse names lit pixels only where the loss sees others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dense_imb.tasks.recipe import build_task
from tests.runs.tiny import clean_events, tiny, write_events


@pytest.mark.parametrize(
    ("changes", "names_lit_pixels"),
    [
        ({"hits": {"pixels": "frame"}}, True),
        ({}, False),
        ({"model": {"name": "hits:tiny", "options": {}}}, False),
    ],
)
def test_lit_pixels_are_a_cure_of_frames_only(
    tmp_path: Path, changes: dict[str, Any], names_lit_pixels: bool
):
    task = build_task(tiny(write_events(tmp_path / "a.h5", clean_events(8)), **changes))
    assert ("hits.pixels=lit" in getattr(task, "balance_cure", "")) is names_lit_pixels
