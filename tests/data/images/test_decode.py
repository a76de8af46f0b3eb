"""Each kind of image file gives the numbers that are stored in it, or one sentence."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from dense_imb.base.files import UnreadableFileError
from dense_imb.data.images.decode import turned
from dense_imb.data.images.folders import count_channels, read_image
from dense_imb.data.images.labelled import open_labelled
from dense_imb.data.labels.tables import open_whole_images, read_colours
from tests.data.images.tiff_files import CIELAB, RGB, WHITE_IS_0, random_pixels, write_tiff


def write_png(path, bits, kind, rows, width, chunks=()):
    """Write a PNG of any depth; `kind` is 0 for grey, 2 for RGB, 4 for grey with alpha."""

    def chunk(name, content):
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    head = struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", head), *(chunk(*one) for one in chunks), chunk(b"IDAT", data)]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("read", [read_image, read_colours])
def test_a_png_whose_chunk_ends_early_is_refused(tmp_path, read):
    # the checksum of the pixels is cut off, and the one of the chunk tells
    path = write_png(tmp_path / "a.png", 8, 0, [bytes(range(40))] * 30, 40)
    data = bytearray(path.read_bytes())
    (n,) = struct.unpack(">I", data[33:37])
    data[33:37] = struct.pack(">I", n - 4)
    data[45] ^= 1
    path.write_bytes(data)
    with pytest.raises(UnreadableFileError, match=r"Expected .*a\.png, got"):
        read(path)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f2", "f8", "u8"])
def test_a_grey_tiff_gives_its_values_or_a_sentence(tmp_path, dtype, order):
    pixels = random_pixels(dtype)
    path = write_tiff(tmp_path / "a.tif", pixels, order=order)
    if dtype in ("f2", "f8", "u8") or (order, dtype) == (">", "u4"):  # Pillow has no such type
        with pytest.raises(UnreadableFileError, match="Expected an image in .*a.tif, got "):
            read_image(path)
        return
    read = read_image(path)
    assert read.dtype.isnative
    np.testing.assert_array_equal(read.astype(float), pixels.astype(float))


@pytest.mark.parametrize("order", ["<", ">"])
def test_colours_of_16_bits_are_refused_and_of_8_read(tmp_path, order):
    pixels = random_pixels("u1", (4, 6, 3))
    path = write_tiff(tmp_path / "a.tif", pixels, order=order, meaning=RGB)
    np.testing.assert_array_equal(read_image(path), pixels)
    path = write_tiff(path, random_pixels("u2", (4, 6, 3)), order=order, meaning=RGB)
    for read in (read_image, read_colours):
        with pytest.raises(ValueError, match=r"of 16 bits in a TIFF.* as \.npy, or with 8 bits"):
            read(path)


@pytest.mark.parametrize(("kind", "n"), [(2, 3), (6, 4), (4, 2)])
def test_a_png_of_several_channels_of_16_bits_is_refused(tmp_path, kind, n):
    rows = [row.tobytes() for row in random_pixels("u2", (4, 6 * n)).astype(">u2")]
    path = write_png(tmp_path / "a.png", 16, kind, rows, 6)
    for read in (read_image, read_colours):
        with pytest.raises(ValueError, match="of 16 bits in a PNG"):
            read(path)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_labels_of_few_bits_are_not_stretched(tmp_path, bits):
    values = np.arange(8, dtype=np.uint8).reshape(1, 8) % 2**bits
    n = 8 // bits
    packed = sum(values[:, k::n].astype(np.uint8) << (8 - bits * (k + 1)) for k in range(n))
    packed = packed.astype(np.uint8)
    png = write_png(tmp_path / "a.png", bits, 0, [packed.tobytes()], 8)
    tiff = write_tiff(tmp_path / "a.tif", packed, bits=bits)
    for path in (png, tiff):
        np.testing.assert_array_equal(read_image(path), values)
        colours = read_colours(path)  # a picture: its white is 255
        np.testing.assert_array_equal(colours[0], values * (255 // (2**bits - 1)))


def test_other_meanings_of_numbers_are_refused(tmp_path):
    wide = write_tiff(tmp_path / "a.tif", random_pixels("u2"), meaning=WHITE_IS_0)
    with pytest.raises(ValueError, match="a TIFF in which 0 is white"):
        read_image(wide)
    lab = write_tiff(tmp_path / "b.tif", random_pixels("u1", (4, 6, 3)), meaning=CIELAB)
    with pytest.raises(ValueError, match=r"got CIELAB; convert the image to RGB"):
        read_image(lab)
    with pytest.raises(ValueError, match="b.tif"):
        read_colours(lab)
    Image.new("CMYK", (6, 4), (0, 255, 255, 0)).save(tmp_path / "c.jpg", quality=95)
    with pytest.raises(ValueError, match=r"got CMYK; convert the image to RGB"):
        read_image(tmp_path / "c.jpg")
    red = read_colours(tmp_path / "c.jpg").mean((1, 2))
    np.testing.assert_allclose(red, [255, 0, 0], atol=3)


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.png", "uint16"), ("a.tif", "uint16"), ("a.tif", "int32"), ("a.tif", "float32")],
)
def test_a_table_of_wide_values_is_refused_and_not_clipped(tmp_path, name, mode):
    values = (np.arange(24).reshape(4, 6) * 2000).astype(mode)
    Image.fromarray(values).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"with 8 bits a value, got .* clipped at 255; write it"):
        read_colours(tmp_path / name)
    scaled = read_colours(tmp_path / name, white=46000)
    np.testing.assert_array_equal(scaled[2], np.rint(values * (255 / 46000)))


def test_a_palette_is_colours_in_an_image_and_labels_in_a_mask(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).convert("P")
        image.putpalette([9, 8, 7, 50, 60, 70])
        image.save(tmp_path / folder / "a.png")
    data = open_labelled(tmp_path / "images", tmp_path / "masks", n_classes=2)
    np.testing.assert_array_equal(data.image(0)[:, 0, 1], [50, 60, 70])
    np.testing.assert_array_equal(data.label(0), [[0, 1], [1, 0]])
    assert count_channels([tmp_path / "images" / "a.png"]) == 3
    np.testing.assert_array_equal(read_colours(tmp_path / "masks" / "a.png")[:, 0, 1], [50, 60, 70])


def test_pages_of_a_table_are_refused_and_not_lost(tmp_path):
    first, second = (Image.new("L", (3, 2), k) for k in (1, 2))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    with pytest.raises(ValueError, match=r"a\.tif, got 2 pages"):
        read_colours(tmp_path / "a.tif")


def save_turned(path, pixels, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **({"quality": 100} if ".j" in path.name else {}))
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_is_read_upright(tmp_path, orientation):
    pixels = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, np.ones((16, 16), np.uint8))
    upright = np.asarray(
        ImageOps.exif_transpose(Image.open(save_turned(tmp_path / "a.png", pixels, orientation)))
    )
    np.testing.assert_array_equal(turned(pixels, orientation), upright)
    tiff = write_tiff(tmp_path / "a.tif", pixels, orientation=orientation)
    jpeg = save_turned(tmp_path / "a.jpg", pixels, orientation)
    for path, error in ((tmp_path / "a.png", 0), (tiff, 0), (jpeg, 2)):
        np.testing.assert_allclose(read_image(path), upright, atol=error)
        np.testing.assert_allclose(read_colours(path)[0], upright, atol=error)
    (tmp_path / "all").mkdir()
    for path in (tmp_path / "a.png", tiff, jpeg):
        path.rename(tmp_path / "all" / f"{path.suffix[1:]}{path.suffix}")
    assert open_whole_images(tmp_path / "all").size == upright.shape


def test_a_turned_photograph_fits_its_upright_mask(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    stored = np.zeros((8, 12), np.uint8)
    stored[0, 0] = 200  # the upper right corner, when turned
    save_turned(tmp_path / "images" / "a.png", stored, 6)
    mask = np.zeros((12, 8), np.uint8)
    mask[0, 7] = 1
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    data = open_labelled(tmp_path / "images", tmp_path / "masks", n_classes=2)
    np.testing.assert_array_equal(data.image(0)[0] > 100, data.label(0) == 1)
