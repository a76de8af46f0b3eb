"""`dense-imb compare`: which loss to take, measured on the user's own data."""

from __future__ import annotations

from pathlib import Path

from dense_imb.base.refusals import refusal
from dense_imb.cli._parser import Namespace, Parser, one_line_warnings
from dense_imb.config import SAVED, HitsConfig, ImagesConfig, LabelsConfig, ModelConfig, TrainConfig

SUMMARY = "find out which loss to take, on your own data"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Train the same network with one loss after the other, alike in steps, seeds "
        "and all else, measure each on data that none has seen, and say which loss to take and "
        "why. The data are images with masks, whole images with labels, or a hits file. A budget "
        "says how long it may take: steps follow from it. Everything is kept in a folder, and a "
        f"comparison that was stopped (SIGTERM, exit code {SAVED}, or Ctrl-C) goes on "
        "when the same command is given again.",
        epilog="Examples:\n  dense-imb compare images --masks masks --labels 0 255 --minutes 20\n"
        "  dense-imb compare patterns.h5 --signal 30 --noise 200\n"
        "  dense-imb compare train.csv --images images --test test.csv",
    )
    parser.add_argument(
        "data",
        type=str,
        help="a folder of images, an HDF5 file with data sets image and mask, a hits file, a CSV "
        "file of labels, or a CIFAR archive",
    )
    parser.add_argument("--masks", type=str | None, help="the folder of the images' masks")
    parser.add_argument("--out", type=str, default="comparison", help="the folder of the results")
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="the budget; steps, seeds and losses follow"
    )
    parser.add_argument(
        "--loss",
        type=str,
        action="append",
        default=[],
        metavar="LOSS",
        help="a loss that competes, as of `dense-imb train --loss`, or NAME=LOSS, or one of these "
        'names: cross-entropy, "balanced cross-entropy", "weighted cross-entropy", focal, Dice, '
        'DiceCE, Tversky, "balanced softmax", "balanced hard mining", ACB-MSE, "balanced '
        'complement cross-entropy" (with three classes or more), and ours with " + Dice" behind; '
        "may be repeated; all of them by default",
    )
    parser.add_argument("--seeds", type=int, default=3, help="of each loss, at most")
    parser.add_argument(
        "--first-seeds", type=int | None, help="of the first six losses, if they shall have more"
    )
    parser.add_argument("--steps", type=int | None, help="of each run, whatever the budget")
    parser.add_argument("--batch-size", type=int, default=16, help="images or events of a step")
    parser.add_argument(
        "--model",
        type=str | None,
        help="network of all runs; by default fast_unet, for whole images resnet32",
    )
    parser.add_argument(
        "--widths", type=int, nargs="+", default=[], help="of fast_unet; narrow ones are quick"
    )
    parser.add_argument("--learning-rate", type=float, default=6e-3, help="at its peak")
    parser.add_argument("--labels", type=int, nargs="+", default=[], help="mask values by class")
    parser.add_argument(
        "--above",
        type=float | None,
        help="threshold of grey masks; larger values are class 1",
    )
    parser.add_argument(
        "--images", type=str | None, help="folder of whole images; by default that of the CSV file"
    )
    parser.add_argument(
        "--classes", type=str, nargs="+", default=[], help="class names of whole images, in order"
    )
    parser.add_argument(
        "--size", type=int, nargs="+", default=[], help="height and width of whole images"
    )
    parser.add_argument(
        "--test",
        type=str | None,
        help="CSV file of test images; by default the validation images are scored, or CIFAR's "
        "test images",
    )
    parser.add_argument("--ignore-index", type=int | None, help="mask value that is left out")
    parser.add_argument("--patch", type=int, nargs="+", default=[], help="size of the crops")
    parser.add_argument(
        "--test-share", type=float, default=0.25, help="of the images, measured and never seen"
    )
    parser.add_argument(
        "--tolerance", type=float, default=2.0, help="of images: pixels, of the tolerant F1"
    )
    parser.add_argument(
        "--precision", type=float, default=0.5, help="of images: at which recall is told"
    )
    parser.add_argument("--signal", type=int | None, help="of hits: signal hits to keep")
    parser.add_argument("--noise", type=int, default=0, help="of hits: noise hits to add")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def run(options: Namespace) -> None:
    """Do what the options say."""
    import sys

    from dense_imb.compare import compare
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
                is_quiet=options.quiet,
            )
        except Interrupted as stopped:
            print(f"dense-imb compare: {stopped}; the same command goes on", file=sys.stderr)
            sys.exit(stopped.exit_code)
    path = Path(options.out) / "comparison.png"
    save_figure(table, path)
    print(f"\n{table.text()}\n\n{path}  the figure; comparison.csv and .json beside it")


_OPTIONS = {
    "hits": ("signal", "noise"),
    "images": ("masks", "labels", "above", "ignore_index", "patch"),
    "labels": ("images", "classes", "size", "test"),
}
_NAMES = {"hits": "hits files", "images": "images with masks", "labels": "whole images"}


def _config(options: Namespace) -> TrainConfig:
    """Return the config that all runs share."""
    kind = _kind(options)
    for other, names in _OPTIONS.items():
        for name in names:
            if other != kind and getattr(options, name):
                raise refusal(
                    f"{{{name}}} is an option for {_NAMES[other]}, got {_NAMES[kind]}; drop it."
                )
    default = "resnet32" if kind == "labels" else "fast_unet"
    model = ModelConfig(name=options.model or default)
    if options.widths:
        model.options = {"widths": list(options.widths)}
    config = TrainConfig(model=model, batch_size=options.batch_size)
    config.optimizer.learning_rate = options.learning_rate
    if kind == "hits":
        config.hits = HitsConfig(
            train=options.data, signal=options.signal, noise=options.noise, validation_share=0.2
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
    return "hits" if options.masks is None and _is_hits_file(options.data) else "images"


def _is_hits_file(path: str) -> bool:
    """Whether a file holds hits, rather than images."""
    import h5py

    if not Path(path).is_file():
        return False
    try:
        with h5py.File(path) as file:
            return "hit" in file
    except OSError as problem:
        raise ValueError(f"Expected images or an HDF5 file in {path}, got: {problem}.") from None
