"""Sampling by class: frequencies of the reference, and a pure function of its arguments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from dense_imb.data.epochs.samplers import SAMPLINGS, ClassSampler, ClassSampling, sampling_weights
from dense_imb.data.images.labelled import open_labelled
from dense_imb.statistics import ClassStatistics
from tests.runs.pictures import write_folders

REFERENCE = json.loads((Path(__file__).parents[2] / "reference" / "seed_values.json").read_text())[
    "sampling"
]
COUNTS = (500, 120, 30, 7)
LABELS = np.repeat(np.arange(4), COUNTS)
KINDS = {"instance": "instance", "class": "class", "sqrt": "sqrt", "power": "cbrt"}


def chi_square(observed, expected) -> float:
    """The probability of counts that are as far from the expected ones, or further."""
    observed, expected = np.asarray(observed, float), np.asarray(expected, float)
    distance = ((observed - expected) ** 2 / expected).sum()
    degrees = torch.tensor((len(observed) - 1) / 2, dtype=torch.double)
    return float(torch.special.gammaincc(degrees, torch.tensor(distance / 2, dtype=torch.double)))


@pytest.mark.parametrize(("ours", "theirs"), KINDS.items())
def test_weights_are_those_of_the_reference(ours, theirs):
    found = sampling_weights(COUNTS, ours)
    np.testing.assert_allclose(found, REFERENCE["weights"][theirs], rtol=1e-12)


@pytest.mark.parametrize("epoch", range(5))
def test_progressive_weights_are_those_of_the_reference(epoch):
    found = sampling_weights(COUNTS, "progressive", progress=epoch / 4)
    np.testing.assert_allclose(found, REFERENCE["progressive"][f"{epoch}/5"], rtol=1e-12)
    sampling = ClassSampling.of(LABELS, "progressive", n_epochs=5)
    wanted = np.array(found)[LABELS]
    np.testing.assert_allclose(sampling.probabilities(epoch), wanted / wanted.sum(), rtol=1e-12)


@pytest.mark.parametrize(("kind", "exponent"), [("mean", 0), ("reverse", -1)])
def test_the_shares_of_classes_are_powers_of_their_counts(kind, exponent):
    share = np.array(sampling_weights(COUNTS, kind)) * COUNTS
    wanted = np.array(COUNTS, float) ** exponent
    np.testing.assert_allclose(share / share.sum(), wanted / wanted.sum())


@pytest.mark.parametrize("kind", [kind for kind in SAMPLINGS if kind != "instance"])
@pytest.mark.parametrize("epoch", [0, 2])
def test_classes_come_as_often_as_their_weights_say(kind, epoch):
    sampling = ClassSampling.of(LABELS, kind, n_epochs=5)
    n = 20_000
    drawn = LABELS[sampling.order(3, epoch, n) % len(LABELS)]
    weight = np.array(sampling_weights(COUNTS, kind, progress=epoch / 4)) * COUNTS
    assert chi_square(np.bincount(drawn), n * weight / weight.sum()) > 0.01


def test_images_of_a_class_come_alike():
    sampling = ClassSampling.of(LABELS, "class")
    drawn = sampling.order(5, 0, 40_000) % len(LABELS)
    seen = np.bincount(drawn[LABELS[drawn] == 2] - 620, minlength=30)
    assert chi_square(seen, np.full(30, seen.sum() / 30)) > 0.01


def test_instance_shows_each_sample_once():
    order = ClassSampling.of(LABELS, "instance").order(1, 2, 3 * len(LABELS))
    assert np.array_equal(np.sort(order), np.arange(3 * len(LABELS)))
    assert not np.array_equal(order, ClassSampling.of(LABELS, "instance").order(1, 3))


def test_an_image_of_several_classes_is_drawn_for_each_of_them():
    content = np.array([[90, 10, 0], [100, 0, 0], [80, 15, 5], [70, 30, 0]])
    sampling = ClassSampling.of(content, "class")
    by_class = [1 / 4 + 1 / 3, 1 / 4, 1 / 4 + 1 / 3 + 1, 1 / 4 + 1 / 3]
    np.testing.assert_allclose(sampling.probabilities(), np.array(by_class) / 3)
    seen = np.bincount(sampling.order(0, 0, 20_000) % 4)
    assert chi_square(seen, 20_000 * sampling.probabilities()) > 0.01


def test_an_image_without_a_class_is_never_drawn_by_class():
    content = np.array([[1, 0], [0, 1], [0, 0]])
    assert ClassSampling.of(content, "class").probabilities().tolist() == [0.5, 0.5, 0.0]
    assert 2 not in ClassSampling.of(content, "class").order(0, 0, 5000) % 3
    assert 2 in ClassSampling.of(content, "instance").order(0, 0)


def test_an_image_that_comes_again_is_another_sample():
    order = ClassSampling.of([0] * 50 + [1], "class").order(0, 0, 200)
    assert len(set(order.tolist())) == 200
    assert 80 < (order % 51 == 50).sum() < 120


def test_an_order_is_a_pure_function_of_seed_epoch_and_place():
    sampling = ClassSampling.of(LABELS, "class")
    first = sampling.order(3, 1, 100)
    assert np.array_equal(sampling.order(3, 1, 1000)[:100], first)
    assert np.array_equal(ClassSampling.of(LABELS, "class").order(3, 1, 100), first)
    for seed, epoch in ((3, 2), (4, 1)):
        assert not np.array_equal(sampling.order(seed, epoch, 100), first)


def test_statistics_and_tallies_feed_samplers(tmp_path):
    data = open_labelled(*write_folders(tmp_path, n_classes=3))
    tally = data.tally(show_progress=False)
    by_tally = ClassSampling.of(tally, "sqrt")
    assert by_tally.images_of_class.tolist() == [8, 8, 8]
    assert by_tally.n_images == len(data)
    counted = ClassStatistics.from_targets([torch.tensor([[0, 0], [1, 0], [0, 0]])])
    assert sampling_weights(counted, "class") == sampling_weights((3, 1), "class")


# a sampler of loaders


def sampled(world: int, n: int = 101, **options):
    sampling = ClassSampling.of(LABELS, "class")
    return [
        ClassSampler(sampling, seed=2, n_samples=n, rank=rank, world_size=world, **options)
        for rank in range(world)
    ]


def test_processes_share_one_order_without_repeats():
    (alone,) = sampled(1)
    whole = list(alone)
    for world in (2, 3):
        parts = [list(sampler) for sampler in sampled(world)]
        assert {len(part) for part in parts} == {101 // world}
        together = [image for turn in zip(*parts, strict=True) for image in turn]
        assert together == whole[: len(together)]
        assert len(sampled(world)[0]) == 101 // world


def test_epochs_differ_and_come_again():
    (sampler,) = sampled(1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)
    assert first != second
    assert list(sampler) == first


@pytest.mark.parametrize("world", [1, 2])
def test_a_sampler_goes_on_where_it_stood_with_any_number_of_processes(world):
    whole = list(sampled(1)[0])
    before = sampled(2)
    for sampler in before:
        iterator = iter(sampler)
        for _ in range(20):
            next(iterator)
    state = before[0].state_dict()
    assert state["place"] == 40
    after = sampled(world)
    for sampler in after:
        sampler.load_state_dict(state)
        sampler.set_epoch(0)
    assert len(after[0]) == 61 // world
    parts = [list(sampler) for sampler in after]
    together = [image for turn in zip(*parts, strict=True) for image in turn]
    assert together == whole[40 : 40 + len(together)]
    assert len(together) >= 60
    following = sampled(world)[0]
    following.set_epoch(1)
    assert list(after[0]) == list(following)  # the next pass is the next epoch, whole again


def test_a_loader_that_runs_ahead_is_told_what_was_seen():
    (sampler,) = sampled(1)
    loader = iter(DataLoader(range(657), batch_size=10, sampler=sampler))
    whole = [next(loader) for _ in range(4)]
    state = sampler.state_dict(n_seen=20)
    (again,) = sampled(1)
    again.load_state_dict(state)
    assert next(iter(DataLoader(range(657), 10, sampler=again))).tolist() == whole[2].tolist()


def test_a_state_of_another_sampler_is_refused():
    (sampler,) = sampled(1)
    other = ClassSampler(ClassSampling.of(LABELS, "sqrt"), seed=2, n_samples=101)
    with pytest.raises(ValueError, match="Expected the state of a sampler of sqrt, .* class, "):
        other.load_state_dict(sampler.state_dict())


# bad input


@pytest.mark.parametrize(
    ("content", "options", "told"),
    [
        ([0, 0, 2], {}, r'image of each class for the sampling "class", got none of class 1; '),
        ([0] * 3, {"n_classes": 9}, "none of class 1, 2, 3, 4, 5 and 3 more;"),
        ([[1, 0], [1, 0]], {}, "none of class 1"),
        ([0, 0.5, 1], {}, "Expected labels as whole numbers from 0, got 0.5"),
        ([0, float("nan")], {}, "whole numbers from 0, got nan"),
        ([0, -1], {}, "whole numbers from 0, got -1"),
        ([[1.5, 0.0]], {}, "Expected pixels of each class as whole numbers from 0, got 1.5"),
        ([0, 3], {"n_classes": 2}, "labels from 0 to 1, got 3"),
        ([], {}, r"shape \(0,\)"),
        (np.zeros((2, 2, 2), int), {}, r"shape \(2, 2, 2\)"),
        ([0, 1], {"kind": "clas"}, "sampling"),
        ([0, 1], {"kind": "power", "power": -1.0}, "`power` of at least 0, got -1"),
        ([0, 1], {"n_epochs": 0}, "epochs"),
    ],
)  # fmt: skip
def test_bad_content_is_refused_in_one_sentence(content, options, told):
    with pytest.raises(ValueError, match=told):
        ClassSampling.of(content, **{"kind": "class", **options})


def test_labels_that_are_words_are_refused():
    with pytest.raises(TypeError, match="Expected whole numbers as labels, got <U3"):
        ClassSampling.of(["cat", "dog"])


def test_a_rank_outside_the_processes_is_refused():
    with pytest.raises(ValueError, match="`rank` from 0 to 1"):
        ClassSampler(ClassSampling.of(LABELS), rank=2, world_size=2)


def test_a_loader_sees_another_epoch_each_time():
    """Without `set_epoch`, which many forget, and in the order that it would give."""
    sampling = ClassSampling.of([0] * 90 + [1] * 9 + [2], "progressive", n_epochs=4)
    loader = DataLoader(range(100), 10, sampler=ClassSampler(sampling, seed=1))
    seen = [torch.cat(list(loader)).tolist() for _ in range(3)]
    told = ClassSampler(sampling, seed=1)
    for epoch, images in enumerate(seen):
        told.set_epoch(epoch)
        assert list(told) == images
    assert seen[0] != seen[1]
    # whoever says it is the same epoch sees it again
    told.set_epoch(2)
    assert list(told) == seen[2]
