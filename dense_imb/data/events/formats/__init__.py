"""Readers of other formats; each returns a `Source` for `dense_imb.data.events.convert.to_hits`."""

from dense_imb.data.events.formats.arrays import npz_hits_source
from dense_imb.data.events.formats.frames import (
    frames_source,
    image_source,
    npy_source,
    npz_source,
    pt_source,
)
from dense_imb.data.events.formats.hdf5 import hdf5_frames_source, hdf5_hits_source
from dense_imb.data.events.formats.lists import csv_source, timepix_source
from dense_imb.data.events.formats.records import parquet_source
from dense_imb.data.events.formats.root import root_source
from dense_imb.data.events.formats.source import Columns, Source, chain_sources

__all__ = [
    "Columns",
    "Source",
    "chain_sources",
    "csv_source",
    "frames_source",
    "hdf5_frames_source",
    "hdf5_hits_source",
    "image_source",
    "npy_source",
    "npz_hits_source",
    "npz_source",
    "parquet_source",
    "pt_source",
    "root_source",
    "timepix_source",
]
