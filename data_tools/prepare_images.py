"""Are the colours and the sizes of photographs of many cameras alike? Make them so.

    python data_tools/prepare_images.py ISIC_2019_Training_Input isic --grey-world --crop --size 224
    python data_tools/prepare_images.py eyepacs/train eyepacs_512 --crop --size 512

Writes each image of a folder, and of the folders in it, to another: the square in its middle,
grey-world colours, then the size. JPEG stays JPEG; other formats become PNG.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("images", type=str, help="the folder of the images")
    parser.add_argument("out", type=str, help="another folder, for what they become")
    parser.add_argument("--size", type=int | None, help="pixels of either side in the end")
    parser.add_argument("--crop", action="store_true", help="take the square in the middle")
    parser.add_argument(
        "--crop-share", type=float, default=1.0, help="with --crop: its side, of the shorter side"
    )
    parser.add_argument("--grey-world", action="store_true", help="colours as under white light")
    parser.add_argument(
        "--power", type=float, default=1.0, help="with --grey-world: 6 is shades of grey"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def run(options: Namespace) -> None:
    from dense_imb.data.labels.pictures import prepare_pictures

    count = prepare_pictures(
        options.images,
        options.out,
        size=options.size,
        crop=options.crop_share if options.crop else None,
        power=options.power if options.grey_world else None,
        overwrite=options.overwrite,
    )
    print(f"{options.out}: {count} images")


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("prepare_images.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
