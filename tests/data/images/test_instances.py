"""Instance maps: components and nearest components as slow searches find them, made or read."""

from __future__ import annotations

import pickle
import warnings

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_imb.data.epochs.patches import patch_rng, place_patch
from dense_imb.data.images.instances import (
    InstancesWarning,
    check_instances,
    label_instances,
    nearest_instance,
    write_instances,
)
from dense_imb.data.images.labelled import IGNORED, open_labelled
from tests.data.images.labelled_files import folders, hdf5, random_pairs, save


def flood(label):
    """Components of equal foreground labels, whose pixels touch, one pixel at a time."""
    instance, n = np.zeros(label.shape, int), 0
    steps = [np.array(step) - 1 for step in np.ndindex((3,) * label.ndim)]
    for k in sorted({*label.ravel().tolist()} - {0, IGNORED}):
        for start in np.argwhere(label == k):
            if instance[tuple(start)]:
                continue
            n, todo = n + 1, [start]
            while todo:
                place = todo.pop()
                is_inside = all(0 <= x < side for x, side in zip(place, label.shape, strict=True))
                if is_inside and label[tuple(place)] == k and not instance[tuple(place)]:
                    instance[tuple(place)] = n
                    todo += [place + step for step in steps]
    return instance


def random_label(shape, seed, share=0.4):
    rng = np.random.default_rng(seed)
    label = np.where(rng.random(shape) < share, rng.integers(1, 4, shape), 0).astype(np.uint8)
    label[rng.random(shape) < 0.1] = IGNORED
    return label


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(9, 8), (1, 7), (4, 5, 4)]))
def test_components_are_those_of_a_flood(seed, shape):
    label = random_label(shape, seed)
    instance = label_instances(label)
    assert instance.dtype == np.int16
    np.testing.assert_array_equal(instance, flood(label))
    check_instances(instance, label)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(9, 8), (1, 7), (4, 5, 4)]))
def test_the_nearest_instance_is_nearest(seed, shape):
    label = random_label(shape, seed, share=0.15)
    instance = label_instances(label)
    nearest = nearest_instance(instance)
    places = np.argwhere(instance > 0)
    if not len(places):
        assert not nearest.any()
        return
    np.testing.assert_array_equal(nearest[instance > 0], instance[instance > 0])
    number = instance[instance > 0]
    for place in np.ndindex(shape):
        squares = ((places - place) ** 2).sum(1)
        assert squares[number == nearest[place]].min() == squares.min()


def test_classes_that_touch_are_different_instances():
    label = np.array([[1, 2, 2], [0, 1, 255]], np.uint8)
    np.testing.assert_array_equal(label_instances(label), [[1, 2, 2], [0, 1, 0]])
    # with another label to ignore, 255 is a class
    np.testing.assert_array_equal(label_instances(label, ignore_index=2), [[1, 0, 0], [0, 1, 2]])
    np.testing.assert_array_equal(label_instances(label > 0), [[1, 1, 1], [0, 1, 1]])


def test_numbers_that_int16_does_not_hold():
    label = np.zeros((512, 512), np.uint8)
    label[::2, ::2] = 1
    instance = label_instances(label)
    assert (instance.dtype, instance.max()) == (np.int32, 256 * 256)
    assert nearest_instance(instance).dtype == np.int32
    assert label_instances(label[:64]).dtype == np.int16


@pytest.mark.parametrize("shape", [(0, 3), (4, 4)])
def test_maps_without_instances(shape):
    nothing = np.zeros(shape, np.uint8)
    assert label_instances(nothing).shape == nearest_instance(nothing).shape == shape
    assert not label_instances(nothing).any()
    check_instances(nothing, nothing)
    assert (nearest_instance(nothing + 7) == 7).all()


@pytest.mark.parametrize(
    ("instance", "label", "sentence"),
    [
        ([[1, 1]], [1, 1], r"of the shape \(2,\) of its labels, got \(1, 2\)"),
        ([3, 3, 3], [1, 0, 2], r"got instance 3 with the classes 1 and 2; number the instances of"),
        ([-1, 0], [0, 1], "from 0, for none, to 2147483647, got -1; renumber them"),
        ([2**40, 0], [0, 1], f"got {2**40}; renumber"),
        ([0.5, 0], [0, 1], r"`instance` as an array of integers, \(\*spatial\), got float64"),
        ([1, 0], [0.5, 1], "`label` as an array of integers"),
    ],
)
def test_maps_that_do_not_fit_are_refused(instance, label, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        check_instances(instance, label)


def test_background_and_ignored_pixels_do_not_make_a_second_class():
    check_instances(np.array([4, 4, 4, 0]), np.array([0, 1, 255, 2]))
    with pytest.raises(ValueError, match="classes 1 and 255"):
        check_instances(np.array([4, 4]), np.array([1, 255]), ignore_index=None)


@pytest.mark.parametrize("shape", [(20, 18), (6, 9, 8)])
@pytest.mark.parametrize("kind", ["components", "nearest"])
def test_the_loader_makes_maps(tmp_path, shape, kind):
    where = folders(tmp_path, *random_pairs(shape=shape), suffix="npy")
    data = open_labelled(*where, ignore_index=2, instances=kind).subset([1, 3])
    label = data.label(0)
    wanted = label_instances(label)
    if kind == "nearest":
        wanted = np.where(label == IGNORED, 0, nearest_instance(wanted))
    np.testing.assert_array_equal(data.instance(0), wanted)
    assert data.instance(0) is data.instance(0)
    assert not data.instance(0).flags.writeable
    assert data.has_instances
    assert data.describe_instances() == kind
    assert (pickle.loads(pickle.dumps(data)).instance(1) == data.instance(1)).all()


@pytest.mark.parametrize("suffix", ["npy", "tif"])
def test_maps_are_read_from_a_folder(tmp_path, suffix):
    images, masks = random_pairs(shape=(12, 10), n_classes=2)
    where = folders(tmp_path, images, masks)
    numbers = [7 * label_instances(mask).astype(np.int32) for mask in masks]
    for k, instance in enumerate(numbers):
        save(tmp_path / "maps" / f"{k}.{suffix}", instance)
    data = open_labelled(*where, instances=tmp_path / "maps")
    np.testing.assert_array_equal(data.instance(2), numbers[2])
    other = open_labelled(*where).with_instances(str(tmp_path / "maps")).subset([2])
    np.testing.assert_array_equal(other.instance(0), numbers[2])
    described = other.describe_instances()
    assert described.startswith("stored ")
    assert described != data.describe_instances()
    save(tmp_path / "maps" / f"2.{suffix}", numbers[2] * 2)
    assert other.describe_instances() != described
    assert data.fingerprint() == open_labelled(*where).fingerprint()


def test_maps_are_read_from_a_file(tmp_path):
    images, masks = random_pairs(shape=(12, 10), n_classes=2)
    path = hdf5(tmp_path / "a.h5", images, masks)
    numbers = np.stack([label_instances(mask) for mask in masks])
    with h5py.File(path, "a") as file:
        file["instance"], file["part/near"] = numbers, numbers.astype(np.float32)
        file["small"] = numbers[:, :5]
    data = open_labelled(path, instances="instance")
    np.testing.assert_array_equal(data.instance(3), numbers[3])
    assert (open_labelled(path, instances="part/near").instance(3) == numbers[3]).all()
    assert (pickle.loads(pickle.dumps(data)).instance(1) == numbers[1]).all()
    with pytest.raises(ValueError, match=r"`small` of .*of the shape \(4, 12, 10\) of `mask`"):
        open_labelled(path, instances="small")
    with pytest.raises(ValueError, match=r"maps, or a data set of .*a.h5, got 'nothing'\.$"):
        open_labelled(path, instances="nothing")


@pytest.mark.parametrize("kind", ["components", "nearest"])
def test_written_maps_are_read_again(tmp_path, kind):
    images, masks = random_pairs(shape=(5, 6, 7))
    where = folders(tmp_path, images, masks, "npy")
    data = open_labelled(*where, ignore_index=2)
    paths = write_instances(data, tmp_path / "maps", kind, show_progress=False)
    assert [path.name for path in paths] == ["0.npy", "1.npy", "2.npy", "3.npy"]
    made, read = data.with_instances(kind), data.with_instances(tmp_path / "maps")
    for i in range(4):
        np.testing.assert_array_equal(made.instance(i), read.instance(i))
        assert made.instance(i).dtype == read.instance(i).dtype == np.int16
    with pytest.raises(FileExistsError, match="0.npy, got one"):
        write_instances(data, tmp_path / "maps", kind)
    write_instances(data, tmp_path / "maps", kind, overwrite=True)
    # the names of an HDF5 file are numbers
    file = open_labelled(hdf5(tmp_path / "a.h5", images, masks), ignore_index=2)
    write_instances(file, tmp_path / "more", kind)
    assert (file.with_instances(tmp_path / "more").instance(2) == made.instance(2)).all()


def test_stored_maps_that_do_not_fit_are_refused(tmp_path):
    images, masks = random_pairs(shape=(12, 10), n_classes=3)
    where = folders(tmp_path, images, masks)
    save(tmp_path / "maps" / "0.npy", masks[0])
    save(tmp_path / "maps" / "1.npy", np.minimum(masks[1], 1))
    save(tmp_path / "maps" / "2.npy", masks[2][1:])
    with pytest.raises(ValueError, match=r"map of the same name in .*maps .*, got none for 3; add"):
        open_labelled(*where, instances=tmp_path / "maps")
    save(tmp_path / "maps" / "3.npy", masks[3] + 0.5)
    data = open_labelled(*where, instances=tmp_path / "maps")
    np.testing.assert_array_equal(data.instance(0), masks[0])
    with pytest.raises(ValueError, match=r"1\.npy with one class in each .* instance 1 with the"):
        data.instance(1)
    with pytest.raises(ValueError, match=r"2\.npy of the shape \(12, 10\) of its labels, got"):
        data.instance(2)
    with pytest.raises(ValueError, match=r"3\.npy to hold instance numbers, whole numbers"):
        data.instance(3)
    with pytest.raises(ValueError, match=r"got 'componets'; did you mean 'components'\.$"):
        data.with_instances("componets")
    with pytest.raises(ValueError, match=r"got none; call with_instances\(.components.\)"):
        open_labelled(*where).instance(0)


def test_maps_share_the_budget_of_the_images(tmp_path):
    images, masks = random_pairs(n=3, shape=(10, 10), n_classes=2)
    where = folders(tmp_path, images, masks)
    tight = open_labelled(*where, instances="nearest", budget=850)  # 200 an image, 200 a map
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = [tight.instance(i) for i in range(2)]
    with pytest.warns(InstancesWarning, match="for every crop: store them with"):
        tight.instance(2)
    assert tight.instance(0) is kept[0]
    assert tight.instance(2) is not tight.instance(2)  # warned once
    assert (tight.instance(2) == open_labelled(*where, instances="nearest").instance(2)).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([(4, 5), (30, 3), (40, 40)]))
def test_a_crop_of_the_map_is_cropped_and_not_relabelled(seed, size):
    label = random_label((20, 24), seed)
    instance = nearest_instance(label_instances(label))
    patch = place_patch(label, size, patch_rng(seed, 0, 0), turns=True)
    cut, classes = patch.instance(instance), patch.label(label)
    assert cut.shape == size
    assert cut.dtype == instance.dtype
    # the map as one more channel of the image, which is mirrored and turned with it
    both = patch.image(np.stack([instance, 1 + np.arange(label.size).reshape(label.shape)]))
    inside = patch.label(np.zeros_like(label)) == 0
    np.testing.assert_array_equal(cut[inside], both[0][inside])
    assert not cut[~inside].any()
    np.testing.assert_array_equal(cut[inside], instance.ravel()[both[1][inside] - 1])
    check_instances(cut, classes)
