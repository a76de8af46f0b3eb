"""Which object does each pixel of a mask belong to? Writes a map of instances for each image.

    python data_tools/instances.py maps images --masks masks --labels 0 255
    python data_tools/instances.py maps data.h5 --kind components

The maps, .npy files of the names of the images, are for a loss per instance:

    dense-imb train images ... --loss 'CrossEntropyLoss(per="instance")' --images.instances maps

Training makes such maps by itself. The nearest instances of volumes take long: store them once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("target", type=str, help="folder to write the maps to")
    parser.add_argument("images", type=str, help="folder of images, or HDF5 file with masks")
    parser.add_argument("--masks", type=str | None, metavar="FOLDER", help="folder of the masks")
    parser.add_argument(
        "--kind",
        type=Literal["nearest", "components"],
        default="nearest",
        help="nearest component at each pixel, or components with 0 around them",
    )
    parser.add_argument("--labels", type=int, nargs="+", help="mask value of each class")
    parser.add_argument(
        "--above", type=float | None, help="threshold of grey masks; larger values are class 1"
    )
    parser.add_argument("--ignore-index", type=int | None, help="mask value of pixels to leave out")
    parser.add_argument("--overwrite", action="store_true", help="replace maps that exist")
    return parser


def run(options: Namespace) -> None:
    from dense_imb.data.images.instances import write_instances
    from dense_imb.data.images.labelled import open_labelled

    images = open_labelled(
        options.images,
        options.masks,
        labels=options.labels,
        above=options.above,
        ignore_index=options.ignore_index,
    )
    paths = write_instances(images, options.target, options.kind, overwrite=options.overwrite)
    print(f"{options.target}: {len(paths)} maps of {options.kind}")


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("instances.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
