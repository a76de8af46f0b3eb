"""`dense-imb convert`: a user's own data become a hits file, and hits become tables or frames."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dense_imb.base.files import missing_path, refuse_inputs
from dense_imb.base.refusals import Refused, literal, refusal
from dense_imb.cli._parser import Namespace, Parser, print_next, quoted

if TYPE_CHECKING:
    from dense_imb.data.events.convert import Converted
    from dense_imb.data.events.formats import Source
    from dense_imb.data.events.sensors import PositionTable
    from dense_imb.hits import Sensors

SUMMARY = "make a hits file of your own data, or tables and frames of a hits file"
_FORMATS = {
    ".npy": "npy", ".npz": "npz", ".pt": "pt", ".pth": "pt", ".csv": "csv", ".tsv": "csv",
    ".dat": "csv", ".txt": "timepix", ".h5": "hdf5", ".hdf5": "hdf5", ".root": "root",
    ".parquet": "parquet", "": "images",
}  # fmt: skip
# options with a meaning for outputs of hits files
_OF_OUTPUTS = ("files", "out", "format", "overwrite", "quiet", "labels", "rule", "flat")
_TABLES = (".csv", ".root", ".parquet")
_EXAMPLES = """Examples:
  dense-imb convert hits.csv hits.h5 --width 88 --height 128 --columns x=padx,y=pady,t=time,event=run,event
  dense-imb convert hits.root hits.h5 --bin x=1.5 y=1.5 t=0.5 --columns label=truth
  dense-imb convert hits.parquet hits.h5 --sensors pos_x,pos_y,pos_z --unit mm
  dense-imb convert clean.h5 clean.csv"""  # noqa: E501


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Make a hits file, .h5, of hits or frames in another format: CSV, ROOT (TTree "
        "or RNTuple), HDF5 with flat arrays, parquet, .npz; frames as .npy, .npz, .pt, HDF5, PNG, "
        "TIFF or Timepix text. Or write a hits file, denoised ones included, as .csv, .root, "
        ".parquet, .npz, or as frames: .npy, .npz, .h5, or a folder of PNG images. Nothing is "
        "clipped, rounded or dropped unasked: an error about a value names the option that "
        "makes it fit.",
        epilog=_EXAMPLES,
    )
    add = parser.add_argument
    add("files", type=str, nargs="+", metavar="IN", help="files or folders to convert")
    add("out", type=str, metavar="OUT", help="hits file to write, or table or frames of one")
    add(
        "--format",
        type=Literal[
            "auto", "npy", "npz", "pt", "csv", "timepix", "hdf5", "root", "parquet", "images"
        ],
        default="auto",
        help="format of the input; by default from its suffix, images for a folder",
    )
    add("--overwrite", action="store_true", help="replace files that exist")
    add("--compression", type=int | None, help="gzip level of the hits file, 1 to 9")
    add("--quiet", action="store_true", help="show no progress bars")
    _add_columns(parser)
    _add_places(parser)
    _add_frames(parser)
    return parser


def _add_columns(parser: Parser) -> None:
    add = parser.add_argument_group("columns of hits").add_argument
    add(
        "--columns",
        type=str,
        nargs="*",
        default=[],
        metavar="OURS=THEIRS",
        help="names in the input of x, y, t, sensor, label, event and offset, for example "
        "x=padx,y=pady; event=run,event for numbers of events that restart in each run",
    )
    add(
        "--event-columns",
        type=str,
        nargs="*",
        default=[],
        metavar="NAME",
        help="columns of hits with one value an event, to keep with the events",
    )
    add(
        "--keep",
        type=str,
        nargs="*",
        metavar="NAME",
        help="further columns to keep, by default all that hold numbers; a column that is read "
        "as x, y or t can be named too, to keep its values beside their bins",
    )
    add(
        "--by-block",
        action="store_true",
        help="one event for each block of consecutive rows with one event number",
    )
    add("--tree", type=str | None, help="tree of a ROOT file")
    add(
        "--source-column",
        type=str | None,
        metavar="NAME",
        help="name of a new column of the events: number of their input, from 0",
    )
    add("--binary-labels", action="store_true", help="write label 1 for every label except 0")
    add(
        "--noise-label",
        type=int | None,
        help="label of noise in the input: it becomes 0, the others 1 and up",
    )
    for name in ("x", "y", "t", "offset", "label"):
        add(f"--{name}", type=str | None, metavar="NAME", help=f"short for --columns {name}=NAME")


def _add_places(parser: Parser) -> None:
    add = parser.add_argument_group("places and times").add_argument
    add("--width", type=int | None, help="width of the frame in pixels, for lists of hits")
    add("--height", type=int | None, help="height of the frame in pixels, for lists of hits")
    add("--time-steps", type=int | None, help="last time step; by default the largest time")
    add("--time-scale", type=float, default=1.0, help="factor for the times")
    add(
        "--time-offset",
        type=float,
        default=0.0,
        help="number added to the scaled times: 1 if they start at 0",
    )
    add(
        "--relative-times",
        action="store_true",
        help="times counted from the first hit of their event",
    )
    add(
        "--bin",
        type=str,
        nargs="+",
        action="extend",
        default=[],
        metavar="AXIS=WIDTH",
        help="bins for coordinates in mm and times in ns: x=1.5 y=1.5 t=0.5; x=1.5:LOW:HIGH with "
        "given ends, the same for several files. Times in time step t are around "
        "LOW + (t - 1/2) * WIDTH",
    )
    add(
        "--sensors",
        type=str | None,
        metavar="X,Y,Z",
        help="columns of the positions of hits, to make a table of sensors of; six with directions",
    )
    add(
        "--sensor-table",
        type=str | None,
        metavar="FILE",
        help="table of sensors: CSV x,y,z[,dx,dy,dz], a row each, by their number",
    )
    add(
        "--unit",
        type=Literal["mm", "cm", "m"] | None,
        metavar="{mm,cm,m}",
        help="unit of positions (default: mm for --bin)",
    )
    add("--x-mm", type=float | None, help="width of a pixel in mm")
    add("--y-mm", type=float | None, help="height of a pixel in mm")
    add("--t-ns", type=float | None, help="duration of a time step in ns")


def _add_frames(parser: Parser) -> None:
    add = parser.add_argument_group("frames").add_argument
    add("--key", type=str | None, help="name of the frames in .npz, .pt or HDF5")
    add("--labels", type=str | None, help="label frames: a .npy file, or a name beside --key")
    add("--masks", type=str | None, help="folder of label images of the same names")
    add("--pattern", type=str | None, help='files of a folder to use, for example "real_*"')
    add(
        "--rule",
        type=Literal["largest", "smallest", "count"],
        default="largest",
        help="back to frames: time of a shared pixel",
    )
    add("--flat", action="store_true", help="write arrays of hits, not frames, to .npz")


def run(options: Namespace) -> None:
    """Convert as the options say."""
    from dense_imb.data.events.formats.hdf5 import is_hits_file

    files = [Path(name) for name in options.files]
    ours = [
        path.suffix in (".h5", ".hdf5") and options.format in ("auto", "hdf5")
        and is_hits_file(path) for path in files
    ]  # fmt: skip
    _refuse_own_input(options, all(ours))
    if all(ours):
        _write_hits(options)
    elif any(ours):
        raise ValueError(
            f"Expected inputs of one kind, got the hits file {files[ours.index(True)]} among "
            "others; `data_tools/merge.py` joins hits files."
        )
    else:
        _read_others(files, options)


def _refuse_own_input(options: Namespace, writes_labels: bool) -> None:
    """Refuse to write to a file that is read, whatever its name."""
    beside = [options.masks, options.sensor_table]
    outputs = [options.out, *([options.labels] if writes_labels and options.labels else [])]
    if not writes_labels:
        beside.append(options.labels)
    refuse_inputs(outputs, [*options.files, *beside])


def _write_hits(options: Namespace) -> None:
    """Write hits files as a table or as frames."""
    from dense_imb.data.events.dense import to_frames
    from dense_imb.data.events.tables import to_table
    from dense_imb.hits import Sensors, open_hits

    parser = make_parser()
    for name, value in vars(options).items():
        if name not in _OF_OUTPUTS and value != parser.get_default(name):
            raise refusal(
                f"{{{name}}} is for other formats that become a hits file; a hits file is written "
                "with all its columns as they are, drop it."
            )
    out = Path(options.out)
    with open_hits(options.files, in_memory=False) as hits:
        is_table = out.suffix == ".npz" and (options.flat or isinstance(hits.geometry, Sensors))
        if out.suffix in _TABLES or is_table:
            if options.labels is not None:
                raise refusal("{labels} is for frames; tables have the labels anyway, drop it.")
            notes = to_table(hits, out, overwrite=options.overwrite, progress=not options.quiet)
            print(f"{out}: {len(hits)} events, {hits.n_hits} hits")
            for note in notes:
                print(note)
            back = out.with_suffix(".h5")
            back = back.with_stem(f"{back.stem}_again") if back.exists() else back
            words = [str(word) for word in (out, back, *_words_back(hits, out))]
            print(f"the way back: dense-imb convert {quoted(words)}")
            return
        if isinstance(hits.geometry, Sensors):
            raise Refused(
                "a table for hits of sensors, which have no frame",
                out.name,
                "write .csv, .root, .parquet or .npz",
            )
        if "/hit/label" in hits.columns and options.labels is None and out.suffix in (".npy", ""):
            _note("labels not written; {labels=FILE} writes them")
        n_hidden = to_frames(
            hits,
            out,
            labels=options.labels,
            rule=options.rule,
            overwrite=options.overwrite,
            progress=not options.quiet,
        )
        print(f"{out}: {len(hits)} frames; {n_hidden} of {hits.n_hits} hits are hidden by others")


def _words_back(hits: Any, out: Path) -> list[object]:
    """Return the options that make a hits file of a table again."""
    from dense_imb.data.events.tables import sensors_path
    from dense_imb.hits import Sensors

    geometry = hits.geometry
    words: list[object] = []
    if isinstance(geometry, Sensors):
        table = sensors_path(out)
        words = [] if table is None else ["--sensor-table", table, "--unit", "m"]
    else:
        for name, value in vars(geometry).items():
            if value is not None:
                words += [f"--{name.replace('_', '-')}", value]
    if out.suffix == ".csv":
        with out.open(encoding="ascii") as file:
            header = file.readline().strip().split(",")
        kept = [name for name in header if f"/event/{name}" in hits.columns]
        words += ["--event-columns", *kept] if kept else []
    return words


def _read_others(files: Sequence[Path], options: Namespace) -> None:
    """Write data in other formats to a hits file."""
    from dense_imb.data.events.convert import to_hits
    from dense_imb.data.events.formats import chain_sources
    from dense_imb.data.events.placing import read_bins

    if Path(options.out).suffix not in (".h5", ".hdf5"):
        raise ValueError(f"Expected the name of a hits file, .h5, got {options.out}.")
    bins = read_bins(options.bin)
    table = _sensors(options)
    columns = _columns(options)
    needed: tuple[str, ...] | None = None
    if bins:
        needed = ("x", "y", "t")
    elif options.sensor_table is not None:
        needed = ("sensor", "t")
    elif options.sensors is not None:
        needed = (*options.sensors.split(","), "t")
    sources = [open_source(path, options, columns, needed) for path in files]
    source = chain_sources(sources, options.source_column)
    names = (
        *("width", "height", "time_steps", "x_mm", "y_mm", "t_ns", "time_scale", "time_offset"),
        *("relative_times", "binary_labels", "noise_label", "overwrite", "compression"),
    )
    done = to_hits(
        source,
        options.out,
        **{name: options[name] for name in names},
        bin=bins,
        sensors=table,
        unit=options.unit or "mm",
        progress=not options.quiet,
        on_note=lambda note: _note(note, "warning"),
    )
    _print_summary(done, source, options)


def _columns(options: Namespace) -> dict[str, str | list[str]]:
    from dense_imb.data.events.formats.mapping import read_columns

    short = [f"{n}={options[n]}" for n in ("x", "y", "t", "offset", "label") if options[n]]
    return read_columns([*options.columns, *short])


def _sensors(options: Namespace) -> Sensors | PositionTable | None:
    """Return the table of sensors of a file, or the columns to make one of; None for a grid."""
    from dense_imb.data.events.sensors import PositionTable, read_sensors

    if options.sensor_table is not None and options.sensors is not None:
        raise refusal("{sensors} makes a table, {sensor_table} reads one; choose one.")
    if options.sensor_table is not None:
        return read_sensors(options.sensor_table, options.unit)
    if options.sensors is None:
        return None
    if options.unit is None:
        raise Refused("the unit of the positions {sensors}", "none", "add {unit=mm}, cm or m")
    return PositionTable(tuple(options.sensors.split(",")), options.unit)


def open_source(
    path: Path,
    options: Namespace,
    columns: dict[str, str | list[str]],
    needed: Sequence[str] | None,
) -> Source:
    """Return the reader of a file or folder."""
    from dense_imb.data.events import formats
    from dense_imb.data.events.formats.arrays import has_flat_arrays
    from dense_imb.data.events.formats.hdf5 import has_frames

    kind = _format(path, options.format)
    if not path.exists():
        raise missing_path(path, "a file or folder", lambda _: True)
    keep = None if options.keep is None else _names(options.keep)
    by_row = {"event_columns": _names(options.event_columns), "by_block": options.by_block}
    if kind == "csv":
        return formats.csv_source(
            path, columns, needed=needed, keep=keep, progress=not options.quiet, **by_row
        )
    if kind == "root":
        return formats.root_source(path, options.tree, columns, needed=needed, keep=keep, **by_row)
    if kind == "parquet":
        return formats.parquet_source(path, columns, needed=needed, keep=keep, **by_row)
    is_frames = options.key is not None or options.labels is not None
    if kind == "hdf5" and not is_frames and (columns or needed or not has_frames(path)):
        return formats.hdf5_hits_source(
            path, columns, needed=needed, keep=keep, unit=options.unit, **by_row
        )
    if kind == "npz" and not is_frames and (columns or has_flat_arrays(path)):
        return formats.npz_hits_source(path, columns, needed=needed, keep=keep)
    if columns or needed not in (None, ("x", "y", "t")):
        raise refusal(
            f"{{columns}} and {{sensors}} are for lists of hits, got frames in {literal(path)}; "
            "drop them."
        )
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
    return formats.hdf5_frames_source(path, options.key, options.labels)


def _format(path: Path, given: str) -> str:
    if given != "auto":
        return given
    suffix = "" if path.is_dir() else path.suffix.lower()
    if suffix not in _FORMATS or (suffix == "" and not path.is_dir()):
        raise Refused(
            f"a folder or one of {', '.join(filter(None, _FORMATS))}",
            path,
            "name its kind with {format}",
        )
    return _FORMATS[suffix]


def _names(words: Sequence[str]) -> list[str]:
    return [name for word in words for name in word.split(",") if name]


def _print_summary(done: Converted, source: Source, options: Namespace) -> None:
    from dense_imb.data.events.formats.mapping import similar_column

    print(f"{options.out}: {done.n_events} events, {done.n_hits} hits, {done.geometry.size_text()}")
    for line in done.lines:
        print(f"  {line}")
    for kind, names in (("hits", done.hit_names), ("events", done.event_names)):
        if names:
            print(f"  further columns of {kind}: {', '.join(names)}")
    if done.bins:
        print(f"  the same bins for other files: --bin {' '.join(done.bins)}")
    if options.noise_label is not None:
        print(f"label {options.noise_label} became 0, noise; the others, in their order, "
              f"{'1' if options.binary_labels else '1 and up'}")  # fmt: skip
    if source.n_labels_lost:
        print(
            f"note: {source.n_labels_lost} labelled pixels have no hit; their labels are not kept"
        )
    if not done.has_labels:
        name = similar_column("label", done.hit_names) or "NAME"
        print(f"  no labels: enough to denoise, not to train; --columns label={name} reads them")
    print_next("inspect", options.out)


def _note(sentence: str, kind: str = "note") -> None:
    """Print a note on stderr, with options as the command line writes them."""
    print(f"{kind}: {make_parser().sentence(refusal(sentence))}", file=sys.stderr)
