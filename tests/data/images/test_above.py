"""Grey masks with a threshold: `above` in place of `labels`."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from dense_imb.base.refusals import Refused
from dense_imb.data.images.labelled import IGNORED, open_labelled
from tests.data.images.labelled_files import folders, hdf5

ROOT = os.environ.get("DENSE_IMB_DATA", "")
real = pytest.mark.skipif(
    not (Path(ROOT) / "crackforest").is_dir() or not ROOT,
    reason="DENSE_IMB_DATA does not name a folder with the real data",
)
SIDE = 48


def disc(centre=(22.3, 25.8), radius=13.4):
    """A smooth edge: the grey value is the distance to the circle, clipped."""
    row, column = np.mgrid[:SIDE, :SIDE]
    distance = np.hypot(row - centre[0], column - centre[1])
    return ((radius - distance) / 8 + 0.5).clip(0, 1) * 255


def grey(tmp_path, suffix="png", **options):
    mask = disc().round().astype(np.uint8)
    blank = np.zeros((SIDE, SIDE), np.uint8)
    where = folders(tmp_path, [blank], [mask], mask_suffix=suffix)
    return (*where, mask), open_labelled(*where, **options) if options else None


def test_anti_aliased_png_masks_are_cut_at_the_value(tmp_path):
    (*_, mask), data = grey(tmp_path, above=127)
    assert len(np.unique(mask)) > 50
    np.testing.assert_array_equal(data.label(0), mask > 127)
    assert (data.n_classes, data.label(0).dtype) == (2, np.uint8)
    assert data.class_names == ("background", "class 1")
    tally = data.tally(show_progress=False)
    assert tally.class_counts == (int((mask <= 127).sum()), int((mask > 127).sum()))


def test_the_value_itself_is_background(tmp_path):
    where = folders(tmp_path, [np.zeros((1, 3), np.uint8)], [np.array([[126, 127, 128]], np.uint8)])
    np.testing.assert_array_equal(open_labelled(*where, above=127).label(0), [[0, 0, 1]])


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_masks_are_cut_at_the_value(tmp_path, mode):
    wanted = disc() > 127
    images, masks = folders(tmp_path, [np.zeros((SIDE, SIDE), np.uint8)], [wanted])
    (masks / "0.png").unlink()
    sharp = Image.fromarray(wanted.astype(np.uint8) * 255).convert(mode)
    sharp.save(masks / "0.jpg", quality=60)
    assert len(np.unique(np.asarray(Image.open(masks / "0.jpg")))) > 10  # blurred by the format
    np.testing.assert_array_equal(open_labelled(images, masks, above=127).label(0), wanted)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_hdf5_masks_are_cut_at_the_value(tmp_path, dtype):
    mask = np.stack([disc(), disc((30, 20), 8)]).round()
    path = hdf5(tmp_path / "a.h5", np.zeros(mask.shape, np.uint8), mask.astype(dtype))
    data = open_labelled(path, above=127)
    for i in range(2):
        np.testing.assert_array_equal(data.label(i), mask[i] > 127)
    again = pickle.loads(pickle.dumps(data.subset([1])))
    np.testing.assert_array_equal(again.label(0), mask[1] > 127)


def test_fractions_are_cut_at_a_fraction(tmp_path):
    probability = (disc() / 255).astype(np.float32)
    where = folders(tmp_path, [np.zeros((SIDE, SIDE))], [probability], "npy")
    np.testing.assert_array_equal(open_labelled(*where, above=0.5).label(0), probability > 0.5)
    with pytest.raises(Refused, match=r"whole numbers, got float32.*`above=0.5`\.$"):
        open_labelled(*where)


def test_negative_thresholds_and_volumes(tmp_path):
    mask = np.arange(-30, 30, dtype=np.int16).reshape(3, 4, 5)
    where = folders(tmp_path, [np.zeros((3, 4, 5))], [mask], "npy")
    np.testing.assert_array_equal(open_labelled(*where, above=-7).label(0), mask > -7)


def test_ignored_pixels_stay_ignored(tmp_path):
    mask = np.array([[0, 100, 200, 255]], np.uint8)
    where = folders(tmp_path, [np.zeros((1, 4), np.uint8)], [mask])
    data = open_labelled(*where, above=127, ignore_index=255)
    np.testing.assert_array_equal(data.label(0), [[0, 0, 1, IGNORED]])


def test_class_names_of_mask_values_are_not_those_of_the_two_classes(tmp_path):
    mask = disc()[None].round().astype(np.uint8)
    path = hdf5(tmp_path / "a.h5", np.zeros(mask.shape, np.uint8), mask)
    with h5py.File(path, "r+") as file:
        file.attrs["classes"] = np.bytes_('["a", "b", "c"]')
    assert not open_labelled(path, above=127).has_class_names
    assert open_labelled(path, above=127, names=["sky", "crack"]).class_names == ("sky", "crack")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("options", [{}, {"n_classes": 2}, {"labels": [0, 255]}])
def test_many_grey_values_name_one_cure(tmp_path, suffix, options):
    where, _ = grey(tmp_path, suffix)
    with pytest.raises(Refused, match=rf"masks/0\.{suffix} .*values from 0 to 255; ") as raised:
        open_labelled(*where[:2], **options).tally(show_progress=False)
    assert raised.value.sentence.count("{") == 1
    assert "{above=127}" in raised.value.sentence
    assert "ignore_index" not in str(raised.value)


@pytest.mark.parametrize("largest", [200, 1000])
def test_the_cure_fits_the_range_of_the_values(tmp_path, largest):
    mask = (np.arange(SIDE * SIDE) * 4 % (largest + 4)).astype(np.uint16).reshape(SIDE, SIDE)
    where = folders(tmp_path, [np.zeros((SIDE, SIDE))], [mask], "npy")
    with pytest.raises(Refused) as raised:
        open_labelled(*where)
    assert f"{{above={127 if largest < 256 else 500}}}" in raised.value.sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"labels": [0, 255]}, "`above` takes the place of `labels`; drop `labels`"),
        ({"n_classes": 3}, "`above` makes two classes, got `n_classes=3`"),
        ({"names": ["a", "b", "c"]}, "`names` with a name for each of 2 classes"),
        ({"above": float("nan")}, "`above` to be a finite number"),
        ({"above": "127"}, "`above` to be a number"),
        ({"above": True}, "`above` to be a number"),
    ],
)
def test_options_that_do_not_go_with_it_are_refused(tmp_path, options, sentence):
    where, _ = grey(tmp_path)
    with pytest.raises((ValueError, TypeError), match=sentence):
        open_labelled(*where[:2], **{"above": 127, **options})


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path, wrong):
    mask = disc()
    mask[3, 4] = wrong
    where = folders(tmp_path, [np.zeros((SIDE, SIDE))], [mask], "npy")
    with pytest.raises(ValueError, match=r"masks/0\.npy to hold finite numbers, got 1 NaN or"):
        open_labelled(*where, above=127)


@real
def test_smoothed_cracks_of_the_real_data(tmp_path):
    """Masks as annotation tools export them: enlarged with smooth edges."""
    cracks = Path(ROOT) / "crackforest"
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for path in sorted((cracks / "masks").iterdir())[:3]:
        with Image.open(path) as mask:
            smooth = mask.convert("L").resize((mask.width * 2, mask.height * 2), Image.BICUBIC)
        smooth.save(tmp_path / "masks" / path.name)
        Image.new("L", smooth.size).save(tmp_path / "images" / path.name)
    with pytest.raises(Refused, match="`above=127`"):
        open_labelled(tmp_path / "images", tmp_path / "masks")
    data = open_labelled(tmp_path / "images", tmp_path / "masks", above=127)
    sharp = open_labelled(cracks / "images", cracks / "masks", labels=[0, 255]).subset(range(3))
    shares = [part.tally(show_progress=False).statistics.shares[1] for part in (data, sharp)]
    assert shares[0] == pytest.approx(shares[1], rel=0.05)
