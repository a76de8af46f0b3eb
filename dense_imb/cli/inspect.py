"""`dense-imb inspect`: how imbalanced data are, and what a blank prediction would score."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from dense_imb.base.refusals import Refused, RefusedFile, refusal
from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import folder_for_outputs

SUMMARY = "learn how imbalanced data are, and which weights follow"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Look at hits files, or at images and their masks, in two folders or in one "
        "HDF5 file with data sets `image` and `mask`, in 2-D or 3-D: class imbalance, occlusion, "
        "hot pixels, what a blank prediction would score in each loss, and which weights follow.",
        epilog="Examples:\n  dense-imb inspect tof.h5 --out look\n"
        "  dense-imb inspect images --masks masks --labels 0 255",
    )
    parser.add_argument(
        "data",
        type=str,
        nargs="+",
        help='hits files, a quoted pattern "runs/*.h5", or images: a folder or an HDF5 file',
    )
    parser.add_argument("--masks", type=str | None, help="the folder of the images' masks")
    parser.add_argument(
        "--events", type=int | None, help="look at so many events or images, evenly spaced"
    )
    parser.add_argument(
        "--labels", type=int, nargs="+", help="the mask values of class 0, class 1 and so on"
    )
    parser.add_argument(
        "--above",
        type=float | None,
        help="threshold of grey masks; larger values are class 1",
    )
    parser.add_argument(
        "--names", type=str, nargs="+", help="of class 0, class 1 and so on of the masks"
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
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def run(options: Namespace) -> None:
    """Do what the options say."""
    from dense_imb.inspection import inspect_hits, inspect_images, save_figure, text_of

    has_images = options.masks is not None or _is_labelled_file(options)
    _check(options, has_images)
    out = None if options.out is None else Path(options.out)
    written = [] if out is None else [out / "inspect.json", out / "inspect.png"]
    for path in written:
        if path.exists() and not options.overwrite:
            raise RefusedFile(f"no file {path}", "one", "{overwrite} replaces it")
    if out is not None:
        folder_for_outputs(out)
    if has_images:
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


def _is_labelled_file(options: Namespace) -> bool:
    from dense_imb.data.images.sources import is_labelled_file

    return any(is_labelled_file(path) for path in options.data)


def _check(options: Namespace, has_images: bool) -> None:
    """Refuse options that do not go together."""
    folders = [path for path in options.data if Path(path).is_dir()]
    if options.masks is None and folders:
        raise Refused(f"masks of the folder of images {folders[0]}", "none", "add {masks=FOLDER}")
    if has_images and len(options.data) > 1:
        kind = "folder" if options.masks is not None else "file"
        raise ValueError(f"Expected one {kind} of images, got {len(options.data)}.")
    if has_images and options.verify:
        raise refusal("{verify} is an option for hits files, got images; drop it.")
    for name in ("labels", "above", "names", "ignore_index"):
        if not has_images and getattr(options, name) is not None:
            raise refusal(f"{{{name}}} is an option for images with {{masks}}; drop it.")
