"""Do the photographs of many cameras differ in colour and size? Give them the same.

    python data_tools/prepare_images.py ISIC_2019_Training_Input isic --grey-world --crop --size 224
    python data_tools/prepare_images.py eyepacs/train eyepacs_512 --crop --size 512

Writes each image of a folder, and of the folders in it, to another folder: crop to the centre
square, then grey-world colours, then resize. JPEG stays JPEG; other formats become PNG.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dense_imb.cli._parser import Namespace, Parser
from dense_imb.cli._script import run_script, script_parser

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_QUALITY = 95  # of JPEG


def make_parser() -> Parser:
    parser = script_parser(__doc__)
    parser.add_argument("images", type=str, help="folder of the images")
    parser.add_argument("out", type=str, help="another folder, to write to")
    parser.add_argument("--size", type=int | None, help="width and height to resize to, in pixels")
    parser.add_argument("--crop", action="store_true", help="crop to the centre square")
    parser.add_argument(
        "--crop-share",
        type=float,
        default=1.0,
        help="with --crop: side of the square, as a fraction of the shorter side",
    )
    parser.add_argument("--grey-world", action="store_true", help="colours as under white light")
    parser.add_argument(
        "--power", type=float, default=1.0, help="with --grey-world: 6 is shades of grey"
    )
    parser.add_argument(
        "--white",
        type=float | None,
        help="value that becomes white, for images of more than 8 bits: 65535, or 4095 of 12 bits",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    return parser


def run(options: Namespace) -> None:
    count = prepare_images(
        options.images,
        options.out,
        size=options.size,
        crop=options.crop_share if options.crop else None,
        power=options.power if options.grey_world else None,
        white=options.white,
        overwrite=options.overwrite,
    )
    print(f"{options.out}: {count} images")


def correct_colours(image: NDArray[np.uint8], power: float = 1.0) -> NDArray[np.uint8]:
    """Return the colours as under white light, assuming that the mean of the scene is grey.

        p_c <- p_c M / M_c,   M_c = mean(p_c^power)^(1 / power),   M = mean of the M_c

    Lamps of other colours, and other cameras, then look the same. A power of 6 is "shades of grey"
    (Finlayson and Trezzi, 2004), in which bright pixels count more; skin lesion recipes use it.

    Args:
        image: (height, width, 3) colours.
        power: 1 or more.

    Example:
        >>> image = np.array([[[200, 100, 60], [100, 50, 30]]], np.uint8)
        >>> correct_colours(image).tolist()
        [[[120, 120, 120], [60, 60, 60]]]
    """
    import numpy as np

    from dense_imb.base.checks import check_at_least

    check_at_least("power", power, 1)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"Expected `image` (height, width, 3), got {image.shape}.")
    pixels = image.astype(np.float64)
    mean = (pixels**power).mean((0, 1)) ** (1 / power)
    gain = np.where(mean > 0, mean.mean() / np.maximum(mean, 1e-9), 1.0)
    corrected: NDArray[np.uint8] = np.rint((pixels * gain).clip(0, 255)).astype(np.uint8)
    return corrected


def crop_centre(image: NDArray[np.uint8], share: float = 1.0) -> NDArray[np.uint8]:
    """Return the centre square; its side is a fraction of the shorter side.

    Example:
        >>> crop_centre(np.arange(15, dtype=np.uint8).reshape(3, 5, 1))[..., 0].tolist()
        [[1, 2, 3], [6, 7, 8], [11, 12, 13]]
    """
    if not 0 < share <= 1:
        raise ValueError(f"Expected `share` above 0 and up to 1, got {share}.")
    height, width = image.shape[:2]
    side = max(math.floor(share * min(height, width)), 1)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def prepare_images(
    images: str | Path,
    out: str | Path,
    *,
    size: int | None = None,
    crop: float | None = None,
    power: float | None = None,
    white: float | None = None,
    overwrite: bool = False,
    show_progress: bool = True,
) -> int:
    """Write each image of a folder, and of the folders in it, ready for training.

    Args:
        images: folder to read.
        out: another folder; names stay, and so does JPEG. Other formats become PNG.
        size: width and height of the result; None keeps the size.
        crop: side of the centre square to crop to first, as a fraction of the shorter side.
        power: see `correct_colours`, which follows the crop; None leaves the colours.
        white: value that becomes 255 in images of more than 8 bits, which are refused without it.
        overwrite: replace files that exist.
        show_progress: draw a bar on stderr.

    Returns:
        The number of images.
    """
    import numpy as np

    from dense_imb.base.checks import check_at_least
    from dense_imb.base.files import refuse_existing, refuse_inputs, write_whole
    from dense_imb.base.progress import tqdm
    from dense_imb.data.labels.tables import SUFFIXES, read_colours

    root, folder = Path(images), Path(out)
    if size is not None:
        check_at_least("size", size, 1)
    if white is not None and not white > 0:
        raise ValueError(f"Expected `white` above 0, got {white}.")
    if not root.is_dir():
        raise ValueError(f"Expected a folder of images, got {root}, which is none.")
    if folder.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"Expected another folder than {root} to write to, got {folder}.")
    paths = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not paths:
        raise ValueError(f"Expected images ({', '.join(SUFFIXES)}) in {root}, got none.")
    targets = [_target(path, root, folder) for path in paths]
    if len(set(targets)) < len(targets):
        twice = min(path for path in targets if targets.count(path) > 1)
        raise ValueError(f"Expected files of different names, got {twice.name} twice.")
    for target in targets:
        refuse_existing(target, overwrite)
    refuse_inputs(targets, paths)

    def change(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if crop is not None:
            colours = crop_centre(colours, crop)
        return colours if power is None else correct_colours(colours, power)

    wanted = None if size is None else (size, size)
    both = list(zip(paths, targets, strict=True))
    for path, target in tqdm(both, "prepare", unit="image", disable=not show_progress):
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = read_colours(path, wanted, change=change, white=white)
        write_whole(target, partial(_save, np.moveaxis(pixels, 0, -1), target.suffix))
    return len(paths)


def _target(path: Path, root: Path, folder: Path) -> Path:
    target = folder / path.relative_to(root)
    return target if path.suffix.lower() in (".jpg", ".jpeg") else target.with_suffix(".png")


def _save(pixels: NDArray[np.uint8], suffix: str, to: Path) -> None:
    import numpy as np
    from PIL import Image

    is_png = suffix.lower() == ".png"
    options: dict[str, Any] = {} if is_png else {"quality": _QUALITY}
    colours = Image.fromarray(np.ascontiguousarray(pixels))
    colours.save(to, format="PNG" if is_png else "JPEG", **options)


def main(arguments: Sequence[str] | None = None) -> int:
    return run_script("prepare_images.py", make_parser(), run, arguments)


if __name__ == "__main__":
    sys.exit(main())
