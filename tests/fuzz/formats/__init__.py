"""The table of formats."""

from tests.fuzz.format import Format
from tests.fuzz.formats import arrays, hdf5, images, losses, runs, tables

FORMATS: dict[str, Format] = {
    **hdf5.FORMATS,
    **images.FORMATS,
    **arrays.FORMATS,
    **tables.FORMATS,
    **runs.FORMATS,
    **losses.FORMATS,
}
