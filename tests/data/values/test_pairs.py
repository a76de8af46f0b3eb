"""Images with maps of values: every file keeps its values, and bad input is one sentence."""

from __future__ import annotations

import struct
import zlib

import h5py
import numpy as np
import pytest
from PIL import Image

from dense_imb.data.values.cells import Cells
from dense_imb.data.values.pairs import open_values
from tests.data.images.labelled_files import save
from tests.data.values.value_files import save_npy, spots, write_hdf5, write_values


def test_folders_of_npy_hold_images_and_values(tmp_path):
    data = open_values(*write_values(tmp_path, 3))
    images, targets = spots(3, (40, 48))
    assert (len(data), data.n_channels, data.n_targets, data.spatial_dims) == (3, 1, 1, 2)
    np.testing.assert_array_equal(data.image(1)[0], images[1])
    np.testing.assert_array_equal(data.target(1)[0], targets[1])
    assert data.target(1).dtype == np.float32


@pytest.mark.parametrize(
    ("suffix", "dtype", "shape"),
    [
        ("png", np.uint16, (6, 5)),
        ("png", np.uint8, (6, 5)),
        ("png", np.uint8, (6, 5, 3)),
        ("tif", np.uint16, (6, 5)),
        ("tif", np.float32, (6, 5)),
        ("tif", np.float32, (4, 6, 5)),
        ("npy", np.float64, (6, 5)),
        ("npy", np.float16, (6, 5, 4)),
        ("npy", np.float32, (4, 6, 5)),
        ("nii.gz", np.float32, (6, 5, 4)),
    ],
)
def test_every_kind_of_file_keeps_its_values(tmp_path, suffix, dtype, shape):
    top = {np.uint8: 255, np.uint16: 65535}.get(dtype, 1.0)
    rng = np.random.default_rng(0)
    values = (rng.uniform(0, top, shape)).astype(dtype)
    is_volume = suffix == "nii.gz" or (suffix == "tif" and len(shape) == 3)
    pixels = np.zeros(shape if is_volume else (6, 5), np.uint8)
    image_suffix = suffix if is_volume else "npy"
    save(tmp_path / "images" / f"a.{image_suffix}", pixels)
    save(tmp_path / "targets" / f"a.{suffix}", values)
    data = open_values(tmp_path / "images", tmp_path / "targets")
    assert data.spatial_dims == 2 + is_volume
    got = data.target(0)
    if got.shape[0] > 1 and got.shape[1:] == shape[:-1]:
        got = np.moveaxis(got, 0, -1)
    np.testing.assert_array_equal(got.reshape(shape), values.astype(np.float32))


def test_a_png_of_several_channels_with_16_bits_is_refused(tmp_path):
    save(tmp_path / "images" / "a.npy", np.zeros((4, 4), np.uint8))
    path = tmp_path / "targets" / "a.png"
    path.parent.mkdir()
    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)  # 4 x 4 pixels, 16 bits, RGB
    rows = zlib.compress((b"\0" + b"\3\xe8" * 12) * 4)
    chunks = [b"\x89PNG\r\n\x1a\n"]
    for name, content in ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        chunks.append(struct.pack(">I", len(content)) + name + content + checksum)
    path.write_bytes(b"".join(chunks))
    with pytest.raises(ValueError, match="several channels of 16 bits in a PNG"):
        open_values(tmp_path / "images", tmp_path / "targets")


@pytest.mark.parametrize(
    ("image", "target", "dims", "channels"),
    [
        ((3, 9, 8), (9, 8), 2, (3, 1)),
        ((9, 8, 3), (9, 8, 2), 2, (3, 2)),
        ((9, 8), (2, 9, 8), 2, (1, 2)),
        ((7, 9, 8), (7, 9, 8), 3, (1, 1)),
        ((2, 7, 9, 8), (7, 9, 8), 3, (2, 1)),
    ],
)
@pytest.mark.parametrize("is_hdf5", [False, True])
def test_channels_may_come_first_or_last(tmp_path, image, target, dims, channels, is_hdf5):
    arrays = {"image": np.zeros((2, *image)), "target": np.ones((2, *target))}
    if is_hdf5:
        data = open_values(write_hdf5(tmp_path / "a.h5", **arrays))
    else:
        data = open_values(*(save_npy(tmp_path / name, a) for name, a in arrays.items()))
    assert (data.spatial_dims, data.n_channels, data.n_targets) == (dims, *channels)
    assert data.image(0).shape[1:] == data.target(0).shape[1:]


def test_equal_arrays_of_three_axes_are_images_with_channels_on_request(tmp_path):
    paths = [save_npy(tmp_path / name, np.zeros((2, 9, 8, 3))) for name in ("images", "targets")]
    assert open_values(*paths).spatial_dims == 3
    data = open_values(*paths, spatial_dims=2)
    assert data.target(0).shape == (3, 9, 8)


def test_the_channel_axis_of_a_file_says_what_is_space(tmp_path):
    path = write_hdf5(tmp_path / "a.h5", image=np.zeros((2, 1, 6, 7)), target=np.ones((2, 1, 6, 7)))
    assert open_values(path).spatial_dims == 3
    with h5py.File(path, "r+") as file:
        file["image"].attrs["channel_axis"] = 1
        file["target"].attrs["names"] = np.bytes_('["dose"]')
    data = open_values(path)
    assert (data.spatial_dims, data.n_channels, data.n_targets) == (2, 1, 1)
    assert data.channel_names == ("dose",)


def test_cells_of_a_file_have_its_names(tmp_path):
    cells = np.zeros((2, 6, 6), np.uint16)
    cells[:, :3] = 1
    cells[:, 2:4] |= 2
    path = write_hdf5(
        tmp_path / "a.h5",
        names=["brain", "tumour", "rest"],
        image=np.zeros((2, 6, 6)),
        target=np.ones((2, 6, 6)),
        cells=cells,
    )
    data = open_values(path, cells="cells", cell_kind="bits")
    assert data.cells == Cells(("brain", "tumour", "rest"), "bits")
    tally = data.tally(show_progress=False)
    assert tally.cell_content is not None
    assert tally.cell_content.tolist() == [[18, 12, 0]] * 2
    assert tally.n_outside == 24
    assert {k: len(v) for k, v in data.pixels(0, 0.5).items()} == {0: 18, 1: 12}
    masks = data.cells.masks(data.cell_map(0))
    assert masks.sum((1, 2)).tolist() == [18, 12, 0]


def test_label_cells_are_counted_without_names(tmp_path):
    images, targets = write_values(tmp_path, 2, (6, 6))
    cells = np.zeros((2, 6, 6), np.uint8)
    cells[0, 0, :3], cells[1, 1] = 1, 2
    data = open_values(images, targets, cells=save_npy(tmp_path / "cells", cells))
    assert data.cells is not None
    assert data.cells.names == ("cell 0", "cell 1", "cell 2")
    tally = data.tally(show_progress=False)
    assert tally.cell_content is not None
    assert tally.cell_content.tolist() == [[33, 3, 0], [30, 0, 6]]
    assert {k: len(v) for k, v in data.pixels(0, 0.5).items()} == {1: 3}


def test_a_tally_sums_all_values(tmp_path):
    data = open_values(*write_values(tmp_path, 5, (12, 16)))
    tally = data.tally(show_progress=False)
    values = np.stack([data.target(i) for i in range(5)]).astype(np.float64)
    assert tally.nonzero_share == pytest.approx((values != 0).mean())
    assert tally.largest == values.max()
    assert tally.level == pytest.approx(np.abs(values[values != 0]).mean() / 2)
    assert tally.target_mean == pytest.approx((values.mean(),))
    assert tally.square_sum == pytest.approx((values**2).sum())
    content = data.content(tally.level)
    assert content.sum(1).tolist() == [12 * 16] * 5
    assert content[:, 1].tolist() == [9] * 5


def test_a_subset_shares_images_and_has_a_digest_of_its_own(tmp_path):
    data = open_values(*write_values(tmp_path, 4))
    part = data.subset([3, 1])
    assert part.names == ["003", "001"]
    np.testing.assert_array_equal(part.target(0), data.target(3))
    assert part.fingerprint() != data.fingerprint() == open_values(*write_values(tmp_path, 4)
                                                                   ).fingerprint()  # fmt: skip


def refuse_nan(targets):
    targets[1][2, 3] = np.nan


def refuse_huge(targets):
    targets[0][0, 0] = 1e300


def refuse_size(targets):
    targets[0] = targets[0][:-1]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (refuse_nan, r"001.npy to hold finite numbers, got 1 NaN or infinite of 1920; mend them"),
        (refuse_huge, "values that float32 holds"),
        (refuse_size, r"000.npy of the size of .*000.npy, \(40, 48\), got \(39, 48\); resize"),
    ],
)
def test_bad_values_are_refused(tmp_path, spoil, sentence):
    images, targets = spots(2, (40, 48))
    targets = [target.astype(np.float64) for target in targets]
    spoil(targets)
    paths = save_npy(tmp_path / "images", images), save_npy(tmp_path / "targets", targets)
    with pytest.raises(ValueError, match=sentence):
        open_values(*paths).tally(show_progress=False)


@pytest.mark.parametrize(
    ("cells", "options", "sentence"),
    [
        (np.zeros((2, 5, 5)), {}, r"cells/000.npy of the size of .*\(6, 6\), got \(5, 5\)"),
        (
            np.full((2, 6, 6), 9),
            {"cell_kind": "bits", "cell_names": ["a", "b"]},
            "bits of the 2 declared cells, values up to 3, got bit 3 set in 36 pixels; name 2 more",
        ),
        (
            np.full((2, 6, 6), 2),
            {"cell_names": ["a", "b"]},
            "labels 0 to 1, one for each of 2 cells, got 2; name them all",
        ),
        (np.full((2, 6, 6), 0.5), {}, "to hold labels, whole numbers"),
        (np.full((2, 6, 6), -1), {}, "labels of cells, from 0 to 1023, got values from -1"),
        (np.full((2, 6, 6), 1553), {}, "to 1553; if they are bit fields, add `cell_kind=bits`"),
        (np.zeros((2, 6, 6)), {"cell_kind": "bits"}, "bit fields with a cell, got 0 in every"),
        (np.zeros((1, 6, 6)), {}, "a map of cells of the same name in .* got none for 001"),
        (np.zeros((2, 6, 6)), {"cell_names": ["a", "a"]}, "a short name for each cell"),
    ],
)
def test_bad_cells_are_refused(tmp_path, cells, options, sentence):
    images, targets = write_values(tmp_path, 2, (6, 6))
    folder = save_npy(tmp_path / "cells", cells)
    with pytest.raises(ValueError, match=sentence):
        open_values(images, targets, cells=folder, **options).tally(show_progress=False)


def test_the_map_that_differs_from_image_and_cells_is_blamed(tmp_path):
    images, targets = spots(2, (8, 8, 8))
    arrays = {"image": images, "target": targets[:, :4], "cells": np.ones(images.shape, np.uint8)}
    path = write_hdf5(tmp_path / "a.h5", **arrays)
    with pytest.raises(ValueError, match=r"Expected target 0 .*\(8, 8, 8\), got \(4, 8, 8\)"):
        open_values(path, cells="cells", cell_kind="bits")


@pytest.mark.parametrize(
    ("names", "cure"),
    [
        ({"cells": "organs"}, "pass `cells=cells`"),
        ({"targets": "targt"}, "pass `targets=target`"),
        ({"targets": "xyz", "cells": "cells"}, "pass `targets=target`"),
        ({"counted": "xyz"}, "rename or convert them"),
    ],
)
def test_a_missing_data_set_is_refused_with_the_one_that_was_meant(tmp_path, names, cure):
    images, targets = spots(2, (6, 6))
    path = write_hdf5(tmp_path / "a.h5", image=images, target=targets, cells=targets)
    with pytest.raises(ValueError, match=f"got cells, image, target; {cure}"):
        open_values(path, **names)


def test_a_missing_folder_of_maps_is_named(tmp_path):
    images, _ = write_values(tmp_path, 2, (6, 6))
    with pytest.raises(ValueError, match="Expected a folder of maps of values, got nofolder"):
        open_values(images, "nofolder")


def test_names_without_cells_and_folders_without_targets_are_refused(tmp_path):
    images, targets = write_values(tmp_path, 2, (6, 6))
    with pytest.raises(ValueError, match="cells for `cell_names`, got none"):
        open_values(images, targets, cell_names=["a"])
    with pytest.raises(ValueError, match="the folder of the maps of values of"):
        open_values(images)
    (tmp_path / "targets" / "001.npy").unlink()
    with pytest.raises(ValueError, match="a map of values of the same name"):
        open_values(images, targets)


def test_jpeg_is_no_file_of_values(tmp_path):
    images, _ = write_values(tmp_path, 1, (6, 6))
    (tmp_path / "grey").mkdir()
    Image.fromarray(np.zeros((6, 6), np.uint8)).save(tmp_path / "grey" / "000.jpg")
    with pytest.raises(ValueError, match=r"Expected images \(.png, .tif"):
        open_values(images, tmp_path / "grey")


@pytest.mark.parametrize(
    ("values", "edges"),
    [
        ([0, 0, 0.5, 1.0], (0.167, 0.833)),  # 1.25 / 1.5
        ([0, 0, -0.5, 1.0], (-0.167, 0.167)),  # nothing below -0.833, nor from 0.167 to 0.833
        ([0, -0.5, 0.3, 1.0], (-0.149, 0.149, 0.744)),
        ([0, 0, 3.0, 3.0], (0.6,)),  # nothing between 0.6 and 3
        ([2.0, 3.0, 2.0, 3.0], (2.6,)),  # nothing below 0.52
        ([0, 0, 0, 0], ()),
        ([3.0, 3.0, 3.0, 3.0], ()),
    ],
)
def test_edges_of_value_bins(tmp_path, values, edges):
    data = map_of(tmp_path, np.array(values).reshape(2, 2))
    assert data.bin_edges(data.tally(show_progress=False)) == edges


@pytest.mark.parametrize("cut", [1e-9, 0.1])
def test_the_typical_value_of_a_spot_is_half_its_peak(tmp_path, cut):
    y, x = np.mgrid[-40:41, -40:41]
    spot = 7 * np.exp(-(x**2 + y**2) / 2 / 4**2)
    data = map_of(tmp_path, np.where(spot > cut, spot, 0))
    assert data.bin_edges(data.tally(show_progress=False)) == pytest.approx((0.7, 3.5), rel=0.03)


def map_of(folder, values):
    """Return an image with this map of values."""
    images = save_npy(folder / "images", [np.zeros(values.shape, np.uint8)])
    return open_values(images, save_npy(folder / "targets", [values]))
