"""`dense-imb segment`: write the masks of images with a trained network."""

from __future__ import annotations

from typing import Literal

from dense_imb.cli._device import add_device, chosen_device
from dense_imb.cli._parser import Namespace, Parser, print_next
from dense_imb.cli._threads import add_threads

SUMMARY = "write the masks that a trained network gives images"


def make_parser() -> Parser:
    """Return the parser of the options."""
    parser = Parser(
        description="Write the mask that a trained network gives each image, with the mask values "
        "of the training data: PNG in 2-D, .npy in 3-D, .nii.gz of NIfTI. Two classes are "
        "separated by a threshold; with more than two each pixel has the class that exceeds its "
        "threshold most, or the likeliest in runs without natural probabilities. Finished "
        "files are skipped, so a stopped command continues when it is repeated. Processes started "
        "with torchrun or accelerate launch share the images.",
        epilog="Example:\n  dense-imb segment runs/cracks images segmented --probability",
    )
    parser.add_argument("run", type=str, metavar="RUN", help="folder of a run on images with masks")
    parser.add_argument(
        "images",
        type=str,
        metavar="IMAGES",
        help="folder of images, one image, or an HDF5 file with the data set image",
    )
    parser.add_argument("out", type=str, metavar="OUT", help="folder for the masks")
    parser.add_argument(
        "--threshold",
        type=float | Literal["auto"] | None,
        help="two classes only: smallest probability of the second class; by default the threshold "
        "with the best F1 on the validation images; auto takes that with the best F1 that the "
        "probabilities of IMAGES promise, without labels",
    )
    parser.add_argument(
        "--probability", action="store_true", help="also write NAME_probability.npy, in float32"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace files of an earlier call in OUT"
    )
    add_device(parser)
    add_threads(parser)
    parser.add_argument("--quiet", action="store_true", help="show no progress bars")
    return parser


def run(options: Namespace) -> None:
    """Segment as the options say."""
    from dense_imb.engine.processes import joined
    from dense_imb.runs.apply import segment

    device = chosen_device(options)
    with joined(device) as processes:
        done = segment(
            options.run,
            options.images,
            options.out,
            threshold=options.threshold,
            probability=options.probability,
            overwrite=options.overwrite,
            device=device,
            show_progress=not options.quiet,
        )
    if not processes.is_main:
        return
    there = f", {done.n_there} existed before" if done.n_there else ""
    there += " (the share of this process)" if processes.n > 1 else ""
    at = "" if done.threshold is None else f" at a probability of {done.threshold:.3g}"
    if done.promised_f1 is not None:
        at += f", which promises F1 {done.promised_f1:.3f}"
        at += f" (the validation images chose {done.validation_threshold:.3g})"
    print(f"{done.folder}: {done.n_done} images segmented{at}{there}")
    print_next("evaluate", options.run, options.images, "--masks", "MASKS")
