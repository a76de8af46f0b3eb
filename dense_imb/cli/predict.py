"""`dense-imb predict`: write the maps of values of images with a trained network."""

from __future__ import annotations

from pathlib import Path

from dense_imb.cli._device import add_device, chosen_device
from dense_imb.cli._parser import Namespace, Parser, print_next
from dense_imb.cli._threads import add_threads

SUMMARY = "write the maps of values that a trained network predicts"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Write the map of values that a trained network predicts for each image, in "
        "float32 and in the units of the training maps: TIFF for PNG, JPEG and TIFF, .npy for "
        ".npy, .nii.gz for NIfTI, or one HDF5 file. The read-out of the run is applied, which "
        "undoes what a balanced loss adds. Finished files are skipped, so a stopped command "
        "continues when it is repeated. Processes started with torchrun or accelerate launch share "
        "the images.",
        epilog="Example:\n  dense-imb predict runs/dose images predicted",
    )
    parser.add_argument(
        "run", type=str, metavar="RUN", help="folder of a run on images with maps of values"
    )
    parser.add_argument(
        "images",
        type=str,
        metavar="IMAGES",
        help="folder of images, one image, or an HDF5 file with the data set image",
    )
    parser.add_argument(
        "out",
        type=str,
        metavar="OUT",
        help="folder for the maps, or a file that ends in .h5 for one data set, values",
    )
    parser.add_argument(
        "--raw", action="store_true", help="leave predictions as trained, without the read-out"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files of an earlier call in OUT"
    )
    add_device(parser)
    add_threads(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")
    return parser


def run(options: Namespace) -> None:
    """Predict as the options say."""
    from dense_imb.engine.processes import joined
    from dense_imb.runs import open_run
    from dense_imb.runs.apply import predict

    device = chosen_device(options)
    with joined(device) as processes:
        done = predict(
            options.run,
            options.images,
            options.out,
            raw=options.raw,
            overwrite=options.overwrite,
            device=device,
            show_progress=not options.quiet,
        )
    if not processes.is_main:
        return
    there = f", {done.n_there} existed before" if done.n_there else ""
    there += " (the share of this process)" if processes.n > 1 else ""
    how = "with the read-out" if done.is_read_out else "as trained"
    print(f"{done.path}: {done.n_done} maps of values predicted, {how}{there}")
    if done.is_read_out and (cost := open_run(options.run).read_out_cost()):
        print(cost)
    if (targets := _words_of_targets(options)) is not None:
        print_next("evaluate", options.run, options.images, *targets)


def _words_of_targets(options: Namespace) -> list[str] | None:
    """Return the words that name the true maps to `evaluate`; None where it cannot read any."""
    from dense_imb.data.images.sources import is_labelled_file
    from dense_imb.data.values.sources import TARGET
    from dense_imb.runs import open_run
    from dense_imb.tasks.values.recipe import default_places

    if Path(options.images).is_dir():
        return ["--targets", "TARGETS"]
    places = default_places(open_run(options.run).config.values, options.images)
    return [] if is_labelled_file(options.images, places.targets or TARGET) else None
