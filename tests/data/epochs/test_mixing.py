"""Mixing: shares of the right distributions, partners of the right classes, targets that add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dense_imb.data.epochs.mixing import Mixer, Mixing, mix, mix_labels, union
from dense_imb.hits import Events, Geometry
from tests.data.epochs.test_samplers import chi_square

SAMPLES = np.arange(20_000)
LABELS = np.repeat(np.arange(4), (500, 120, 30, 7))
COUNTS = np.bincount(LABELS)


def plan(kind: str, samples=SAMPLES, epoch: int = 0, *, seed: int = 3, **options):
    mixer = Mixer(Mixing(kind, **options), seed, LABELS)
    is_present = LABELS[samples % len(LABELS), None] == np.arange(4)
    return mixer.plan(samples, epoch, is_present)


def check_uniform(numbers) -> None:
    seen = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert seen.sum() == len(numbers)
    assert chi_square(seen, np.full(20, len(numbers) / 20)) > 0.01


@pytest.mark.parametrize(
    ("alpha", "cdf"),
    [
        (0.5, lambda s: 2 / np.pi * np.arcsin(np.sqrt(s))),
        (1.0, lambda s: s),
        (2.0, lambda s: 3 * s**2 - 2 * s**3),
    ],
)
def test_shares_of_mixup_are_of_a_symmetric_beta(alpha, cdf):
    check_uniform(cdf(plan("mixup", alpha=alpha).share))


@pytest.mark.parametrize("alpha", [1e-3, 0.2, 30.0])
def test_shares_of_any_alpha_have_the_variance_of_the_beta(alpha):
    share = plan("mixup", alpha=alpha).share
    assert ((share >= 0) & (share <= 1)).all()
    assert share.mean() == pytest.approx(0.5, abs=0.015)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0])
def test_the_class_balanced_part_is_of_a_beta_with_one(alpha):
    check_uniform((1 - plan("balanced-mixup", alpha=alpha).share) ** alpha)


def test_partners_of_balanced_mixup_are_balanced():
    partner = plan("balanced-mixup").partner
    assert chi_square(np.bincount(LABELS[partner]), np.full(4, len(SAMPLES) / 4)) > 0.01


def test_a_batch_of_two_processes_is_mixed_as_that_of_one():
    whole = plan("balanced-mixup", SAMPLES[:64])
    for process in (0, 1):
        part = plan("balanced-mixup", SAMPLES[:64][process::2])
        assert np.array_equal(part.share, whole.share[process::2])
        assert np.array_equal(part.partner, whole.partner[process::2])


@pytest.mark.parametrize("kind", ["mixup", "balanced-mixup", "unimix"])
def test_a_plan_is_a_pure_function(kind):
    first = plan(kind, SAMPLES[:64])
    assert np.array_equal(plan(kind, SAMPLES[:64]).share, first.share)
    for other in (plan(kind, SAMPLES[:64], 1), plan(kind, SAMPLES[:64], seed=4)):
        assert not np.array_equal(other.share, first.share)
        assert not np.array_equal(other.partner, first.partner)


def test_mixup_pairs_each_sample_with_another_one_of_the_batch():
    partner = plan("mixup", SAMPLES[:64]).partner
    assert np.array_equal(np.sort(partner), np.arange(64))
    assert (partner != np.arange(64)).all()


def test_unimix_favours_the_rarer_class():
    """Its shares are those of the formula, with numbers of its own; partners ~ n^tau."""
    samples = np.arange(len(LABELS))
    found = plan("unimix", samples, alpha=0.5, tau=-1.0)
    of_mixup = plan("mixup", samples, alpha=0.5).share
    n, other = COUNTS[LABELS], COUNTS[LABELS][found.partner]
    np.testing.assert_allclose(found.share, (of_mixup + other / (n + other)) % 1)
    # with tau = -1 every class is as likely a partner
    seen = np.bincount(LABELS[found.partner], minlength=4)
    assert chi_square(seen, np.full(4, len(samples) / 4)) > 0.01
    # nearly all of the share goes to the rarer of the two where b is near 0 or 1
    pure = plan("unimix", samples, alpha=1e-3)
    n, other = COUNTS[LABELS], COUNTS[LABELS][pure.partner]
    assert pure.share[(n == 500) & (other == 7)] == pytest.approx(7 / 507, abs=0.02)


def test_unimix_goes_by_the_rarest_class_of_a_crop():
    mixer = Mixer(Mixing("unimix", alpha=1e-4), 0, LABELS)
    is_present = np.array([[True, False, False, True], [True, True, False, False]])
    share = mixer.plan(np.array([0, 1]), 0, is_present)
    counts = np.array([7.0, 120.0])
    wanted = counts[share.partner] / (counts + counts[share.partner])
    assert share.share == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_mixed_labels_are_mixed_one_hot_labels(n_classes):
    rng = torch.Generator().manual_seed(0)
    first, second = (torch.randint(0, n_classes, (2, 5, 6), generator=rng) for _ in range(2))
    share = torch.tensor([0.25, 1.0])
    n_channels = 1 if n_classes == 2 else n_classes
    target, is_known = mix_labels(first, second, share, n_channels)
    one_hot = [torch.nn.functional.one_hot(x, n_classes).movedim(-1, 1) for x in (first, second)]
    wanted = mix(one_hot[0].float(), one_hot[1].float(), share)
    torch.testing.assert_close(target, wanted[:, -n_channels:])
    assert is_known.all()


def test_ignored_in_either_is_ignored():
    first, second = torch.tensor([[0, 255, 1, 2]]), torch.tensor([[2, 1, 255, 2]])
    target, is_known = mix_labels(first, second, [0.75], 3, ignore_index=255)
    assert is_known.tolist() == [[True, False, False, True]]
    assert target[0, :, 0].tolist() == [0.75, 0.0, 0.25]
    assert target[0, :, 3].tolist() == [0.0, 0.0, 1.0]


# hits


def event(n_hits: int, label: int) -> Events:
    number = np.arange(n_hits)
    x, y = number % 50, number // 50
    return Events(Geometry(50, 40, 9), np.array([0, n_hits]), x, y, number % 9 + 1,
                  np.full(n_hits, label, np.uint8), {"charge": number / 10})  # fmt: skip


def both(share: float, samples=(7,)):
    return union(event(2000, 1), event(1000, 2), [share], seed=1, epoch=2, samples=samples)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_union_keeps_each_hit_with_its_share(share):
    found = both(share)
    n_first, n_second = (int((found.label == k).sum()) for k in (1, 2))
    for n, wanted, size in ((n_first, share, 2000), (n_second, 1 - share, 1000)):
        assert abs(n - wanted * size) <= 3 * np.sqrt(size * wanted * (1 - wanted))
    assert len(found) == 1
    assert set(zip(found.x, found.y, found.t, found.hit["charge"], strict=True)) <= set(
        zip(event(2000, 1).x, event(2000, 1).y, event(2000, 1).t, np.arange(2000) / 10, strict=True)
    )


def test_the_two_events_of_a_union_are_thinned_apart():
    found = union(event(2000, 1), event(2000, 2), [0.5], seed=1, epoch=2, samples=[7])
    place = np.asarray(found.x) + 50 * np.asarray(found.y)
    n_both = len(np.intersect1d(place[found.label == 1], place[found.label == 2]))
    assert 430 < n_both < 570


def test_a_union_is_a_pure_function_of_its_sample():
    assert np.array_equal(both(0.5).x, both(0.5).x)
    assert not np.array_equal(both(0.5).x, both(0.5, (8,)).x)
    from dense_imb.hits.events import concatenate

    pair = [concatenate([event(2000, 1), event(30, 1)]), concatenate([event(1000, 2), event(9, 2)])]
    found = union(*pair, [0.9, 0.5], seed=1, epoch=2, samples=[3, 7])
    alone = union(event(30, 1), event(9, 2), [0.5], seed=1, epoch=2, samples=[7])
    assert np.array_equal(found[1].t, alone.t)
    assert np.array_equal(found[1].label, alone.label)


# bad input


@pytest.mark.parametrize("alpha", [0.0, -0.2, float("nan"), float("inf")])
def test_an_alpha_that_is_not_above_0_is_refused(alpha):
    with pytest.raises(ValueError, match="Expected `alpha` above 0 for mixing, got"):
        Mixing("mixup", alpha=alpha)


def test_a_class_with_no_image_is_refused():
    with pytest.raises(ValueError, match="image of each class"):
        Mixer(Mixing("balanced-mixup"), 0, [0, 2])


def test_classes_are_asked_for():
    with pytest.raises(ValueError, match='`content` for the mixing "unimix"'):
        Mixer(Mixing("unimix"))
    with pytest.raises(ValueError, match="`is_present`"):
        Mixer(Mixing("unimix"), 0, LABELS).plan(SAMPLES, 0)
    with pytest.raises(ValueError, match="mixing"):
        Mixing("mix")
