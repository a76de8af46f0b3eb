"""An inspection prints one line."""

from __future__ import annotations

from dense_imb.inspection.report import Inspection


def test_an_inspection_is_one_line():
    found = Inspection({"kind": "hits", "events": 400, "hits": 494_616, "columns": ["x"] * 1000})
    assert repr(found) == "Inspection(hits: 400 events, 494,616 hits; text_of(...) prints it)"
