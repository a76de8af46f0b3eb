"""Labelled images: every format gives the same arrays, and bad data one sentence with its file."""

from __future__ import annotations

import os
import pickle
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from dense_imb.data.images.labelled import IGNORED, open_labelled
from tests.data.images.labelled_files import folders, hdf5, random_pairs, save

ROOT = os.environ.get("DENSE_IMB_DATA", "")
real = pytest.mark.skipif(
    not (Path(ROOT) / "crackforest").is_dir() or not ROOT,
    reason="DENSE_IMB_DATA does not name a folder with the real data",
)


@pytest.mark.parametrize("suffix", ["png", "tif", "npy"])
@pytest.mark.parametrize("channels", [(), (3,)], ids=["grey", "rgb"])
def test_flat_images_come_back_from_every_format(tmp_path, suffix, channels):
    images, masks = random_pairs(channels=channels)
    data = open_labelled(*folders(tmp_path, images, masks, suffix))
    assert (len(data), data.spatial_dims, data.n_classes) == (4, 2, 3)
    assert data.n_channels == (channels or (1,))[0]
    assert data.names == ["0", "1", "2", "3"]
    for i in range(4):
        wanted = images[i].reshape(9, 7, -1).transpose(2, 0, 1)
        np.testing.assert_array_equal(data.image(i), wanted)
        np.testing.assert_array_equal(data.label(i), masks[i])
        assert data.label(i).dtype == np.uint8


@pytest.mark.parametrize("suffix", ["tif", "npy", "nii.gz", "nii"])
def test_volumes_come_back_from_every_format(tmp_path, suffix):
    if "nii" in suffix:
        pytest.importorskip("nibabel")
    images, masks = random_pairs(shape=(5, 9, 7), dtype=np.uint8)
    data = open_labelled(*folders(tmp_path, images, masks, suffix))
    assert (data.spatial_dims, data.n_channels, data.n_classes) == (3, 1, 3)
    for i in range(4):
        np.testing.assert_array_equal(data.image(i), images[i][None])
        np.testing.assert_array_equal(data.label(i), masks[i])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_images_keep_their_type(tmp_path, dtype):
    images, masks = random_pairs(dtype=dtype)
    assert open_labelled(*folders(tmp_path, images, masks, "npy")).image(1).dtype == dtype


def test_dimensions_of_the_mask_tell_a_volume_from_channels(tmp_path):
    images, masks = random_pairs(shape=(6, 8), channels=(3,))
    flat = open_labelled(*folders(tmp_path / "flat", images, masks, "npy"))
    assert flat.image(0).shape == (3, 6, 8)
    deep = open_labelled(*folders(tmp_path / "deep", images, images % 2, "npy"))
    assert deep.image(0).shape == (1, 6, 8, 3)
    first = open_labelled(*folders(tmp_path / "first", images.transpose(0, 3, 1, 2), masks, "npy"))
    np.testing.assert_array_equal(first.image(2), flat.image(2))
    # three equal channels are one only where two dimensions are asked for
    grey = folders(tmp_path / "grey", images, np.repeat(masks[..., None], 3, -1), "npy")
    assert open_labelled(*grey, spatial_dims=2).label(0).shape == (6, 8)


@pytest.mark.parametrize("shape", [(9, 7), (5, 9, 7)], ids=["2-D", "3-D"])
@pytest.mark.parametrize("axis", [None, 1, -1])
def test_hdf5_holds_images_with_channels_first_or_last(tmp_path, shape, axis):
    images, masks = random_pairs(shape=shape, channels=(4,))
    wanted = np.moveaxis(images, -1, 1)
    stored = images if axis == -1 else images[..., 0] if axis is None else wanted
    data = open_labelled(hdf5(tmp_path / "a.h5", stored, masks))
    assert (data.spatial_dims, data.n_channels) == (len(shape), 1 if axis is None else 4)
    for i in (3, 0):
        np.testing.assert_array_equal(data.image(i), wanted[i, :1] if axis is None else wanted[i])
        np.testing.assert_array_equal(data.label(i), masks[i])


def test_an_attribute_settles_where_both_axes_fit(tmp_path):
    images, masks = random_pairs(shape=(3, 3), channels=(3,))
    last = open_labelled(hdf5(tmp_path / "a.h5", images, masks))
    first = open_labelled(hdf5(tmp_path / "b.h5", images, masks, channel_axis=1))
    np.testing.assert_array_equal(last.image(0), images[0].transpose(2, 0, 1))
    np.testing.assert_array_equal(first.image(0), images[0])


def test_values_become_classes_and_the_ignored_one_255(tmp_path):
    mask = np.array([[0, 255, 7], [7, 0, 0]], np.uint8)
    where = folders(tmp_path, [np.zeros((2, 3), np.uint8)], [mask])
    data = open_labelled(*where, labels=[0, 255], ignore_index=7)
    np.testing.assert_array_equal(data.label(0), [[0, 1, IGNORED], [IGNORED, 0, 0]])
    swapped = open_labelled(*where, labels=[255, 7, 0])
    np.testing.assert_array_equal(swapped.label(0), [[2, 0, 1], [1, 2, 2]])


@pytest.mark.parametrize("dtype", [np.int32, np.uint16, np.float64, np.int64])
def test_wide_values_become_classes(tmp_path, dtype):
    mask = np.array([[0, 1000, 500]], dtype)
    where = folders(tmp_path, [np.zeros((1, 3))], [mask], "npy")
    data = open_labelled(*where, labels=[0, 500, 1000])
    np.testing.assert_array_equal(data.label(0), [[0, 2, 1]])


def test_minus_one_can_be_ignored(tmp_path):
    where = folders(tmp_path, [np.zeros((1, 3))], [np.array([[0, -1, 1]])], "npy")
    np.testing.assert_array_equal(open_labelled(*where, ignore_index=-1).label(0), [[0, 255, 1]])
    with pytest.raises(ValueError, match="ignore pixels with `ignore_index=-1`"):
        open_labelled(*where)


def test_boolean_masks_are_two_classes(tmp_path):
    images, masks = random_pairs(n_classes=2)
    data = open_labelled(*folders(tmp_path, images, masks.astype(bool), "npy"))
    np.testing.assert_array_equal(data.label(0), masks[0])


def test_classes_are_counted_over_all_masks(tmp_path):
    masks = [np.zeros((2, 2), np.uint8), np.array([[0, 1], [0, 2]], np.uint8)]
    images = [np.zeros((2, 2), np.uint8)] * 2
    assert open_labelled(*folders(tmp_path, images, masks)).n_classes == 3
    assert open_labelled(*folders(tmp_path / "b", images[:1], masks[:1])).n_classes == 2


def test_the_tally_counts_what_plain_loops_count(tmp_path):
    images, masks = random_pairs(n=5, channels=(2,), dtype=np.float32)
    images[..., 1] += 1e4  # a large offset must not eat the spread
    masks[2, 3:5] = 9
    where = folders(tmp_path, images, masks, "npy")
    tally = open_labelled(*where, n_classes=3, ignore_index=9).tally(show_progress=False)
    content = [[int((mask == k).sum()) for k in range(3)] for mask in masks]
    np.testing.assert_array_equal(tally.class_content, content)
    assert tally.class_counts == tuple(np.sum(content, 0).tolist())
    assert tally.statistics.image_presence == tuple((np.array(content) > 0).sum(0).tolist())
    assert tally.statistics.n_images == 5
    assert tally.n_classes == 3
    assert tally.sizes == Counter({(9, 7): 5})
    flat = images.reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(tally.mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(tally.std, flat.std(0), rtol=1e-9)


def test_a_part_has_its_images_in_order(tmp_path):
    images, masks = random_pairs()
    data = open_labelled(*folders(tmp_path, images, masks))
    part = data.subset([2, 0])
    assert (len(part), part.names) == (2, ["2", "0"])
    np.testing.assert_array_equal(part.image(0), images[2][None])
    np.testing.assert_array_equal(part.subset([1]).label(0), masks[0])
    assert part.n_classes == data.n_classes
    for wrong in ([], [4], [-1]):
        with pytest.raises(ValueError, match="numbers of images from 0 to 3"):
            data.subset(wrong)
    with pytest.raises(IndexError, match="from 0 to 1, got 2"):
        part.image(2)


def test_decoded_images_are_kept_up_to_the_budget(tmp_path):
    images, masks = random_pairs(shape=(10, 10))
    images_folder, masks_folder = folders(tmp_path, images, masks)
    data = open_labelled(images_folder, masks_folder, budget=450)  # 200 bytes each
    for i in range(4):
        data.image(i)
    assert data.image(0) is data.image(0)
    assert data.subset([1]).image(0) is data.image(1)
    assert data.image(3) is not data.image(3)
    assert {k: len(found) for k, found in data.pixels(1).items()} == {
        k: int((masks[1] == k).sum()) for k in (1, 2)
    }
    with pytest.raises(ValueError, match="read-only"):
        data.image(0)[:] = 0
    shutil.rmtree(images_folder)
    np.testing.assert_array_equal(data.image(1), images[1][None])


def _label_sum(data, i):
    return int(data.label(i).sum())


@pytest.mark.parametrize("kind", ["folders", "hdf5"])
def test_other_processes_read_the_same(tmp_path, monkeypatch, kind):
    images, masks = random_pairs(shape=(100, 100))
    where = folders(tmp_path, images, masks) if kind == "folders" else (
        hdf5(tmp_path / "a.h5", images, masks),
    )  # fmt: skip
    data = open_labelled(*where, budget=0)
    kept = open_labelled(*where)
    kept.tally(show_progress=False)
    small = pickle.dumps(kept)
    assert len(small) < 10_000
    np.testing.assert_array_equal(pickle.loads(small).image(3), data.image(3))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(_label_sum, data, 2).result() == masks[2].sum()
    opened = getattr(data._source, "_opened", None)
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as after a fork: HDF5 handles are not shared
    assert _label_sum(data, 1) == masks[1].sum()
    assert opened is None or data._source._opened[1] is not opened[1]


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path):
    images, masks = random_pairs()
    where = folders(tmp_path / "a", images, masks)
    data = open_labelled(*where)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    copy = open_labelled(tmp_path / "b" / "images", tmp_path / "b" / "masks")
    found = data.fingerprint()
    assert copy.fingerprint() == found == open_labelled(*where).fingerprint()
    assert data.subset([0, 1]).fingerprint() != found
    save(tmp_path / "b" / "masks" / "1.png", 2 - masks[1])
    assert copy.fingerprint() != found
    one, other = (hdf5(tmp_path / f"{k}.h5", images + k, masks) for k in (0, 1))
    assert open_labelled(one).fingerprint() != open_labelled(other).fingerprint()
    assert open_labelled(one).fingerprint() != open_labelled(one).subset([0]).fingerprint()


BLANK = np.zeros((4, 5), np.uint8)
LIT = np.arange(20, dtype=np.uint8).reshape(4, 5) % 2


@pytest.mark.parametrize(
    ("mask", "options", "sentence"),
    [
        (LIT * 255, {}, r"masks/0\.png to hold .* got 0 and 255; name the value .*`labels=0 255`"),
        (LIT * 255, {"n_classes": 2}, r"masks/0\.png .*labels 0 to 1, got 0 and 255; name"),
        (LIT * 3, {}, r"got 0 and 3; .*`labels=0 3`, or .*`n_classes=4`"),
        (LIT + BLANK + 1, {}, r"got 1 and 2; .*`labels=1 2`"),
        (LIT * 9, {"labels": [0, 1]}, r"values 0 and 1 of `labels`, got 0 and 9; add"),
        (np.arange(20).reshape(4, 5) * 12, {}, r"20 values from 0 to 228; .*`above=127`"),
        (LIT * 255 + BLANK, {"labels": [0, 0]}, "`labels` with the mask value of each"),
        (LIT, {"labels": [0, 1], "n_classes": 3}, r"value for each of 3 classes, got \[0, 1\]"),
        (LIT, {"labels": [0, 1], "ignore_index": 1}, r"`ignore_index` outside `labels`"),
        (LIT, {"n_classes": 1}, "`n_classes` from 2 to 254, got 1"),
        (BLANK, {"ignore_index": 0}, "labelled pixels .* ignore_index 0 everywhere"),
        (BLANK, {"ignore_index": 0, "n_classes": 2}, "ignore_index 0 everywhere"),
        (LIT, {"spatial_dims": 4}, "`spatial_dims` of 2 or 3, got 4"),
    ],
)  # fmt: skip
def test_values_that_are_no_classes_are_refused_with_the_cure(tmp_path, mask, options, sentence):
    where = folders(tmp_path, [BLANK], [mask.astype(np.uint8)])
    with pytest.raises(ValueError, match=sentence):
        open_labelled(*where, **options).tally(show_progress=False)


def test_three_values_with_255_may_mean_ignored(tmp_path):
    mask = np.array([[0, 1, 255]], np.uint8)
    where = folders(tmp_path, [np.zeros((1, 3), np.uint8)], [mask])
    with pytest.raises(ValueError, match=r"or ignore pixels with `ignore_index=255`"):
        open_labelled(*where)
    assert open_labelled(*where, ignore_index=255).n_classes == 2


def test_the_file_with_the_odd_value_is_named(tmp_path):
    where = folders(tmp_path, [BLANK] * 3, [LIT, LIT, LIT * 4])
    with pytest.raises(ValueError, match=r"masks/2\.png .*got 0, 1 and 4"):
        open_labelled(*where)


@pytest.mark.parametrize(
    ("image", "mask", "sentence"),
    [
        (np.zeros((4, 6)), LIT, r"masks/0\.npy of the size of .*images/0\.npy, \(4, 6\), got \(4"),
        (np.zeros((4, 5)), np.where(LIT, np.nan, 0), "whole numbers, got float64 from nan"),
        (np.zeros((4, 5)), np.where(LIT, np.inf, 0), "whole numbers, got float64 from 0.0 to inf"),
        (np.zeros((4, 5)), LIT * 0.5, r"masks/0\.npy to hold labels, whole numbers, got float64"),
        (np.full((4, 5), np.nan), LIT, r"images/0\.npy to hold finite numbers, got 20 NaN"),
        (np.full((4, 5), np.inf), LIT, r"images/0\.npy to hold finite numbers"),
        (np.zeros((4, 5)), np.zeros(4, np.uint8), "2 or 3 dimensions, got 1; a mask has no chann"),
        (np.zeros((0, 5)), np.zeros((0, 5), np.uint8), r"to hold pixels, got an array \(0, 5\)"),
        (np.zeros((4, 5, 3)), np.zeros((4, 5, 3, 3)), "2 or 3 dimensions, got 4"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, image, mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        open_labelled(*folders(tmp_path, [image], [mask], "npy"))


def test_colours_are_no_labels(tmp_path):
    mask = np.zeros((4, 5, 3), np.uint8)
    mask[0, 0] = (255, 0, 0)
    where = folders(tmp_path, [BLANK], [mask])
    with pytest.raises(ValueError, match=r"masks/0\.png to hold labels, one channel, got 3"):
        open_labelled(*where, labels=[0, 255])


def test_images_of_other_channels_are_named(tmp_path):
    where = folders(tmp_path, [BLANK, np.zeros((4, 5, 3), np.uint8)], [LIT, LIT])
    data = open_labelled(*where)
    with pytest.raises(ValueError, match=r"the 1 channels of 0, got 3 in 1 \(.*images\)"):
        data.tally(show_progress=False)


def test_folders_without_files_and_images_without_masks_are_named(tmp_path):
    images, masks = folders(tmp_path, [BLANK, BLANK], [LIT, LIT])
    with pytest.raises(ValueError, match="Expected `masks`, the folder of the masks of"):
        open_labelled(images)
    (masks / "1.png").unlink()
    with pytest.raises(ValueError, match=r"a mask of the same name .* none for 1\.png"):
        open_labelled(images, masks)
    (masks / "0.png").unlink()
    with pytest.raises(ValueError, match=r"Expected images \(.png.*nii.gz\) in .*masks, got none"):
        open_labelled(images, masks)


def test_pages_need_one_size(tmp_path):
    pages = [Image.fromarray(np.zeros(shape, np.uint8)) for shape in ((4, 5), (4, 6))]
    (tmp_path / "images").mkdir()
    pages[0].save(tmp_path / "images" / "0.tif", save_all=True, append_images=pages[1:])
    save(tmp_path / "masks" / "0.tif", np.zeros((2, 4, 5), np.uint8))
    with pytest.raises(ValueError, match=r"0\.tif, got pages of \(4, 5\) and \(4, 6\)"):
        open_labelled(tmp_path / "images", tmp_path / "masks")


def test_damaged_and_mirrored_nifti_is_named(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    images, masks = folders(tmp_path, [np.zeros((3, 4, 5))], [np.zeros((3, 4, 5))], "nii.gz")
    mirrored = nibabel.Nifti1Image(np.zeros((3, 4, 5)), np.diag([-1, 1, 1, 1]))
    nibabel.save(mirrored, masks / "0.nii.gz")
    with pytest.raises(
        ValueError, match=r"masks/0\.nii\.gz with the axes of .*images.*, RAS, got LAS"
    ):
        open_labelled(images, masks)
    (images / "0.nii.gz").write_bytes(b"nothing")
    (masks / "0.nii.gz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"Expected an image in .*0\.nii\.gz, got"):
        open_labelled(images, masks)


@pytest.mark.parametrize("kind", ["png", "tif", "npy", "nii.gz", "nii", "h5"])
def test_damaged_files_have_one_sentence_with_their_name(tmp_path, kind):
    """Decoders raise exceptions of twenty kinds."""
    if "nii" in kind:
        pytest.importorskip("nibabel")
    shape = (9, 7) if kind == "png" else (5, 9, 7)
    images, masks = random_pairs(n=1, shape=shape)
    where = (hdf5(tmp_path / "a.h5", images, masks),) if kind == "h5" else (
        folders(tmp_path, images, masks, kind)
    )  # fmt: skip
    path = where[0] if kind == "h5" else where[0] / f"0.{kind}"
    content, rng = path.read_bytes(), np.random.default_rng(0)
    sentences = []
    for k in range(24):
        damaged = bytearray(content[: len(content) * (k % 6 + 1) // 7] if k % 2 else content)
        for place in rng.integers(0, min(len(damaged), 400), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            open_labelled(*where).tally(show_progress=False)
        except ValueError as problem:
            sentences.append(str(problem))
    assert sentences
    assert all(str(path) in sentence and "\n" not in sentence for sentence in sentences)


def test_without_nibabel_the_cure_is_named(tmp_path, monkeypatch):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.nii.gz").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(ImportError, match=r"pip install 'dense-imb\[nifti\]'"):
        open_labelled(tmp_path / "images", tmp_path / "masks")


@pytest.mark.parametrize(
    ("image", "mask", "sentence"),
    [
        ((4, 9, 7), (3, 9, 7), r"got \(4, 9, 7\) and \(3, 9, 7\)"),
        ((4, 9, 7), (4, 9, 8), r"mask 0 of .*a\.h5 of the size of image 0 .*\(9, 7\), got \(9, 8"),
        ((0, 9, 7), (0, 9, 7), r"got \(0, 9, 7\) and \(0, 9, 7\)"),
        ((4, 9), (4, 9), r"got \(4, 9\) and \(4, 9\)"),
    ],
)
def test_hdf5_of_other_shapes_is_refused(tmp_path, image, mask, sentence):
    path = hdf5(tmp_path / "a.h5", np.zeros(image, np.uint8), np.zeros(mask, np.uint8))
    with pytest.raises(ValueError, match=sentence):
        open_labelled(path)


def test_dangerous_and_foreign_hdf5_is_refused(tmp_path):
    images, masks = random_pairs()
    outside = hdf5(tmp_path / "b.h5", images, masks)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = images
        file["mask"] = h5py.ExternalLink(outside.name, "mask")
    with pytest.raises(ValueError, match=r"`/mask` of .*a\.h5 to be stored in place, got a Ext"):
        open_labelled(tmp_path / "a.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["frames"] = images
    with pytest.raises(ValueError, match="data sets `image` and `mask` in .*got frames"):
        open_labelled(tmp_path / "c.h5")
    (tmp_path / "d.h5").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"images and masks at .*d\.h5, got one that HDF5 can't"):
        open_labelled(tmp_path / "d.h5")


@real
def test_cracks_of_the_real_data(tmp_path):
    cracks = Path(ROOT) / "crackforest"
    with pytest.raises(ValueError, match=r"001\.png .*got 0 and 255; .*`labels=0 255`"):
        open_labelled(cracks / "images", cracks / "masks")
    data = open_labelled(cracks / "images", cracks / "masks", labels=[0, 255])
    tally = data.subset(range(20)).tally(show_progress=False)
    assert (len(data), data.n_channels, tally.sizes) == (118, 3, {(320, 480): 20})
    assert 0.01 < tally.statistics.shares[1] < 0.03


@real
def test_particles_of_the_real_data():
    where = Path(ROOT) / "cern_school_timepix"
    data = open_labelled(where / "images", where / "masks")
    assert (data.n_classes, data.n_channels, data.image(0).dtype) == (3, 1, np.uint16)


def named_file(path, names, *, n_classes=3):
    hdf5(path, *random_pairs(n_classes=n_classes))
    with h5py.File(path, "r+") as file:
        file.attrs["classes"] = np.bytes_(names)
    return path


def test_class_names_of_an_hdf5_file_are_read(tmp_path):
    path = named_file(tmp_path / "a.h5", '["empty", "arc", "ring"]')
    data = open_labelled(path)
    assert data.class_names == ("empty", "arc", "ring")
    assert data.has_class_names
    assert data.subset([1, 2]).class_names == data.class_names
    assert pickle.loads(pickle.dumps(data)).class_names == data.class_names


def test_class_names_follow_the_labels(tmp_path):
    path = named_file(tmp_path / "a.h5", '["empty", "arc", "ring"]')
    assert open_labelled(path, labels=[0, 2, 1]).class_names == ("empty", "ring", "arc")
    given = open_labelled(path, labels=[0, 2, 1], names=["nothing", "r", "a"])
    assert given.class_names == ("nothing", "r", "a")


@pytest.mark.parametrize(
    "names",
    ["no JSON", "3", '["a", "b"]', '["a", "a", "b"]', '["a", 1, "b"]', '["a", "b\\n", "c"]',
     '{"0": "a"}', "[" * 100_000],
)  # fmt: skip
def test_what_is_no_list_of_class_names_is_passed_over(tmp_path, names):
    data = open_labelled(named_file(tmp_path / "a.h5", names[:60_000]))
    assert data.class_names == ("background", "class 1", "class 2")
    assert not data.has_class_names


def test_class_names_can_be_given_for_folders(tmp_path):
    both = folders(tmp_path, *random_pairs())
    assert open_labelled(*both, names=["sky", "wall", "crack"]).class_names[2] == "crack"
    assert open_labelled(*both, names=["a", "b", "c", "d"]).n_classes == 4


@pytest.mark.parametrize(
    ("names", "options"),
    [(["a"], {}), (["a", "a"], {}), (["a", " "], {}), (["a", "b"], {"n_classes": 3}),
     (["a", "b"], {"labels": [0, 1, 2]})],
)  # fmt: skip
def test_class_names_that_do_not_fit_are_refused(tmp_path, names, options):
    with pytest.raises(ValueError, match="Expected `names` with a"):
        open_labelled(*folders(tmp_path, *random_pairs()), names=names, **options)
