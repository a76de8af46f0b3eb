import numpy as np
import pytest
from PIL import Image

from dense_imb.data.images.folders import count_channels, list_images, pair_images, read_image


def save(path, pixels):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_come_back_in_their_own_type(tmp_path, suffix, dtype):
    pixels = np.arange(12, dtype=dtype).reshape(3, 4) * np.iinfo(dtype).max // 12
    read = read_image(save(tmp_path / f"a.{suffix}", pixels.astype(dtype)))
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, pixels)


def test_npy_is_read_without_pickle(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((2, 3), np.float32))
    assert read_image(tmp_path / "a.npy").shape == (2, 3)
    np.save(tmp_path / "b.npy", np.array([[object()]]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"Expected an image in .*b\.npy"):
        read_image(tmp_path / "b.npy")


def test_a_palette_gives_its_indices_or_its_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 2], [1, 2]], np.uint8), mode=None).convert("P")
    image.putpalette([9, 9, 9, 50, 60, 70, 1, 2, 3])
    image.save(tmp_path / "mask.png")
    indices = read_image(tmp_path / "mask.png", as_indices=True)
    np.testing.assert_array_equal(indices, [[0, 2], [1, 2]])
    assert read_image(tmp_path / "mask.png")[0, 1].tolist() == [1, 2, 3]


def test_pages_are_refused_and_not_lost(tmp_path):
    first, second = (Image.fromarray(np.full((2, 3), k, np.uint8)) for k in (1, 2))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    with pytest.raises(ValueError, match=r"an image in .*a\.tif, got 2 pages; save each"):
        read_image(tmp_path / "a.tif")


def test_what_is_no_image_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"Expected an image in .*a\.png"):
        read_image(tmp_path / "a.png")
    np.save(tmp_path / "b.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"\(H, W\).*\(3,\)"):
        read_image(tmp_path / "b.npy")


def test_pairs_by_name_whatever_the_suffix(tmp_path):
    pixels = np.zeros((2, 2), np.uint8)
    for name in ("2.jpg", "1.jpg"):
        save(tmp_path / "images" / name, pixels)
    for name in ("1.png", "2.png", "3.png"):
        save(tmp_path / "masks" / name, pixels)
    (tmp_path / "images" / ".1.png.partial").touch()
    pairs = pair_images(tmp_path / "images", tmp_path / "masks")
    assert [(p.image.name, p.mask.name) for p in pairs] == [
        ("1.jpg", "1.png"),
        ("2.jpg", "2.png"),
    ]
    save(tmp_path / "masks" / "2.tif", pixels)
    with pytest.raises(ValueError, match="one mask of each name"):
        pair_images(tmp_path / "images", tmp_path / "masks")


def test_missing_masks_are_named_and_counted(tmp_path):
    pixels = np.zeros((2, 2), np.uint8)
    for i in range(6):
        save(tmp_path / "images" / f"{i}.png", pixels)
    save(tmp_path / "masks" / "5.png", pixels)
    with pytest.raises(ValueError, match=r"none for 0\.png, 1\.png, 2\.png and 2 more"):
        pair_images(tmp_path / "images", tmp_path / "masks")


def test_an_empty_or_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="Expected images"):
        list_images(tmp_path)
    with pytest.raises(ValueError, match="Expected a folder"):
        list_images(tmp_path / "none")


def test_channels_are_those_of_all_images(tmp_path):
    for name, mode in (("a", "L"), ("b", "L"), ("c", "RGB")):
        Image.new(mode, (4, 3)).save(tmp_path / f"{name}.png")
    a, b, c = (tmp_path / f"{name}.png" for name in "abc")
    assert count_channels([a, b]) == 1
    assert count_channels([c]) == 3
    with pytest.raises(
        ValueError, match=r"channels in every image, got 1 in .*a\.png and 3 in .*c"
    ):
        count_channels([a, b, c])
    np.save(tmp_path / "d.npy", np.zeros((4, 3)))
    with pytest.raises(ValueError, match="d.npy"):
        count_channels([tmp_path / "d.npy"])


def test_a_tiff_of_one_page_is_no_volume(tmp_path):
    page = Image.fromarray(np.zeros((4, 5), np.uint8))
    page.save(tmp_path / "one.tif")
    page.save(tmp_path / "two.tif", save_all=True, append_images=[page])
    with pytest.raises(ValueError, match="a flat image; volumes are TIFF with a page for each"):
        read_image(tmp_path / "one.tif", is_volume=True)
    assert read_image(tmp_path / "two.tif", is_volume=True).shape == (2, 4, 5)
