"""How do key points become images of values? Writes frames and their heat maps to HDF5.

    python data_tools/key_points.py keypoints.csv images mouse.h5 --sigma 2
    python data_tools/key_points.py CollectedData_Pranav.csv . mouse.h5 --sigma 2 \\
        --shares train=0.8 validation=0.2

The table has the columns image, NAME_x and NAME_y, or the header lines of DeepLabCut; empty cells
mean that a point is not visible, and its map is empty. Data sets: `image` (N, C, H, W), `target`
(N, K, H, W) with the names of the key points in its attribute `names`, `points` and `name`.
With --shares the frames are divided in the order of the table, into mouse_train.h5 and so on:
neighbouring frames of a video are nearly equal, and would leak from training into validation.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("table", type=str, help="CSV file of the key points")
    parser.add_argument("images", type=str, help="folder of the images, all of one size")
    parser.add_argument("target", type=str, help="HDF5 file to write")
    parser.add_argument(
        "--sigma", type=float, default=2.0, help="standard deviation of a blob, in pixels"
    )
    parser.add_argument(
        "--reach", type=float, default=4.0, help="radius of a blob in sigma; it is 0 beyond"
    )
    parser.add_argument(
        "--shares",
        type=str,
        nargs="+",
        default=[],
        help="parts, and the share of frames in each, 1 together",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def run(options: Namespace) -> None:
    from dense_imb.base.files import refuse_existing, refuse_inputs
    from dense_imb.data.values.key_point_tables import read_key_points
    from dense_imb.data.values.write import write_heat_maps

    table = read_key_points(options.table)
    target = Path(options.target)
    parts = {target: table}
    if options.shares:
        shares = _shares(options.shares)
        names = [target.with_name(f"{target.stem}_{name}{target.suffix}") for name in shares]
        parts = dict(zip(names, table.divide(list(shares.values())), strict=True))
    for path in parts:
        refuse_existing(path, options.overwrite)
    refuse_inputs(parts, [options.table, *table.find_images(options.images)])
    for path, part in parts.items():
        n = write_heat_maps(
            part,
            options.images,
            path,
            options.sigma,
            reach=options.reach,
            overwrite=options.overwrite,
        )
        print(f"{path}: {n} images with heat maps of {', '.join(part.names)}")


def _shares(texts: Sequence[str]) -> dict[str, float]:
    from dense_imb.base.refusals import Refused

    shares = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            shares[name] = float(number)
        except ValueError:
            raise Refused("{shares} like train=0.8", repr(text)) from None
    if abs(sum(shares.values()) - 1) > 1e-6:
        rest = 1 - sum(shares.values())
        raise Refused(
            "{shares} that add up to 1",
            " ".join(texts),
            f"the rest may be a part of its own, for example test={rest:.3g}" if rest > 0 else "",
        )
    return shares


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("key_points.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
