"""How do my data become a hits file, and hits become frames again?

To hits, by what the source is:
    convert.py frames.npy hits.h5 [--labels labels.npy]      (N, H, W) or (N, 1, H, W), 0 = empty
    convert.py frames.npz hits.h5 [--key frames --labels labels]       .pt and .h5 likewise
    convert.py images/ hits.h5 [--masks masks/ --pattern "real_*"]     PNG or TIFF, grey
    convert.py list.csv hits.h5 --width 88 --height 128 [--columns x=col t=toa event=frame]
    convert.py xyc/ hits.h5 --format timepix                 ASCII xyC, a file a frame
    convert.py flat.h5 hits.h5 --width 45 --height 40 --time-offset 1 --x photon/col --y photon/row
        --t photon/t --offset event/offset [--label photon/label --keep photon/chid event/run]
    convert.py tree.root hits.h5 --width 88 --height 128 [--tree events --keep run]
Back to frames, by the target's suffix:
    convert.py hits.h5 frames.npy | .npz | .h5 | folder [--labels labels.npy | folder]

Times must lie in 1 .. --time-steps; 0 is an empty pixel. Nothing is clipped or rounded: the error
about a value that does not fit names the option that would make it fit.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser

if TYPE_CHECKING:
    from dense_imb.data.events.formats import Source

FORMATS = {
    ".npy": "npy", ".npz": "npz", ".pt": "pt", ".pth": "pt", ".csv": "csv", ".txt": "timepix",
    ".h5": "hdf5", ".hdf5": "hdf5", ".root": "root", "": "images",
}  # fmt: skip


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    add = parser.add_argument
    add("source", type=str, help="file or folder in one of the formats above")
    add("target", type=str, help="hits file to write, or frames to make from one")
    add(
        "--format",
        type=Literal["auto", "npy", "npz", "pt", "csv", "timepix", "hdf5", "root", "images"],
        default="auto",
        help="format of the source; by default from its suffix, images for a folder",
    )
    add("--key", type=str | None, help="name of the frames in .npz, .pt or HDF5")
    add("--labels", type=str | None, help="label frames: a .npy file, or a name beside --key")
    add("--masks", type=str | None, help="folder of label images of the same names")
    add("--binary-labels", action="store_true", help="write label 1 for every label except 0")
    add(
        "--noise-label",
        type=int | None,
        help="label of noise in the source: it becomes 0, the others 1 and up",
    )
    add("--pattern", type=str | None, help='files of a folder to use, for example "real_*"')
    add("--columns", type=str, nargs="*", default=[], help="names of columns in a CSV file: x=col")
    add(
        "--event-columns",
        type=str,
        nargs="*",
        default=[],
        help="CSV columns of events",
    )
    add("--tree", type=str | None, help="tree of a ROOT file")
    for name in ("x", "y", "t", "offset", "label"):
        add(
            f"--{name}",
            type=str | None,
            help="flat HDF5: data set; ROOT: branch",
        )
    add("--keep", type=str, nargs="*", default=[], help="further data sets or branches")
    add("--width", type=int | None, help="width of the frame in pixels, for hit lists")
    add("--height", type=int | None, help="height of the frame in pixels, for hit lists")
    add("--time-steps", type=int | None, help="last time step; by default the largest time")
    add("--time-scale", type=float, default=1.0, help="factor for the times")
    add(
        "--time-offset",
        type=float,
        default=0.0,
        help="added to the scaled times: 1 if they start at 0",
    )
    add("--x-mm", type=float | None, help="width of a pixel in mm")
    add("--y-mm", type=float | None, help="height of a pixel in mm")
    add("--t-ns", type=float | None, help="duration of a time step in ns")
    add(
        "--rule",
        type=Literal["largest", "smallest", "count"],
        default="largest",
        help="back to frames: time of a shared pixel",
    )
    add("--compression", type=int | None, help="gzip level of the hits file, 1 to 9")
    add("--overwrite", action="store_true", help="replace files that exist")
    return parser


def run(options: Namespace) -> None:
    from dense_imb.data.events.convert import to_hits
    from dense_imb.data.events.dense import to_frames
    from dense_imb.data.events.formats.hdf5 import is_hits_file
    from dense_imb.hits import open_hits

    source = Path(options.source)
    if source.suffix in (".h5", ".hdf5") and is_hits_file(source):
        with open_hits(source, in_memory=False) as hits:
            if (
                "/hit/label" in hits.columns
                and options.labels is None
                and (Path(options.target).suffix in (".npy", ""))
            ):
                print("convert.py: note: labels not written; --labels FILE writes them",
                      file=sys.stderr)  # fmt: skip
            n_hidden = to_frames(
                hits,
                options.target,
                labels=options.labels,
                rule=options.rule,
                overwrite=options.overwrite,
            )
            print(f"{options.target}: {len(hits)} frames; {n_hidden} of {hits.n_hits} hits are "
                  "hidden by others")  # fmt: skip
        return
    if Path(options.target).suffix not in (".h5", ".hdf5"):
        raise ValueError(f"Expected the name of a hits file, .h5, got {options.target}.")
    events = open_source(source, options)
    names = ("width", "height", "time_steps", "x_mm", "y_mm", "t_ns", "time_scale", "time_offset")
    writer = to_hits(
        events,
        options.target,
        **{name: options[name] for name in names},
        binary_labels=options.binary_labels,
        noise_label=options.noise_label,
        overwrite=options.overwrite,
        compression=options.compression,
    )
    g = writer.geometry
    print(f"{options.target}: {writer.n_events} events, {writer.n_hits} hits, "
          f"{g.width} x {g.height} x {g.time_steps}")  # fmt: skip
    if options.noise_label is not None:
        print(f"label {options.noise_label} became 0, noise; the others, in their order, "
              f"{'1' if options.binary_labels else '1 and up'}")  # fmt: skip
    if events.n_labels_lost:
        print(
            f"note: {events.n_labels_lost} labelled pixels have no hit; their labels are not kept"
        )


def open_source(path: Path, options: Namespace) -> Source:
    """Return the reader of a file or folder."""
    from dense_imb.base.refusals import Refused
    from dense_imb.data.events import formats

    kind = options.format
    if kind == "auto":
        suffix = "" if path.is_dir() else path.suffix.lower()
        if suffix not in FORMATS or (suffix == "" and not path.is_dir()):
            raise Refused(
                f"a folder or one of {', '.join(filter(None, FORMATS))}",
                path,
                "name its kind with {format}",
            )
        kind = FORMATS[suffix]
    if not path.exists():
        raise FileNotFoundError(f"Expected a file or folder at {path}, got none.")
    places = {name: options[name] for name in ("x", "y", "t", "label") if options[name] is not None}
    if kind == "npy":
        return formats.npy_source(path, options.labels)
    if kind == "npz":
        return formats.npz_source(path, options.key, options.labels)
    if kind == "pt":
        return formats.pt_source(path, options.key, options.labels)
    if kind == "images":
        return formats.image_source(path, options.masks, options.pattern)
    if kind == "timepix":
        return formats.timepix_source(path, options.pattern or "*.txt")
    if kind == "root":
        return formats.root_source(path, options.tree, keep=options.keep, **places)
    if kind == "csv":
        pairs = [pair.partition("=") for pair in options.columns]
        if not all(ours and theirs for ours, _, theirs in pairs):
            raise Refused("{columns} like x=col", " ".join(options.columns))
        columns = {ours: theirs for ours, _, theirs in pairs}
        return formats.csv_source(path, columns, options.event_columns)
    if not places:
        return formats.hdf5_frames_source(path, options.key, options.labels)
    if not {"x", "y", "t"} <= places.keys() or options.offset is None:
        raise Refused("{x}, {y}, {t} and {offset} together", [*places])
    return formats.hdf5_hits_source(path, offset=options.offset, keep=options.keep, **places)


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("convert.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
