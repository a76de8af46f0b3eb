"""Patches: the class drawn is in them, anywhere in them, and the numbers can be repeated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_imb.data.epochs.patches import draw_patch, patch_rng
from dense_imb.data.images.labelled import IGNORED, class_pixels


def scene(shape=(60, 50), pixels=(((30, 25), 1),)):
    """An image that holds its own coordinates, and a label map with single pixels."""
    image = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    label = np.zeros(shape, np.uint8)
    for place, value in pixels:
        label[place] = value
    return image, label


def patches(n, image, label, size, **options):
    return [draw_patch(image, label, size, patch_rng(1, 0, k), **options) for k in range(n)]


def chi_square(counts):
    expected = counts.sum() / counts.size
    return ((counts - expected) ** 2 / expected).sum()


@pytest.mark.parametrize("flips", [False, True])
def test_the_pixel_lies_anywhere_in_the_patch_as_likely(flips):
    places = np.zeros((8, 8))
    for _, label in patches(6400, *scene(), 8, foreground=1.0, flips=flips):
        places += label == 1
    assert places.sum() == 6400  # it is in every patch
    # 63 degrees of freedom: 127 is passed once in 10^5; the centre alone would give 400,000
    assert chi_square(places) < 127


def test_a_pixel_at_the_border_lies_anywhere_that_keeps_the_patch_inside():
    places = np.zeros((8, 8))
    scene_at_border = scene(pixels=(((2, 49), 1),))
    for _, label in patches(3000, *scene_at_border, 8, foreground=1.0, flips=False):
        places += label == 1
    assert places.sum() == places[:3, 7].sum() == 3000
    assert chi_square(places[:3, 7]) < 24


def test_patches_without_a_class_start_anywhere_as_likely():
    starts = np.zeros((5, 3))
    for patch, _ in patches(3000, *scene((12, 10), ()), 8, foreground=0.0, flips=False):
        starts[tuple(patch[:, 0, 0])] += 1
    assert chi_square(starts) < 45


def test_each_class_of_the_image_is_drawn_as_often():
    image, label = scene((64, 64), (((10, 10), 3),))
    label[40:60, 40:60] = 1
    drawn = patches(2000, image, label, 4, foreground=1.0)
    share = np.mean([(label == 3).any() for _, label in drawn])
    assert share == pytest.approx(0.5, abs=0.05)  # 1 pixel against 400


def test_a_rare_class_is_seen_more_often():
    image, label = scene((100, 100), (((50, 50), 1),))
    seen = [
        np.mean([(label == 1).any() for _, label in patches(800, image, label, 10, foreground=f)])
        for f in (0.0, 0.5, 1.0)
    ]
    assert seen[0] < 0.05
    assert seen[1] == pytest.approx(0.5, abs=0.08)
    assert seen[2] == 1


def test_images_without_foreground_and_wholly_ignored_give_patches():
    image, label = scene(pixels=())
    assert draw_patch(image, label, 8, patch_rng(0, 0, 0), foreground=1.0)[0].shape == (2, 8, 8)
    label[:] = IGNORED
    assert class_pixels(label) == {}
    assert (draw_patch(image, label, 8, patch_rng(0, 0, 0), foreground=1.0)[1] == IGNORED).all()


@given(
    shape=st.lists(st.integers(1, 12), min_size=2, max_size=3),
    size=st.integers(1, 9),
    flips=st.booleans(),
    turns=st.booleans(),
    foreground=st.sampled_from([0.0, 0.5, 1.0]),
    sample=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=150)
def test_image_and_label_stay_together(shape, size, flips, turns, foreground, sample):
    """Every pixel keeps its label; what is added around is IGNORED and has an edge's value."""
    rng = np.random.default_rng(sample)
    label = rng.integers(0, 3, shape).astype(np.uint8)
    image = scene(tuple(shape), ())[0]
    before = image.copy(), label.copy()
    patch, found = draw_patch(
        image, label, size, patch_rng(2, 1, sample), foreground=foreground, flips=flips, turns=turns
    )
    assert patch.shape == (len(shape), *[size] * len(shape))
    assert found.shape == patch.shape[1:]
    of_image = label[tuple(patch)]
    is_inside = found != IGNORED
    np.testing.assert_array_equal(found[is_inside], of_image[is_inside])
    assert is_inside.sum() == np.prod([min(n, size) for n in shape])
    assert len(np.unique(patch[:, is_inside], axis=1).T) == is_inside.sum()
    if foreground == 1.0 and label.any():
        assert ((found > 0) & is_inside).any()
    patch[:], found[:] = 0, 0  # new arrays: the image is not altered
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(label, before[1])
    assert patch.flags.c_contiguous


def test_a_small_image_lies_anywhere_in_its_patch():
    rows = np.zeros(5)
    for _, label in patches(1000, *scene((4, 20), ()), 8):
        rows[np.flatnonzero(label[:, 0] == 0)[0]] += 1
    assert chi_square(rows) < 24


def test_axes_are_mirrored_half_the_time_and_only_if_asked():
    image, label = scene((8, 8), ())
    first = [tuple(patch[:, 0, 0]) for patch, _ in patches(800, image, label, 8)]
    share = [first.count(corner) / 800 for corner in ((0, 0), (0, 7), (7, 0), (7, 7))]
    assert share == pytest.approx([0.25] * 4, abs=0.06)
    plain = patches(20, image, label, 8, flips=False)
    assert all((patch == image).all() for patch, _ in plain)
    turned = {patch.tobytes() for patch, _ in patches(400, image, label, 8, turns=True)}
    assert len(turned) == 8  # the symmetries of a square


def test_a_patch_may_have_another_size_along_each_axis():
    image, label = scene((6, 12, 12), (((5, 11, 0), 1),))
    for patch, found in patches(50, image, label, (2, 8, 4), foreground=1.0):
        assert patch.shape == (3, 2, 8, 4)
        assert (found == 1).sum() == 1


def test_places_given_change_nothing_but_the_time():
    image, label = scene()
    label[3:9, 4:40], label[20, 20] = 2, IGNORED
    pixels = class_pixels(label)
    assert {k: len(places) for k, places in pixels.items()} == {1: 1, 2: 216}
    assert {k: len(places) for k, places in class_pixels(np.minimum(label, 2)).items()} == {
        1: 1, 2: 217
    }  # fmt: skip
    assert class_pixels(np.array([[0, 2, IGNORED]], np.uint8))[2].tolist() == [1]
    for k in range(50):
        one = draw_patch(image, label, 8, patch_rng(0, 0, k))
        other = draw_patch(image, label, 8, patch_rng(0, 0, k), pixels=pixels)
        np.testing.assert_array_equal(one[0], other[0])


def test_random_numbers_are_a_function_of_seed_epoch_and_sample():
    def numbers(*key):
        return tuple(patch_rng(*key).integers(0, 1 << 60, 4).tolist())

    keys = [(s, e, i) for s in (0, 1, 2**64 - 1) for e in (0, 1, 9) for i in (0, 1, 10**6)]
    assert len({numbers(*key) for key in keys}) == len(keys)
    assert numbers(3, 4, 5) == numbers(3, 4, 5)
    assert numbers(7, 0, 3) == NUMBERS  # the same on every machine, tomorrow, too
    for wrong in ((-1, 0, 0), (0, 2**64, 0), (0, 0, 0.5)):
        with pytest.raises(ValueError, match="from 0 to 2"):
            patch_rng(*wrong)


NUMBERS = (394972511404251547, 1106038989884077221, 92516069620736637, 855260270978322718)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"size": 0}, "`size` of at least 1"),
        ({"size": (8, 8, 8)}, "one for each of 2 dimensions"),
        ({"foreground": 1.5}, "`foreground` between 0 and 1"),
        ({"image": np.zeros((1, 5, 5))}, r"got \(1, 5, 5\) and \(60, 50\) of uint8"),
        ({"label": np.zeros((60, 50))}, "of uint8, got .* of float64"),
    ],
)
def test_what_does_not_fit_is_refused(change, sentence):
    image, label = scene()
    given = {"image": image, "label": label, "size": 8, "rng": patch_rng(0, 0, 0), **change}
    with pytest.raises(ValueError, match=sentence):
        draw_patch(**given)
