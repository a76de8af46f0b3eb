"""Image files decoded with Pillow: every value as stored and upright, or one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dense_imb.base.files import UnreadableFileError, decoding

PICTURES = ("PNG", "JPEG", "TIFF", "BMP")  # formats of Pillow, none of which runs another program
LARGEST = 1 << 28  # pixels of an image; more means a damaged header or a bomb
_DEFLATE = 1032  # the most bytes that one byte of a PNG stands for
_WORDS = {"LAB": "CIELAB", "YCbCr": "YCbCr", "HSV": "HSV", "CMYK": "CMYK"}
_WIDE = "on one scale for all images, for example with data_tools/prepare_images.py --white 65535"
_WIDTH, _HEIGHT, _BITS, _MEANING, _SIGN = 256, 257, 258, 262, 339  # tags of TIFF
_ORIENTATION = 274  # tag of TIFF and EXIF
_WHITE_IS_0 = 0  # of _MEANING
_UNSIGNED, _SIGNED = 1, 2  # of _SIGN
_SCALE = {"L;2": 85, "L;4": 17}  # by which Pillow stretches 2 and 4 bits to 8


@contextmanager
def open_picture(path: Path, wanted: str = "an image") -> Iterator[Any]:
    """Open a PNG, JPEG, TIFF or BMP with Pillow, after checking the size that it declares.

    Other formats are refused, whatever the name of the file: Pillow hands some of them, such as
    EPS, to other programs, which run the code in them. The pixels are not decoded yet.

    Args:
        path: path of the file.
        wanted: what the file should hold, for errors.
    """
    from PIL import Image, UnidentifiedImageError

    with decoding(f"{wanted} in {path}"):
        try:
            opened = Image.open(path, formats=PICTURES)
        except UnidentifiedImageError as problem:
            raise ValueError("a file of another kind, or a damaged one") from problem
        with opened as image:
            if image.width * image.height > LARGEST:
                size = f"{image.width} x {image.height}"
                raise ValueError(f"it declares {size} pixels, more than {LARGEST:,}")
            if image.format == "PNG":
                _check_holds(image, path)
            image.filename = ""  # or Pillow maps the file, and scrambles a TIFF that it turns
            yield image


def upright_size(image: Any) -> tuple[int, int]:
    """Return height and width of an opened image, turned as its EXIF orientation says."""
    if image.format == "TIFF":  # the size before decoding differs between versions of Pillow
        height, width, orientation = (
            image.tag_v2.get(t, 1) for t in (_HEIGHT, _WIDTH, _ORIENTATION)
        )
    else:
        height, width = image.height, image.width
        orientation = _orientation(image, from_header=True)
    return (width, height) if orientation > 4 else (height, width)


def count_bands(image: Any) -> int:
    """Return the number of channels of `decode`, from the header; a palette has those of colours.

    Args:
        image: opened image.
    """
    if image.mode in ("P", "PA"):
        return 4 if image.mode == "PA" or "transparency" in image.info else 3
    return len(image.getbands())


def decode(image: Any, path: Path, *, as_indices: bool = False) -> NDArray[Any]:
    """Return (H, W) or (H, W, channels) of the current page, as stored; nothing is rescaled.

    An image whose EXIF orientation says so is turned upright, as viewers show it. Values that
    Pillow cannot read whole are refused: several channels of 16 bits, CIELAB, CMYK.

    Args:
        image: opened image.
        path: path of the file, for errors.
        as_indices: return the indices of a palette, which are the labels of a mask; by default
            its colours.
    """
    raw = _raw_mode(image)
    _check_mode(image, raw, path)
    if image.format == "PNG":
        _check_sums(path)
    if image.mode in ("P", "PA") and not as_indices:
        has_alpha = image.mode == "PA" or "transparency" in image.info
        pixels = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    else:
        pixels = np.asarray(image)
    pixels = _as_stored(pixels, image, raw)
    return pixels if image.format == "TIFF" else turned(pixels, _orientation(image))


def decode_colours(image: Any, path: Path, white: float | None = None) -> NDArray[np.uint8]:
    """Return (H, W, 3) red, green and blue of 8 bits, upright; grey has three equal.

    Transparency is dropped. Values of more than 8 bits are refused without `white`.

    Args:
        image: opened image.
        path: path of the file, for errors.
        white: value of more than 8 bits that becomes 255, as larger ones do.
    """
    raw, is_converted = _raw_mode(image), image.mode in ("CMYK", "YCbCr")
    pixels = np.asarray(image.convert("RGB")) if is_converted else decode(image, path)
    if is_converted and image.format != "TIFF":
        pixels = turned(pixels, _orientation(image))
    if pixels.dtype == bool:
        pixels = pixels * np.uint8(255)
    elif image.mode == "L" and raw[:3] in _SCALE:
        pixels = pixels * np.uint8(_SCALE[raw[:3]])  # white is 255
    if pixels.dtype != np.uint8 and white is not None:
        pixels = np.rint(pixels.clip(0, white) * (255 / white)).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise UnreadableFileError(
            f"Expected {path} with 8 bits a value, got {pixels.dtype}, which would be clipped at "
            f"255; write it with 8 bits, {_WIDE}."
        )
    if pixels.ndim == 2:
        pixels = np.stack([pixels] * 3, -1)
    colours: NDArray[np.uint8] = pixels[..., :3] if pixels.shape[-1] > 2 else pixels[..., [0] * 3]
    return colours


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return pixels (H, W, ...) turned as an EXIF orientation says.

    Example:
        >>> turned(np.array([[1, 2], [3, 4]]), 6).tolist()  # the camera was turned to the left
        [[3, 1], [4, 2]]
    """
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)  # 5; 6, 7 and 8 mirror it, too
    rows, columns = {2: (0, 1), 3: (1, 1), 4: (1, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}.get(
        orientation, (0, 0)
    )
    return pixels[:: -1 if rows else 1, :: -1 if columns else 1]


def _check_holds(image: Any, path: Path) -> None:
    """Refuse a PNG that is too small to hold the pixels that it declares."""
    least = image.width * image.height // 8  # bytes, at one bit a pixel
    if least > _DEFLATE * path.stat().st_size:
        size = f"{image.width} x {image.height}"
        raise ValueError(f"it declares {size} pixels, more than so small a file can hold")


def _check_sums(path: Path) -> None:
    """Compare the chunks of a PNG with their checksums, which Pillow ignores as it decodes."""
    from PIL import Image

    with Image.open(path, formats=("PNG",)) as image:
        image.verify()


def _orientation(image: Any, *, from_header: bool = False) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where it is upright or unknown.

    Args:
        image: opened image.
        from_header: decode no pixels to find it.
    """
    if from_header and image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the pixels
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF is no reason to refuse the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _raw_mode(image: Any) -> str:
    """Return Pillow's name for the values in the file, "RGB;16B" for instance."""
    for tile in image.tile:
        arguments = tile[3]
        return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)
    return str(image.mode)


def _check_mode(image: Any, raw: str, path: Path) -> None:
    """Refuse images of which Pillow would return other values than those of the file."""
    if image.mode in ("LA", "RGB", "RGBA", "RGBX") and ";16" in raw:
        raise UnreadableFileError(
            f"Expected {path} to hold values that can be read whole, got several channels of 16 "
            f"bits in a {image.format}, of which 8 would be lost; write them as .npy, or with 8 "
            "bits."
        )
    if image.mode in _WORDS or image.mode in ("La", "RGBa", "RGBX"):
        raise UnreadableFileError(
            f"Expected grey or colours (red, green and blue) in {path}, got "
            f"{_WORDS.get(image.mode, image.mode)}; convert the image to RGB."
        )
    if image.format == "TIFF" and image.tag_v2.get(_MEANING) == _WHITE_IS_0 and raw[:1] in "IF":
        raise UnreadableFileError(
            f"Expected {path} with 0 as black, got a TIFF in which 0 is white; write it with black "
            "as 0."
        )


def _as_stored(pixels: NDArray[Any], image: Any, raw: str) -> NDArray[Any]:
    """Return the values of the file: Pillow stretches some types and misreads the sign of some."""
    if pixels.dtype.kind != "b" and not pixels.dtype.isnative:
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if image.mode == "L" and raw[:3] in _SCALE:
        return pixels // np.uint8(_SCALE[raw[:3]])
    if image.format == "TIFF":
        bits, sign = (
            image.tag_v2.get(tag, (default,)) for tag, default in ((_BITS, 1), (_SIGN, 1))
        )
        if image.mode == "L" and (*bits[:1], *sign[:1]) == (8, _SIGNED):
            return pixels.view(np.int8)
        if image.mode == "I" and (*bits[:1], *sign[:1]) == (32, _UNSIGNED):
            return pixels.view(np.uint32)
    return pixels
