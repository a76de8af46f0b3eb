"""Sparse hits: events as flat arrays, their files, degradation, frames, simulation.

The file format is written down in `dense_imb.hits.format`.
"""

from dense_imb.hits.events import Events, Geometry, concatenate
from dense_imb.hits.format import HitsFileError
from dense_imb.hits.reader import HitsFile, HitsFiles, collate_events, open_hits, verify
from dense_imb.hits.writer import HitsWriter

__all__ = [
    "Events",
    "Geometry",
    "HitsFile",
    "HitsFileError",
    "HitsFiles",
    "HitsWriter",
    "collate_events",
    "concatenate",
    "open_hits",
    "verify",
]
