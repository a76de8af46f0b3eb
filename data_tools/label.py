"""How do hits become images with masks, to segment the kinds of hits?

    python data_tools/make.py kinds --pattern arc ring line cross --frequency 60 25 10 5 \\
        --patterns-per-event 1 3 --signal 60 --noise 200 --train 2000
    python data_tools/label.py train.h5 kinds/train_noisy.h5 --kinds arc ring line cross
    python data_tools/label.py photons.h5 converted.h5 --noise-is-background --time-bins 50

Writes HDF5 with `image` (N, C, H, W), the channels that our networks take, and `mask` (N, H, W):
0 empty, 1 noise, 2 and up the kinds of signal. A pixel has the class of its visible hit. If most
hits are hidden by others, use --time-bins to write volumes (N, 1, D, H, W), the numbers of hits.
Several hits files are merged.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("target", type=str, help="file to write, .h5")
    parser.add_argument("files", type=str, nargs="+", help="hits files with labels, in this order")
    parser.add_argument(
        "--kinds", type=str, nargs="+", default=[], help="names of the labels 1, 2 and so on"
    )
    parser.add_argument(
        "--noise-is-background",
        action="store_true",
        help="class 0 is empty or noise, 1 and up the kinds",
    )
    parser.add_argument(
        "--channels",
        type=Literal["gapped", "hit", "fourier"],
        nargs="+",
        default=["gapped", "hit", "fourier"],
        help="channels of the image: time, 1 at a hit, sin and cos of the time (six channels)",
    )
    parser.add_argument(
        "--rule",
        type=Literal["largest", "smallest"],
        default="largest",
        help="time of the hit that is visible in a shared pixel",
    )
    parser.add_argument(
        "--time-bins", type=int | None, help="write volumes with this number of slices in time"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    return parser


def run(options: Namespace) -> None:
    from dense_imb.data.events.labelled_frames import write_labelled_frames
    from dense_imb.hits import open_hits

    with open_hits(options.files, in_memory=False) as hits:
        made = write_labelled_frames(
            hits,
            options.target,
            kinds=options.kinds or None,
            noise_is_background=options.noise_is_background,
            channels=options.channels,
            rule=options.rule,
            time_bins=options.time_bins,
            overwrite=options.overwrite,
        )
        print(f"{options.target}: {made.n_frames} frames; {made.n_hidden} of {hits.n_hits} hits "
              f"are hidden by others, {made.n_hidden_signal} of them signal")  # fmt: skip
    total = max(sum(made.pixels), 1)
    for k, (name, pixels) in enumerate(zip(made.classes, made.pixels, strict=True)):
        print(f"{k:4}  {name:16} {pixels:14,} pixels  {100 * pixels / total:8.4f} %")


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("label.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
