"""`dense-imb inspect`: measure class imbalance and the scores of a blank prediction."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from dense_imb.base.files import refuse_inputs
from dense_imb.base.refusals import Refused, RefusedFile, refusal
from dense_imb.cli._maps import add_new_maps
from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import folder_for_outputs
from dense_imb.cli._threads import add_threads

SUMMARY = "measure the class imbalance of data and recommend weights"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Measure hits files, or images with masks (two folders, or one HDF5 file with "
        "data sets image and mask; 2-D or 3-D), or images with maps of values: class imbalance, "
        "occlusion, hot pixels, the value of each loss for a blank prediction, and the weights "
        "that follow.",
        epilog="Examples:\n  dense-imb inspect tof.h5 --out look\n"
        "  dense-imb inspect images --masks masks --labels 0 255\n"
        "  dense-imb inspect images --targets dose --cells organs --cell-kind bits",
    )
    parser.add_argument(
        "data",
        type=str,
        nargs="+",
        metavar="DATA",
        help='hits files, a quoted pattern "runs/*.h5", a folder of images, or an HDF5 file',
    )
    parser.add_argument(
        "--events",
        type=int | None,
        help="number of events or images to measure, evenly spaced; by default all",
    )
    parser.add_argument(
        "--format", type=Literal["text", "json"], default="text", help="format of the printed text"
    )
    parser.add_argument(
        "--out", type=str | None, metavar="FOLDER", help="folder for inspect.json and inspect.png"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    add_threads(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")
    images = parser.add_argument_group("images with masks")
    images.add_argument("--masks", type=str | None, metavar="FOLDER", help="folder of the masks")
    images.add_argument("--labels", type=int, nargs="+", help="mask value of each class")
    images.add_argument(
        "--above", type=float | None, help="threshold of grey masks; larger values are class 1"
    )
    images.add_argument(
        "--names", type=str, nargs="+", metavar="NAME", help="name of each class, background first"
    )
    images.add_argument("--ignore-index", type=int | None, help="mask value of pixels to leave out")
    values = parser.add_argument_group("images with maps of values")
    add_new_maps(values)
    hits = parser.add_argument_group("hits")
    hits.add_argument(
        "--verify", action="store_true", help="recompute the content hash of the files"
    )
    return parser


def run(options: Namespace) -> None:
    """Inspect as the options say."""
    from dense_imb.inspection import (
        inspect_hits,
        inspect_images,
        inspect_values,
        save_figure,
        text_of,
    )

    has_values = options.targets is not None or _is_labelled_file(options, "target")
    has_images = options.masks is not None or (not has_values and _is_labelled_file(options))
    _check(options, has_images, has_values)
    out = None if options.out is None else Path(options.out)
    written = [] if out is None else [out / "inspect.json", out / "inspect.png"]
    for path in written:
        if path.exists() and not options.overwrite:
            raise RefusedFile(f"no file {path}", "one", "{overwrite} replaces it")
    refuse_inputs(written, options.data)
    if out is not None:
        folder_for_outputs(out)
    if has_values:
        inspection = inspect_values(
            options.data[0],
            options.targets,
            cells=options.cells,
            cell_kind=options.cell_kind,
            cell_names=options.cell_names or None,
            counted=options.counted,
            n_images=options.events,
            level=options.level,
            show_progress=not options.quiet,
        )
    elif has_images:
        inspection = inspect_images(
            options.data[0],
            options.masks,
            n_images=options.events,
            labels=options.labels,
            above=options.above,
            ignore_index=options.ignore_index,
            names=options.names,
            show_progress=not options.quiet,
        )
    else:
        inspection = inspect_hits(
            options.data,
            n_events=options.events,
            check_content=options.verify,
            show_progress=not options.quiet,
        )
    if written:
        inspection.save_json(written[0])
        save_figure(inspection, written[1])
        for path in written:
            print(f"wrote {path}", file=sys.stderr)
    print(inspection.to_json() if options.format == "json" else text_of(inspection))


def _is_labelled_file(options: Namespace, map_name: str = "mask") -> bool:
    from dense_imb.data.images.sources import is_labelled_file

    return any(is_labelled_file(path, map_name) for path in options.data)


def _check(options: Namespace, has_images: bool, has_values: bool) -> None:
    """Refuse options that do not go together."""
    if has_values:
        _check_values(options)
        return
    for name in ("cells", "cell_names", "counted", "level"):
        if getattr(options, name) not in (None, []):
            raise refusal(f"{{{name}}} is an option for maps of values; add {{targets=FOLDER}}.")
    folders = [path for path in options.data if Path(path).is_dir()]
    if options.masks is None and folders:
        raise Refused(
            f"masks of the folder of images {folders[0]}",
            "none",
            "add {masks=FOLDER}, or {targets=FOLDER} for maps of values",
        )
    if has_images and len(options.data) > 1:
        kind = "folder" if options.masks is not None else "file"
        raise ValueError(f"Expected one {kind} of images, got {len(options.data)}.")
    if has_images and options.verify:
        raise refusal("{verify} is an option for hits files, got images; drop it.")
    for name in ("labels", "above", "names", "ignore_index"):
        if not has_images and getattr(options, name) is not None:
            raise refusal(f"{{{name}}} is an option for images with {{masks}}; drop it.")


def _check_values(options: Namespace) -> None:
    """Refuse options of masks and hits with maps of values."""
    for name in ("masks", "labels", "above", "names", "ignore_index"):
        if getattr(options, name) is not None:
            raise refusal(f"{{{name}}} is an option for masks, got maps of values; drop it.")
    if options.verify:
        raise refusal("{verify} is an option for hits files, got images; drop it.")
    if len(options.data) > 1:
        raise ValueError(f"Expected one folder or file of images, got {len(options.data)}.")
