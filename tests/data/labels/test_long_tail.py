"""Balanced data sets made long-tailed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dense_imb.data.labels.long_tail import PROFILES, long_tail, long_tail_counts

REFERENCE = json.loads((Path(__file__).parents[2] / "reference/seed_values.json").read_text())


def test_the_counts_are_the_published_ones():
    stored = REFERENCE["long_tail"]
    assert list(long_tail_counts(10, 5000, 0.01)) == stored["exp"]
    assert list(long_tail_counts(10, 5000, 0.01, "step")) == stored["step"]
    assert sum(long_tail_counts(10, 5000, 100)) == 12406
    assert sum(long_tail_counts(100, 500, 100)) == 10847


@given(st.integers(2, 100), st.integers(1, 1000), st.sampled_from(PROFILES))
def test_a_ratio_and_its_inverse_mean_the_same(n_classes, ratio, profile):
    counts = long_tail_counts(n_classes, 5000, ratio, profile)
    assert counts == long_tail_counts(n_classes, 5000, 1 / ratio, profile)
    assert counts[0] == 5000
    assert counts[-1] == 5000 // ratio
    assert list(counts) == sorted(counts, reverse=True)


def test_whole_numbers_do_not_fall_short_of_themselves():
    # 49 * (1 / 49) is 0.9999999999999999 in floating point
    assert long_tail_counts(2, 49, 49) == long_tail_counts(2, 49, 1 / 49) == (49, 1)


def test_a_longer_tail_is_a_part_of_a_shorter_one():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(5), 40))
    kept = [set(long_tail(labels, long_tail_counts(5, 40, r)).tolist()) for r in (2, 10, 20)]
    assert kept[2] < kept[1] < kept[0]
    found = long_tail(labels, (40, 9, 3, 2, 1))
    assert np.bincount(labels[found]).tolist() == [40, 9, 3, 2, 1]
    assert (np.diff(found) > 0).all(), "in their old order"
    assert found.tolist() != long_tail(labels, (40, 9, 3, 2, 1), seed=1).tolist()


@pytest.mark.parametrize(
    ("ratio", "sentence"),
    [(0, "above 0"), (-3, "above 0"), (float("nan"), "above 0"), (6000, "up to 5000")],
)
def test_a_ratio_that_makes_no_sense_is_refused(ratio, sentence):
    with pytest.raises(ValueError, match=sentence):
        long_tail_counts(10, 5000, ratio)


def test_more_images_than_there_are_is_refused():
    with pytest.raises(ValueError, match="Expected 3 images of class 1, got 2"):
        long_tail([0, 0, 0, 1, 1], (3, 3))


def test_one_image_a_class_is_a_data_set():
    assert long_tail_counts(3, 1, 1.0) == (1, 1, 1)
