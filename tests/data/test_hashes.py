"""Samples are found again by their content, copies of other encodings too."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dense_imb.data import hashes
from dense_imb.data.hashes import Overlap, SampleHashes, hash_events, hash_samples, perceptual_hash
from dense_imb.data.labels.classified import ArrayImages, WholeImages
from dense_imb.hits import Events, Geometry
from tests.runs.tiny import clean_events

FRAME = Geometry(88, 128, 1000)


class Pictures:
    """Images of any shape by number."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def image(self, i):
        return self.images[i]


def photographs(n, seed=0, size=(96, 128)):
    """Smooth random colours with some detail, (3, H, W) uint8."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
        made.append(np.moveaxis(np.asarray(image), -1, 0))
    return made


def encoded_again(image, size=None, quality=75):
    file = io.BytesIO()
    picture = Image.fromarray(np.moveaxis(image, 0, -1))
    if size is not None:
        picture = picture.resize(size, Image.Resampling.BILINEAR)
    picture.save(file, "JPEG", quality=quality)
    return np.moveaxis(np.asarray(Image.open(file)), -1, 0)


def test_copies_of_images_are_identical_or_nearly_so():
    images = photographs(20)
    known = hash_samples(Pictures(images))
    copies = [
        images[3].copy(),
        encoded_again(images[4]),
        encoded_again(images[5], size=(64, 48), quality=60),
        images[6].mean(0, keepdims=True).astype(np.uint8),
        *photographs(3, seed=1),
    ]
    assert hash_samples(Pictures(copies)).overlap(known) == Overlap(7, 1, 3)
    assert known.overlap(hash_samples(Pictures(photographs(20, seed=2)))).total == 0


def test_images_with_little_structure_are_only_compared_as_they_are():
    blank = np.zeros((1, 32, 32), np.uint16)
    one_hit = blank.copy()
    one_hit[0, 4, 5] = 900
    other = blank.copy()
    other[0, 20, 9] = 900
    assert not perceptual_hash(one_hit).any()
    known = hash_samples(Pictures([one_hit]))
    assert hash_samples(Pictures([other, one_hit])).overlap(known) == Overlap(2, 1, 0)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int32, bool])
def test_volumes_and_other_types_have_hashes(dtype):
    volume = np.random.default_rng(0).integers(0, 2, (2, 5, 40, 44)).astype(dtype)
    known = hash_samples(Pictures([volume]))
    assert hash_samples(Pictures([volume])).overlap(known) == Overlap(1, 1, 0)
    assert hash_samples(Pictures([volume[:, ::-1]])).overlap(known).identical == 0


def test_events_are_found_in_another_order_of_hits_and_other_types():
    events = clean_events(50, frame=FRAME)
    order = np.random.default_rng(0).permutation(8)
    index = (np.arange(50)[:, None] * 8 + order).ravel()
    again = Events(
        FRAME, events.offset, events.x[index].astype(np.int64), events.y[index].astype(np.int32),
        events.t[index].astype(np.float32),
    )  # fmt: skip
    np.testing.assert_array_equal(hash_events(events), hash_events(again))
    assert len(np.unique(hash_events(events))) == 50
    moved = Events(FRAME, events.offset, events.x, events.y, events.t + 1)
    assert not np.isin(hash_events(moved), hash_events(events)).any()


def test_events_of_few_hits_are_not_compared():
    events = clean_events(6)
    few = events.select(np.arange(48) % 8 < 3)
    assert len(hash_events(few)) == 0
    assert hash_samples_of(few) == Overlap(6, 0, 0, True)


def hash_samples_of(events):
    known = SampleHashes(len(events), hash_events(events))
    return known.overlap(known)


def test_a_few_events_agree_by_chance_and_a_few_images_do_not():
    assert Overlap(200, 5, 0, True).is_chance
    assert not Overlap(200, 6, 0, True).is_chance
    assert not Overlap(200, 1, 0).is_chance
    assert Overlap(200, 0, 0).is_chance


def test_the_first_samples_and_the_counts():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32)).astype(np.uint8)
    images = WholeImages(ArrayImages(pixels), range(5))
    known = hash_samples(images)
    assert hash_samples(images, 2).overlap(known) == Overlap(2, 2, 0)
    assert Overlap(1200, 1100, 2).describe() == "1,100 identical, 2 nearly identical"
    joined = known.joined(known)
    assert (joined.n, len(joined.exact)) == (10, 10)


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(hashes, "MOST", 3)
    monkeypatch.setattr(hashes, "_BLOCK", 2)
    known = hash_samples(Pictures(photographs(5)))
    kept = known.sorted()
    assert (kept.n, len(kept.exact), len(kept.near)) == (5, 3, 3)
    assert known.overlap(kept).identical == 3
    near = SampleHashes(5, known.exact + np.uint64(1), known.near)
    assert near.overlap(known) == Overlap(5, 0, 5)
