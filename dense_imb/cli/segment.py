"""`dense-imb segment`: the masks of images, by a trained network."""

from __future__ import annotations

from dense_imb.cli._parser import Namespace, Parser

SUMMARY = "write the masks of images, by a run that was trained on images"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Write the mask that a trained network gives each image: with the values that "
        "the run was trained with, as PNG; volumes as .npy, NIfTI as .nii.gz in the same place in "
        "space. With two classes a threshold decides; with more than two each pixel has the "
        "likeliest class. Files that are there already are passed over, so that a stopped command "
        "goes on when it is repeated.",
        epilog="Example:\n  dense-imb segment runs/cracks images segmented --probability",
    )
    parser.add_argument("run", type=str, metavar="RUN", help="the folder of a run")
    parser.add_argument(
        "images",
        type=str,
        metavar="IMAGES",
        help="a folder of images, one image, or an HDF5 file with the data set image",
    )
    parser.add_argument("out", type=str, metavar="OUT", help="the folder for the masks")
    parser.add_argument(
        "--threshold",
        type=float | None,
        help="of two classes: the probability from which on a pixel is of the second one; by "
        "default that of the best F1 on the run's validation images",
    )
    parser.add_argument(
        "--probability", action="store_true", help="also write NAME_probability.npy, in float32"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what OUT holds")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def run(options: Namespace) -> None:
    """Do what the options say."""
    from dense_imb.runs.apply import segment

    done = segment(
        options.run,
        options.images,
        options.out,
        threshold=options.threshold,
        probability=options.probability,
        overwrite=options.overwrite,
        show_progress=not options.quiet,
    )
    there = f", {done.n_there} were there" if done.n_there else ""
    at = "" if done.threshold is None else f" at a probability of {done.threshold:.3g}"
    print(f"{done.folder}: {done.n_done} images segmented{at}{there}")
