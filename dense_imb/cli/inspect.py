"""`dense-imb inspect`: how imbalanced data are, and what a blank prediction would score."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from dense_imb.cli._parser import Parser
from dense_imb.cli._script import folder_for_outputs

SUMMARY = "learn how imbalanced data are, and which weights follow"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Look at hits files, or at a folder of images and one of their masks: class "
        "imbalance, occlusion, hot pixels, what a blank prediction would score in each loss, and "
        "which weights follow.",
        epilog="Example: dense-imb inspect tof.h5 --out look    "
        "dense-imb inspect images --masks masks",
    )
    parser.add_argument(
        "data", type=str, nargs="+", help='hits files, a quoted pattern "runs/*.h5", or a folder'
    )
    parser.add_argument("--masks", type=str | None, help="the folder of the images' masks")
    parser.add_argument(
        "--events", type=int | None, help="look at so many events or images, evenly spaced"
    )
    parser.add_argument(
        "--ignore-index", type=int | None, help="label of the mask pixels that are left out"
    )
    parser.add_argument(
        "--verify", action="store_true", help="recompute the content hash of hits files"
    )
    parser.add_argument(
        "--format", type=Literal["text", "json"], default="text", help="how to print"
    )
    parser.add_argument(
        "--out", type=str | None, help="a folder for inspect.json and the figure inspect.png"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def run(options: Namespace) -> None:
    """Do what the options say."""
    from dense_imb.inspection import inspect_hits, inspect_images, save_figure, text_of

    _check(options)
    out = None if options.out is None else Path(options.out)
    written = [] if out is None else [out / "inspect.json", out / "inspect.png"]
    for path in written:
        if path.exists() and not options.overwrite:
            raise ValueError(f"Expected no file {path}, got one; --overwrite replaces it.")
    if out is not None:
        folder_for_outputs(out)
    if options.masks is not None:
        inspection = inspect_images(
            options.data[0],
            options.masks,
            n_images=options.events,
            ignore_index=options.ignore_index,
        )
    else:
        inspection = inspect_hits(
            options.data, n_events=options.events, check_content=options.verify
        )
    if written:
        inspection.save_json(written[0])
        save_figure(inspection, written[1])
        for path in written:
            print(f"wrote {path}", file=sys.stderr)
    print(inspection.to_json() if options.format == "json" else text_of(inspection))


def _check(options: Namespace) -> None:
    """Refuse options that do not go together."""
    folders = [path for path in options.data if Path(path).is_dir()]
    if options.masks is None and folders:
        raise ValueError(
            f"Expected `--masks FOLDER` with the folder of images {folders[0]}, got none."
        )
    if options.masks is not None and len(options.data) > 1:
        raise ValueError(f"Expected one folder of images, got {len(options.data)}.")
    if options.masks is not None and options.verify:
        raise ValueError("Expected `--verify` with hits files, got it with folders of images.")
    if options.masks is None and options.ignore_index is not None:
        raise ValueError("Expected `--ignore-index` with `--masks`, got it with hits files.")
