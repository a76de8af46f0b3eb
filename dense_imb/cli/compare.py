"""`dense-imb compare`: choose a loss by measurements on the user's own data."""

from __future__ import annotations

from pathlib import Path

from dense_imb.base.refusals import refusal
from dense_imb.cli._maps import add_new_maps
from dense_imb.cli._parser import Namespace, Parser, one_line_warnings, quoted
from dense_imb.cli._script import continuable
from dense_imb.cli._threads import add_threads
from dense_imb.config import (
    NETWORKS,
    SAVED,
    HitsConfig,
    ImagesConfig,
    LabelsConfig,
    ModelConfig,
    TrainConfig,
    ValuesConfig,
)

SUMMARY = "compare losses on your own data and choose one"
_CURE = "repeat the command to continue"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Train the same network with one loss after the other, with equal steps and "
        "seeds. Measure each on test data that no run was trained on, and recommend a loss. The "
        "data are images with masks, images with maps of values, whole images with labels, or a "
        "hits file. A loss that fails "
        "is a row that says why. The folder --out keeps everything, the page comparison.html "
        f"first: a comparison that was stopped (SIGTERM, exit code {SAVED}, or Ctrl-C) continues "
        "when the same command is repeated.",
        epilog="Examples:\n  dense-imb compare images --masks masks --labels 0 255 --minutes 20\n"
        "  dense-imb compare images --targets dose --cells organs --cell-kind bits\n"
        "  dense-imb compare patterns.h5 --signal 30 --noise 200\n"
        "  dense-imb compare train.csv --images images --test test.csv",
    )
    parser.add_argument(
        "data",
        type=str,
        metavar="DATA",
        help="folder of images, HDF5 file with data sets image and mask or target, hits file, CSV "
        "file of labels, or CIFAR archive",
    )
    parser.add_argument(
        "--out", type=str, default="comparison", metavar="FOLDER", help="folder of the results"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=20.0,
        help="time budget in minutes; it decides steps, seeds and number of losses",
    )
    add_threads(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")
    runs = parser.add_argument_group("runs")
    runs.add_argument(
        "--loss",
        type=str,
        action="append",
        default=[],
        metavar="LOSS",
        help="a loss to compare: as in `dense-imb train --loss`, or NAME=LOSS, or one of these "
        'names: cross-entropy, "balanced cross-entropy", "weighted cross-entropy", focal, Dice, '
        'DiceCE, Tversky, "balanced softmax", "balanced hard mining", ACB-MSE, "balanced '
        'complement cross-entropy" (three classes or more), and our losses followed by " + Dice"; '
        'for maps of values MSE, MAE, ACB-MSE, "value bins", "value bins of power 1/2" and, with '
        '--cells, "balanced cells"; can be repeated; by default all of them',
    )
    runs.add_argument(
        "--allow-import",
        type=str,
        action="append",
        default=[],
        metavar="PACKAGE",
        help="package that losses may be imported from, for --loss PACKAGE:Class; importing runs "
        "its code; can be repeated",
    )
    runs.add_argument("--seeds", type=int, default=3, help="largest number of seeds of each loss")
    runs.add_argument(
        "--first-seeds",
        type=int | None,
        help="largest number of seeds of the first six losses; by default that of --seeds",
    )
    runs.add_argument(
        "--steps", type=int | None, help="number of steps of each run; by default from the budget"
    )
    runs.add_argument(
        "--batch-size", type=int, default=16, help="number of images or events in a batch"
    )
    runs.add_argument(
        "--model",
        type=str | None,
        metavar="NAME",
        help="network of all runs; by default hits, fast_unet or resnet32, see dense-imb train",
    )
    runs.add_argument(
        "--widths",
        type=int,
        nargs="+",
        default=[],
        help="channels of fast_unet at each resolution; small numbers are fast",
    )
    runs.add_argument(
        "--learning-rate", type=float | None, help="peak learning rate; by default that of train"
    )
    images = parser.add_argument_group("images with masks")
    images.add_argument("--masks", type=str | None, metavar="FOLDER", help="folder of the masks")
    images.add_argument(
        "--labels", type=int, nargs="+", default=[], help="mask value of each class"
    )
    images.add_argument(
        "--above", type=int | None, help="threshold of grey masks; larger values are class 1"
    )
    images.add_argument("--ignore-index", type=int | None, help="mask value of pixels to leave out")
    images.add_argument(
        "--tolerance",
        type=float,
        default=2.0,
        help="distance in pixels within which a pixel counts as correct",
    )
    images.add_argument(
        "--precision", type=float, default=0.5, help="precision at which recall is reported"
    )
    images.add_argument(
        "--false-objects",
        type=float,
        default=1.0,
        help="number of false objects an image at which the recall of objects is reported",
    )
    values = parser.add_argument_group("images with maps of values")
    add_new_maps(values)
    crops = parser.add_argument_group("images with masks or maps of values")
    crops.add_argument(
        "--patch", type=int, nargs="+", default=[], help="size of the training crops, in pixels"
    )
    crops.add_argument(
        "--test-share", type=float, default=0.25, help="fraction of the images held out for tests"
    )
    labels = parser.add_argument_group("whole images")
    labels.add_argument(
        "--images",
        type=str | None,
        metavar="FOLDER",
        help="folder of the images; by default that of the CSV file",
    )
    labels.add_argument("--classes", type=str, nargs="+", default=[], help="class names, in order")
    labels.add_argument(
        "--size", type=int, nargs="+", default=[], help="height and width to resize to, in pixels"
    )
    labels.add_argument(
        "--test",
        type=str | None,
        metavar="CSV",
        help="CSV file of test images; by default CIFAR's test images, or the validation images",
    )
    hits = parser.add_argument_group("hits")
    hits.add_argument(
        "--signal", type=int | None, help="number of signal hits to keep; by default all"
    )
    hits.add_argument("--noise", type=int, default=0, help="number of noise hits to add")
    hits.add_argument(
        "--features",
        type=str,
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns of hits that a network of hits sees beside position and time, such as the "
        "charge",
    )
    return parser


@continuable("dense-imb compare", _CURE)
def run(options: Namespace) -> None:
    """Compare as the options say."""
    import sys

    from dense_imb.compare import compare, write_page
    from dense_imb.compare.figure import save_figure
    from dense_imb.engine import Interrupted

    config = _config(options)
    with one_line_warnings("compare"):
        try:
            table = compare(
                config,
                options.out,
                losses=options.loss or None,
                n_seeds=options.seeds,
                first_seeds=options.first_seeds,
                minutes=options.minutes,
                steps=options.steps,
                test=options.test,
                tolerance=options.tolerance,
                precision=options.precision,
                false_objects=options.false_objects,
                typed=_typed(options),
                is_quiet=options.quiet,
            )
        except Interrupted as stopped:
            print(f"dense-imb compare: {stopped}; {_CURE}", file=sys.stderr)
            sys.exit(stopped.exit_code)
        save_figure(table, Path(options.out) / "comparison.png")
        page = write_page(table)
    print(f"\n{table.text()}\n\n{page}: the page; comparison.png, .csv and .json are beside it")


_CHANGED = {"data", "loss", "seeds", "first_seeds", "minutes", "steps", "out", "quiet"}


def _typed(options: Namespace) -> str:
    """Return the command without its losses, seeds, length and folder."""
    words = ["dense-imb", "compare", options.data]
    for name, default in vars(make_parser().parse_args([options.data])).items():
        value = getattr(options, name)
        if name in _CHANGED or value == default:
            continue
        option = f"--{name.replace('_', '-')}"
        if name == "allow_import":
            words += [word for package in value for word in (option, package)]
        else:
            words += [option, *map(str, value if isinstance(value, list) else [value])]
    return quoted(words)


_OPTIONS = {
    "hits": ("signal", "noise", "features"),
    "images": ("masks", "labels", "above", "ignore_index", "patch"),
    "labels": ("images", "classes", "size", "test"),
    "values": ("targets", "cells", "cell_names", "counted", "level", "patch"),
}
_NAMES = {
    "hits": "hits files",
    "images": "images with masks",
    "labels": "whole images",
    "values": "maps of values",
}


def _config(options: Namespace) -> TrainConfig:
    """Return the config that all runs share."""
    kind = _kind(options)
    for other, names in _OPTIONS.items():
        for name in names:
            if name not in _OPTIONS[kind] and getattr(options, name):
                raise refusal(
                    f"{{{name}}} is an option for {_NAMES[other]}, got {_NAMES[kind]}; drop it."
                )
    model = ModelConfig(name=options.model or NETWORKS[kind])
    if options.widths:
        if model.name != "fast_unet":
            raise refusal("{widths} are those of fast_unet; drop them, or add {model=fast_unet}.")
        model.options = {"widths": list(options.widths)}
    config = TrainConfig(
        model=model, batch_size=options.batch_size, allow_import=list(options.allow_import)
    )
    config.optimizer.learning_rate = options.learning_rate
    if kind == "hits":
        config.hits = HitsConfig(
            train=options.data,
            signal=options.signal,
            noise=options.noise,
            features=list(options.features) or None,
            validation_share=0.2,
        )
    elif kind == "images":
        config.images = ImagesConfig(
            train=options.data,
            masks=options.masks,
            labels=list(options.labels) or None,
            above=options.above,
            ignore_index=options.ignore_index,
            patch=list(options.patch) or None,
            test_share=options.test_share,
        )
    elif kind == "values":
        config.values = ValuesConfig(
            train=options.data,
            targets=options.targets,
            cells=options.cells,
            cell_kind=options.cell_kind,
            cell_names=list(options.cell_names) or None,
            counted=options.counted,
            level=options.level,
            patch=list(options.patch) or None,
            test_share=options.test_share,
        )
    else:
        config.labels = LabelsConfig(
            train=options.data,
            images=options.images,
            classes=list(options.classes) or None,
            size=list(options.size) or None,
        )
    return config


def _kind(options: Namespace) -> str:
    """Return the kind of the data."""
    path = Path(options.data)
    if path.suffix in (".csv", ".gz", ".tgz", ".tar") or (
        path.is_dir() and any(path.glob("*batch*"))
    ):
        return "labels"
    if options.targets is not None or (options.masks is None and _has_targets(path)):
        return "values"
    return "hits" if options.masks is None and _is_hits_file(options.data) else "images"


def _has_targets(path: Path) -> bool:
    """Whether a file holds images with maps of values."""
    from dense_imb.data.images.sources import is_labelled_file

    return path.is_file() and is_labelled_file(path, "target")


def _is_hits_file(path: str) -> bool:
    """Whether a file holds hits, rather than images."""
    from dense_imb.base.hdf5 import open_file

    place = Path(path)
    if not place.is_file():
        return False
    with open_file(place, None, "images or hits in HDF5") as file:
        return "hit" in set(file)  # follows no link
