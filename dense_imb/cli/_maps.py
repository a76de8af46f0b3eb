"""Options that say where maps of values are, which several commands share."""

from __future__ import annotations

from typing import Any, Literal


def add_maps(group: Any, default: str, of_images: str = "") -> None:
    """Add --targets, --cells and --counted.

    Args:
        group: parser, or a group of it.
        default: what the targets of an HDF5 file are called by default.
        of_images: whose maps they are, if not those of all images, " of test images".
    """
    group.add_argument(
        "--targets",
        type=str | None,
        metavar="FOLDER",
        help=f"folder of the maps of values{of_images}; of an HDF5 file, the name of their data "
        f"set, by default {default}",
    )
    group.add_argument(
        "--cells",
        type=str | None,
        metavar="FOLDER",
        help=f"folder of the cells{of_images}; of an HDF5 file, the name of their data set",
    )
    group.add_argument(
        "--counted",
        type=str | None,
        metavar="FOLDER",
        help=f"folder of maps that are nonzero where a pixel{of_images} counts; of an HDF5 file, "
        "the name of their data set; by default all pixels count",
    )


def add_new_maps(group: Any) -> None:
    """Add the options of maps that no run knows yet."""
    add_maps(group, "target")
    group.add_argument(
        "--cell-kind",
        type=Literal["labels", "bits"],
        default="labels",
        help="form of the cells: a map of numbers, or a bit field whose cells may overlap",
    )
    group.add_argument(
        "--cell-names", type=str, nargs="+", default=[], metavar="NAME", help="names of the cells"
    )
    group.add_argument(
        "--level",
        type=float | None,
        help="value above which a pixel is lit; by default half the mean of the values that are "
        "not 0",
    )
