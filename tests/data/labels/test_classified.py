"""Whole images by number: views that are pure functions, splits that forget no class."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dense_imb.data.labels.classified import ArrayImages, ClassifiedImages, split_by_class, vary


def pictures(n: int, height: int = 7, width: int = 9):
    return np.random.default_rng(0).integers(1, 256, (n, 3, height, width)).astype(np.uint8)


def test_a_view_depends_on_seed_epoch_and_sample_only():
    images, samples = pictures(40), np.arange(100, 140)
    whole = vary(images, samples, seed=3, epoch=5, padding=3, flips="both")
    order = np.random.default_rng(1).permutation(40)
    mixed = vary(images[order], samples[order], seed=3, epoch=5, padding=3, flips="both")
    assert (mixed == whole[order]).all()
    alone = [
        vary(images[i : i + 1], samples[i : i + 1], seed=3, epoch=5, padding=3, flips="both")
        for i in range(40)
    ]
    assert (np.concatenate(alone) == whole).all()
    for changed in ({"seed": 4, "epoch": 5}, {"seed": 3, "epoch": 6}):
        assert (vary(images, samples, padding=3, flips="both", **changed) != whole).any()


@pytest.mark.parametrize("flips", ["none", "horizontal", "both"])
def test_a_view_is_a_crop_of_the_padded_image_perhaps_mirrored(flips):
    images, padding = pictures(300), 2
    found = vary(images, np.arange(300), seed=0, epoch=0, padding=padding, flips=flips)
    seen = set()
    for image, view in zip(images, found, strict=True):
        padded = np.pad(image, [(0, 0), (padding, padding), (padding, padding)])
        matches = [
            (top, left, axes)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
            for axes in ((), (1,), (2,), (1, 2))
            if (np.flip(padded[:, top : top + 7, left : left + 9], axes) == view).all()
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    mirrored = {axes for _, _, axes in seen}
    wanted = {"none": {()}, "horizontal": {(), (2,)}, "both": {(), (1,), (2,), (1, 2)}}
    assert mirrored == wanted[flips]
    assert {(top, left) for top, left, _ in seen} == {(i, j) for i in range(5) for j in range(5)}


def test_a_shift_larger_than_the_image_leaves_black():
    images = pictures(50, 2, 2)
    found = vary(images, np.arange(50), seed=0, epoch=0, padding=9, flips="none")
    assert found.shape == images.shape
    assert not found.all(axis=(1, 2, 3)).all()


@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=6),
    st.floats(0.05, 0.9),
    st.integers(0, 1000),
)
def test_a_split_has_a_share_of_each_class(counts, share, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    if max(counts) == 1:
        return
    kept, held = split_by_class(labels, share, seed)
    assert sorted(kept + held) == list(range(len(labels)))
    for k, count in enumerate(counts):
        n_held = int((labels[held] == k).sum())
        assert n_held == (0 if count == 1 else min(max(round(share * count), 1), count - 1))


def test_a_split_keeps_groups_together():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 2)
    labels = np.where(rng.random(120) < 0.15, 1, 0)
    kept, held = split_by_class(labels, 0.3, groups=patients.tolist())
    assert not set(patients[kept]) & set(patients[held])
    # a patient with one rare image counts as rare: 30 % of them are held out
    rare = {int(p) for p in patients[labels == 1]}
    assert len(rare & {int(p) for p in patients[held]}) == round(0.3 * len(rare))


def test_a_split_without_a_class_of_two_is_refused():
    with pytest.raises(ValueError, match="two images or more"):
        split_by_class([0, 1, 2], 0.5)
    with pytest.raises(ValueError, match="1 groups"):
        split_by_class([0, 1, 1], 0.5, groups=["a"] * 3)


def test_a_subset_is_numbered_anew():
    data = ClassifiedImages(ArrayImages(pictures(6)), [0, 1, 2, 0, 1, 2], "abc")
    part = data.subset([5, 0])
    assert part.labels.tolist() == [2, 0]
    assert (part.images([0, 1]) == data.images([5, 0])).all()
    assert part.class_counts == (1, 0, 1)
    assert part.fingerprint() != data.fingerprint()
    assert part.fingerprint() == data.subset([5, 0]).fingerprint()
    with pytest.raises(ValueError, match=r"every class in memory, got none of class 1 \(b\)"):
        part.check_every_class("training")


def test_the_moments_are_those_of_the_pixels():
    images = pictures(9)
    mean, std = ClassifiedImages(ArrayImages(images), [0] * 9, "ab").moments()
    np.testing.assert_allclose(mean, images.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, images.std((0, 2, 3)), rtol=1e-12)


@pytest.mark.parametrize("labels", [[0, 1], [0, 1, 3], [0, -1, 1]])
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(ValueError, match="Expected"):
        ClassifiedImages(ArrayImages(pictures(3)), labels, "abc", range(3))
