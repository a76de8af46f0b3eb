"""Counter-based random numbers: the published ones, and the same whoever asks."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dense_imb.base.random import Draws, philox

# Random123's kat_vectors: counter, key, words
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def numbers(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_gives_the_published_words(counter, key, words):
    low, high = numbers(key)
    # far more than one chunk, the known counter at the end
    many = np.zeros((4, 40_000), np.uint32)  # of more than one chunk
    many[:, -1] = numbers(counter)
    assert philox(many, low | high << 32)[:, -1].tolist() == numbers(words)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=12),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.data(),
)
def test_an_event_draws_the_same_in_every_batch(event, seed, epoch, data):
    count = np.array([data.draw(st.integers(0, 9)) for _ in event])
    together = Draws(seed, epoch, event).normal(3, count)
    parts = np.split(together, np.cumsum(count)[:-1], axis=1)
    for i in data.draw(st.permutations(range(len(event)))):
        alone = Draws(seed, epoch, [event[i]]).normal(3, count[i])
        np.testing.assert_array_equal(alone, parts[i])


def test_every_part_of_the_key_matters():
    reference = Draws(1, 2, [3]).words(4, 2)
    for other in (
        Draws(2, 2, [3]).words(4, 2),
        Draws(1 + (1 << 32), 2, [3]).words(4, 2),
        Draws(1, 3, [3]).words(4, 2),
        Draws(1, 2, [4]).words(4, 2),
        Draws(1, 2, [3]).words(5, 2),
    ):
        assert not (reference == other).any()
    assert len(np.unique(reference)) == 8


def test_numbers_are_distributed_as_they_say():
    draws = Draws(11, 0, np.arange(500))
    uniform, normal = draws.uniform(1, 100), draws.normal(1, 100)
    assert 0 < uniform.min() < 1e-4
    assert 1 - 1e-4 < uniform.max() < 1
    # 200,000 numbers: a standard error of the mean is 0.0022 for normal ones
    assert uniform.mean() == pytest.approx(0.5, abs=0.003)
    assert uniform.var() == pytest.approx(1 / 12, rel=0.01)
    assert normal.mean() == pytest.approx(0, abs=0.01)
    assert normal.std() == pytest.approx(1, abs=0.01)
    assert (normal**4).mean() == pytest.approx(3, abs=0.1)
    assert np.abs(np.corrcoef(normal) - np.eye(4)).max() < 0.02  # words of a block
    by_event = normal[0].reshape(500, 100)
    assert abs((by_event[1:] * by_event[:-1]).mean()) < 0.02
    assert abs((by_event[:, 1:] * by_event[:, :-1]).mean()) < 0.02
    counts = np.bincount(draws.integers(-1, 3, 2, 100).ravel() + 1)
    np.testing.assert_allclose(counts, 40_000, rtol=0.03)


def test_every_subset_is_chosen_as_often():
    n_events = 6000
    chosen = Draws(5, 0, np.arange(n_events)).choose(2, 4, 1).reshape(n_events, 4)
    assert (chosen.sum(1) == 2).all()
    for pair in combinations(range(4), 2):
        # 1,000 expected, standard deviation 29
        assert abs(chosen[:, pair].all(1).sum() - 1000) < 120


def test_choose_takes_what_there_is_and_knows_no_neighbours():
    n, size = np.array([3, 5, 0, 2, 7]), np.array([10, 4, 6, 0, 7])
    together = Draws(5, 1, np.arange(5)).choose(n, size, 1)
    parts = np.split(together, np.cumsum(size)[:-1])
    assert [int(part.sum()) for part in parts] == [3, 4, 0, 0, 7]
    for i, part in enumerate(parts):
        alone = Draws(5, 1, [i]).choose(n[i], size[i], 1)
        np.testing.assert_array_equal(alone, part)


def test_permutations():
    order = Draws(5, 0, np.arange(3000)).permutation(3, 1)
    assert (np.sort(order, 1) == np.arange(3)).all()
    counts = np.bincount(order @ [9, 3, 1])
    assert (np.abs(counts[counts > 0] - 500) < 100).all()
    assert (counts > 0).sum() == 6
    np.testing.assert_array_equal(Draws(5, 0, [17]).permutation(3, 1)[0], order[17])


@pytest.mark.parametrize(
    ("seed", "epoch", "event", "sentence"),
    [
        (-1, 0, [0], r"Expected `seed` from 0 to 2\^64 - 1, got -1"),
        (1 << 64, 0, [0], "`seed`"),
        (0, 1 << 32, [0], "`epoch`"),
        (0, 0, [0, -4], r"`event` from 0 to 2\^32 - 1, got -4"),
        (0, 0, [0, 1 << 32], "`event`"),
        (0, 0, [0.5], "whole numbers"),
        (0, 0, [[1]], "sequence"),
    ],
)
def test_what_has_no_counter_is_refused(seed, epoch, event, sentence):
    with pytest.raises(ValueError, match=sentence):
        Draws(seed, epoch, event)
