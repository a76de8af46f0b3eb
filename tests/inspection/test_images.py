"""inspect_images: masks are read as what they mean."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from PIL import Image

from dense_imb.inspection import Inspection, inspect_images, text_of
from tests.data.images.labelled_files import folders as data_folders
from tests.data.images.labelled_files import hdf5, random_pairs


@pytest.fixture
def folders(tmp_path):
    def make(*masks, images=None):
        for name in ("images", "masks"):
            (tmp_path / name).mkdir(exist_ok=True)
        for k, mask in enumerate(masks):
            mask = np.asarray(mask)
            image = np.zeros(mask.shape[:2], np.uint8) if images is None else images[k]
            Image.fromarray(image).save(tmp_path / "images" / f"{k}.png")
            if mask.dtype == np.uint8:
                Image.fromarray(mask).save(tmp_path / "masks" / f"{k}.png")
            else:
                np.save(tmp_path / "masks" / f"{k}.npy", mask)
        return tmp_path / "images", tmp_path / "masks"

    return make


def look(folders, **options) -> Inspection:
    found = inspect_images(*folders, show_progress=False, **options)
    json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return found


def mask_of(value, n_lit, shape=(10, 12)):
    mask = np.zeros(shape, np.uint8)
    mask.flat[:n_lit] = value
    return mask


def test_0_and_255_are_classes_0_and_1(folders):
    found = look(folders(mask_of(255, 12), mask_of(255, 0), mask_of(255, 24))).numbers
    classes = found["partitions"]["frame"]["classes"]
    assert {name: one["pixels"] for name, one in classes.items()} == {
        "background": 324,
        "class 1": 36,
    }
    assert classes["class 1"]["images"] == 2
    assert found["images_without_foreground"] == 1
    share = found["foreground_share"]
    assert [share[k] for k in ("min", "median", "max")] == pytest.approx([0.0, 0.1, 0.2])
    assert found["accuracy"]["blank"] == pytest.approx(0.9)
    # median frequency looks at the images that hold a class only
    weight = found["partitions"]["frame"]["weights"]["median-frequency"]
    assert weight[1] / weight[0] == pytest.approx((324 / 360) / (36 / 240), rel=1e-3)


def test_other_values_are_labels(folders):
    found = look(folders(mask_of(1, 5), mask_of(3, 7)))
    classes = found.numbers["partitions"]["frame"]["classes"]
    assert [one["pixels"] for one in classes.values()] == [228, 5, 0, 7]
    assert found.numbers["partitions"]["frame"]["never_seen"] == ["class 2"]
    assert "no pixel of class 2" in text_of(found)


def test_ignored_pixels_are_left_out(folders):
    mask = mask_of(1, 10)
    mask[-1] = 255
    where = folders(mask)
    assert "--ignore-index 255" in text_of(look(where))
    found = look(where, ignore_index=255)
    classes = found.numbers["partitions"]["frame"]["classes"]
    assert [one["pixels"] for one in classes.values()] == [98, 10]
    assert found.numbers["foreground_share"]["mean"] == pytest.approx(10 / 108)
    assert found.numbers["objects_per_image"]["max"] == 1
    assert found.pictures["samples"][0]["mask"].max() == 1


def test_objects_are_counted(folders):
    pytest.importorskip("scipy")
    mask = np.zeros((10, 10), np.uint8)
    mask[1, 1] = mask[2, 2] = mask[7, 7] = 255
    assert look(folders(mask)).numbers["objects_per_image"]["mean"] == 2


def test_masks_without_foreground_have_nothing_to_balance(folders):
    found = look(folders(mask_of(0, 5)))
    assert "one class only" in text_of(found)
    assert "weights" not in found.numbers["partitions"]["frame"]


def test_grey_masks_may_have_three_equal_channels(folders):
    mask = np.repeat(mask_of(255, 12)[..., None], 3, 2)
    classes = look(folders(mask)).numbers["partitions"]["frame"]["classes"]
    assert classes["class 1"]["pixels"] == 12


def test_some_images_are_evenly_spaced(folders):
    where = folders(*(mask_of(255, 10 * k) for k in range(5)))
    found = look(where, n_images=3).numbers
    assert (found["files"], found["inspected_images"]) == (5, 3)
    assert found["foreground_share"]["mean"] == pytest.approx(20 / 120)
    assert found["foreground_share"]["max"] == pytest.approx(40 / 120)


def test_bad_masks_are_refused_by_name(folders, tmp_path):
    colours = np.zeros((10, 12, 3), np.uint8)
    colours[0, 0] = (255, 0, 0)
    for mask, sentence in (
        (colours, r"masks/0\.png to hold labels, one channel.* convert colours to labels"),
        (np.full((10, 12), 0.5), r"masks/0\.npy to hold labels, whole numbers"),
        (np.full((10, 12), 300), "got int64 from 300 to 300"),
        (np.full((10, 12), np.nan), "whole numbers"),
    ):
        where = folders(mask)
        with pytest.raises(ValueError, match=sentence):
            look(where)
        for path in (tmp_path / "masks").iterdir():
            path.unlink()


def test_values_named_are_classes_and_others_are_left_out_or_refused(folders):
    mask = mask_of(200, 12)
    mask[-1] = 100
    mask[-2] = 7
    where = folders(mask)
    found = look(where, labels=[0, 200, 100], ignore_index=7)
    classes = found.numbers["partitions"]["frame"]["classes"]
    assert [one["pixels"] for one in classes.values()] == [84, 12, 12]
    assert found.numbers["foreground_share"]["mean"] == pytest.approx(24 / 108)
    assert "masks of 0, 200 and 100, in this order classes 0 to 2" in text_of(found)
    assert "--labels 0 7 100 200" in text_of(look(where))
    assert set(np.unique(found.pictures["samples"][0]["mask"])) == {0, 1, 2}
    with pytest.raises(ValueError, match=r"masks/0\.png to hold the values 0 and 200 of `labels`"):
        look(where, labels=[0, 200])


def test_a_named_class_that_no_pixel_has_keeps_its_place(folders):
    found = look(folders(mask_of(255, 12)), labels=[0, 255, 9]).numbers
    assert found["partitions"]["frame"]["never_seen"] == ["class 2"]


def test_volumes_of_every_kind_have_the_same_numbers(tmp_path):
    pytest.importorskip("nibabel")
    images, masks = random_pairs(shape=(5, 9, 7), n_classes=2, dtype=np.int16)
    masks *= 255
    seen = []
    for kind in ("npy", "nii.gz", "h5"):
        where = (hdf5(tmp_path / "a.h5", images, masks),) if kind == "h5" else (
            data_folders(tmp_path / kind, images, masks, kind)
        )  # fmt: skip
        found = look(where)
        assert found.numbers["sizes"] == {"5 x 9 x 7": 4}
        assert found.numbers["spatial_dims"] == 3
        assert "0 and 255, read as classes 0 and 1" in text_of(found)
        seen.append([found.numbers[k] for k in ("pixels", "foreground_share", "partitions")])
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][2]["frame"]["classes"]["class 1"]["pixels"] == (masks > 0).sum()


def test_of_a_volume_the_slice_with_most_foreground_is_shown(tmp_path):
    images = np.arange(5 * 9 * 7, dtype=np.uint16).reshape(1, 5, 9, 7)
    masks = np.zeros((1, 5, 9, 7), np.uint8)
    masks[0, 3, 2:4, 2] = 1
    sample = look((hdf5(tmp_path / "a.h5", images, masks),)).pictures["samples"][0]
    assert sample["name"] == "000000, slice 4 of 5"
    np.testing.assert_array_equal(sample["image"][..., 0], images[0, 3])
    np.testing.assert_array_equal(sample["mask"], masks[0, 3])
    blank = look((hdf5(tmp_path / "b.h5", images, masks * 0),)).pictures["samples"][0]
    assert blank["name"] == "000000, slice 3 of 5"  # the middle, where there is nothing to see
    thin = look((hdf5(tmp_path / "c.h5", *(a.transpose(0, 2, 3, 1) for a in (images, masks))),))
    np.testing.assert_array_equal(thin.pictures["samples"][0]["image"][..., 0], images[0, 3])


def test_sizes_must_agree(folders):
    where = folders(mask_of(255, 3), images=[np.zeros((10, 13), np.uint8)])
    with pytest.raises(ValueError, match=r"0\.png of the size of .*\(10, 13\), got \(10, 12\)"):
        look(where)


def test_classes_have_the_names_of_the_file_or_those_given(tmp_path):
    path = hdf5(tmp_path / "a.h5", *random_pairs())
    with h5py.File(path, "r+") as file:
        file.attrs["classes"] = np.bytes_('["empty", "arc", "ring"]')
    for options, names in (
        ({}, ["empty", "arc", "ring"]),
        ({"names": ["nothing", "a", "b", "c"]}, ["nothing", "a", "b", "c"]),
        ({"labels": [0, 2, 1]}, ["empty", "ring", "arc"]),
    ):
        found = inspect_images(path, show_progress=False, **options)
        assert list(found.numbers["partitions"]["frame"]["classes"]) == names
        assert f"\n  {names[1]} " in text_of(found)


def test_fewer_names_than_values_name_the_cure(folders):
    where = folders(mask_of(7, 5), mask_of(255, 5))
    with pytest.raises(ValueError, match=r"as many as `names`, .* `labels=0 7 255`"):
        look(where, names=["sky", "wall", "crack"])
    found = look(where, names=["sky", "wall", "crack"], labels=[0, 7, 255])
    assert list(found.numbers["partitions"]["frame"]["classes"]) == ["sky", "wall", "crack"]


def test_values_with_gaps_get_no_weights_but_the_option_that_names_them(folders):
    where = folders(mask_of(7, 5), mask_of(255, 5))
    found = look(where)
    assert "weights" not in found.numbers["partitions"]["frame"]
    closing = text_of(found).rpartition("Weights and priors")[2]
    assert "  none: the mask values" in closing
    assert text_of(found).endswith(" --labels 0 7 255")
    assert "class_weight" not in closing
    assert "class_weight" in text_of(look(where, labels=[0, 7, 255]))
    # a class of a known list that has no pixel is no gap
    assert "class_weight" in text_of(look(where, labels=[0, 7, 8, 255]))


@pytest.mark.parametrize(
    ("values", "options", "line"),
    [
        ((255, 255), {}, "--images.labels '[0, 255]'\n"),
        ((7, 9), {"labels": [0, 7], "ignore_index": 9},
         "--images.labels '[0, 7]' --images.ignore_index 9"),
    ],
)  # fmt: skip
def test_what_to_type_to_train_on_named_values_is_said(folders, values, options, line):
    assert line in text_of(look(folders(*(mask_of(value, 5) for value in values)), **options))


def grey_mask(n_values=256, seed=0):
    """A bright square on black; smoothing or JPEG gave its edges all values between."""
    mask = np.zeros((40, 50), np.uint8)
    mask[10:20, 10:30] = 255
    rng = np.random.default_rng(seed)
    mask[:8] = rng.permutation(np.linspace(0, 255, 400).round()).reshape(8, 50)
    chosen = np.linspace(0, 255, n_values).round().astype(np.uint8)
    return chosen[np.abs(mask[..., None].astype(int) - chosen).argmin(-1)]


@pytest.mark.parametrize("n_values", [12, 60, 256])
def test_grey_masks_have_one_cure(folders, n_values):
    images, masks = folders(grey_mask(n_values))
    found = look((images, masks))
    text = text_of(found)
    assert f"the masks hold {n_values} values from 0 to 255" in text
    assert text.splitlines()[-1] == f"  dense-imb inspect {images} --masks {masks} --above 127"
    assert text.count("--above 127") == 1
    assert "--labels" not in text
    assert "class 2" not in text


def test_smooth_edges_of_dark_masks_have_the_cure_of_training(folders):
    values = np.array([0, 1, 2, 4, 5, 7, 8, 10, 11, 12, 41, 60, 76, 95, 126, 158, 201], np.uint8)
    mask = np.resize(values, (40, 50))
    text = text_of(look(folders(mask)))
    assert text.splitlines()[-1].endswith("--above 127")
    assert "--labels" not in text


def test_many_classes_are_no_grey_values(folders):
    mask = (np.arange(2000) % 151).astype(np.uint8).reshape(40, 50)
    assert "--above" not in text_of(look(folders(mask)))
    mask[0] = 255  # often a class to ignore
    assert "--above" not in text_of(look(folders(mask)))


def test_values_above_a_threshold_are_class_1(folders):
    where = folders(grey_mask(), mask_of(128, 3, (40, 50)))
    found = look(where, above=127)
    wanted = (grey_mask() > 127).sum() + 3
    classes = found.numbers["partitions"]["frame"]["classes"]
    assert [one["pixels"] for one in classes.values()] == [4000 - wanted, wanted]
    assert "class 1 above 127" in text_of(found)
    assert set(np.unique(found.pictures["samples"][0]["mask"])) == {0, 1}
    some = grey_mask() == 7
    ignored = look(where, above=127, ignore_index=7).numbers["partitions"]["frame"]["classes"]
    assert ignored["background"]["pixels"] == 4000 - wanted - some.sum()
    with pytest.raises(ValueError, match="`above`"):
        look(where, above=127, labels=[0, 255])


@pytest.mark.parametrize(
    ("values", "options", "arguments"),
    [
        ((255, 255), {}, "compare {0} --masks {1} --labels 0 255"),
        ((1, 2), {}, "compare {0} --masks {1}"),
        ((1, 3), {}, "inspect {0} --masks {1} --labels 0 1 3"),
        ((1, 9), {"ignore_index": 9}, "compare {0} --masks {1} --ignore-index 9"),
        ((7, 9), {"labels": [0, 7], "ignore_index": 9},
         "compare {0} --masks {1} --labels 0 7 --ignore-index 9"),
        ((99, 200), {"above": 150.5}, "compare {0} --masks {1} --above 150.5"),
    ],
)  # fmt: skip
def test_the_last_line_is_the_next_command(folders, values, options, arguments):
    where = folders(*(mask_of(value, 5) for value in values))
    last = text_of(look(where, **options)).splitlines()[-1]
    assert last == f"  dense-imb {arguments.format(*where)}"


def test_the_advice_fits_natural_probabilities(folders):
    mask = mask_of(1, 5)
    text = text_of(look(folders(mask)))
    assert "never judge at probability 1/2" not in text
    assert "by natural probabilities the best F1 lies at half of itself" in text
    assert "(train with --calibrate true to fit their slope, too)" in text
    assert "finished runs turn them into natural ones" in text
    assert "DiceLoss of perfect is not 0: it counts the 0.01 that p=0.99 leaves" in text
    assert "Next: compare losses on these data, for 20 minutes (--minutes N)" in text


def test_the_next_command_of_a_file_names_the_file(tmp_path):
    path = hdf5(tmp_path / "a b.h5", *random_pairs(n_classes=2))
    assert text_of(look((path,))).splitlines()[-1] == f"  dense-imb compare '{path}'"


def test_one_class_has_nothing_to_compare(folders):
    assert "dense-imb" not in text_of(look(folders(mask_of(0, 5))))
