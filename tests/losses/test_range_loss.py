"""Range loss: its published value, its gradient, its bounds."""

from __future__ import annotations

import itertools

import pytest
import torch

from dense_imb.losses import RangeLoss, range_loss

from .cases import reference


def in_plain_loops(features, label, k, margin, intra_weight, inter_weight):
    groups = {}
    for feature, one in zip(features.tolist(), label.tolist(), strict=True):
        groups.setdefault(one, []).append(feature)

    def squared(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    intra = 0.0
    for points in groups.values():
        distances = sorted((squared(a, b) for a, b in itertools.combinations(points, 2)))[::-1]
        if len(distances) >= k:
            intra += k / sum(1 / d for d in distances[:k])
    centres = [[sum(x) / len(x) for x in zip(*points, strict=True)] for points in groups.values()]
    total = intra_weight * intra
    if len(centres) > 1:
        closest = min(squared(a, b) for a, b in itertools.combinations(centres, 2))
        total += inter_weight * max(margin - closest, 0)
    return total


def test_published_value():
    (case,) = reference("range_loss")
    value = range_loss(
        torch.tensor(case["inputs"]["features"]),
        torch.tensor(case["inputs"]["target"]),
        **case["args"],
    )
    assert value.item() == pytest.approx(case["value"], rel=1e-6)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_is_its_definition(k):
    rng = torch.Generator().manual_seed(k)
    features = torch.randn(30, 3, generator=rng, dtype=torch.float64)
    label = torch.randint(0, 4, (30,), generator=rng)
    arguments = {"k": k, "margin": 4.0, "intra_weight": 0.3, "inter_weight": 0.7}
    expected = in_plain_loops(features, label, **arguments)
    assert range_loss(features, label, **arguments).item() == pytest.approx(expected, rel=1e-10)


def test_gradients_are_right():
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(12, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    label = torch.randint(0, 3, (12,), generator=rng)

    def loss(x):
        return range_loss(x, label, margin=9.0, intra_weight=0.5, inter_weight=0.5)

    assert torch.autograd.gradcheck(loss, features)
    assert torch.autograd.gradgradcheck(loss, features)


def test_pixels_are_flattened():
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(2, 8, 4, 5, generator=rng)
    label = torch.randint(0, 3, (2, 4, 5), generator=rng)
    expected = range_loss(features.movedim(1, -1).reshape(-1, 8), label.flatten())
    torch.testing.assert_close(range_loss(features, label), expected)
    torch.testing.assert_close(range_loss(features, label.unsqueeze(1)), expected)
    torch.testing.assert_close(range_loss(features, label.unsqueeze(1).float()), expected)  # MONAI


def test_a_full_frame_stays_small():
    """11,264 pixels would be 63 million pairs; 100 drawn of each class are 4,950."""
    features = torch.randn(1, 4, 128, 88, requires_grad=True)
    label = torch.zeros(1, 128, 88, dtype=torch.int64)
    label[0, :10] = 1
    with torch.autograd.graph.saved_tensors_hooks(_refuse_above(4 * 4950 * 4), lambda t: t):
        RangeLoss(max_pixels=100)(features, label).backward()
    assert features.grad.isfinite().all()


def _refuse_above(n_numbers: int):
    def pack(tensor):
        assert tensor.numel() <= n_numbers or tensor.numel() == 4 * 128 * 88
        return tensor

    return pack


def test_the_draw_has_a_seed_and_a_memory():
    rng = torch.Generator().manual_seed(0)
    features, label = torch.randn(400, 3, generator=rng), torch.randint(0, 2, (400,), generator=rng)

    def run(seed):
        loss = RangeLoss(max_pixels=20, seed=seed)
        return [loss(features, label).item() for _ in range(3)]

    assert run(0) == run(0)
    assert run(0) != run(1)
    assert len(set(run(0))) == 3  # every call draws anew
    started, resumed = RangeLoss(max_pixels=20), RangeLoss(max_pixels=20)
    started(features, label)
    resumed.load_state_dict(started.state_dict())
    assert resumed(features, label).item() == run(0)[1]


def test_every_class_is_drawn_alike():
    """The rare class is not drowned: all of its few pixels are in."""
    features = torch.zeros(1000, 1)
    label = torch.zeros(1000, dtype=torch.int64)
    label[-3:] = 1
    features[-3:, 0] = torch.tensor([0.0, 1.0, 5.0])
    value = range_loss(features, label, k=1, intra_weight=1.0, inter_weight=0.0, max_pixels=10)
    assert value.item() == pytest.approx(25.0)


def test_nan_shows_unless_masked_or_ignored():
    features = torch.randn(20, 3)
    label = torch.arange(20) % 2
    features[4] = torch.nan
    assert range_loss(features, label).isnan()
    mask = torch.ones(20)
    mask[4] = 0
    traced = features.clone().requires_grad_()
    value = range_loss(traced, label, mask=mask)
    value.backward()
    assert value.isfinite()
    assert traced.grad[4].tolist() == [0, 0, 0]
    assert traced.grad.isfinite().all()
    label[4] = 255
    torch.testing.assert_close(range_loss(features, label, ignore_index=255), value.detach())


def test_few_pixels_are_a_connected_number():
    for label in (torch.tensor([0, 1]), torch.tensor([0, 0]), torch.tensor([3, 3])):
        features = torch.ones(2, 3, requires_grad=True)  # coinciding features, too
        value = range_loss(features, label)
        value.backward()
        assert value.isfinite()
        assert features.grad.isfinite().all()
    coinciding = torch.ones(4, 3, requires_grad=True)  # every distance of the pairs is 0
    range_loss(coinciding, torch.zeros(4, dtype=torch.int64)).backward()
    assert coinciding.grad.isfinite().all()
    nothing = torch.ones(0, 3, requires_grad=True)
    value = range_loss(nothing, torch.zeros(0, dtype=torch.int64))
    value.backward()
    assert value == 0


def test_half_precision_is_computed_in_single():
    features = (300 * torch.randn(20, 3)).half()
    label = torch.arange(20) % 2
    torch.testing.assert_close(range_loss(features, label), range_loss(features.float(), label))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda f, y: range_loss(f, y[:3]), r"`label` of the shape \(20,\), got \(3,\)"),
        (lambda f, y: range_loss(f, y + 0.5), "`label` to hold class indices, got 0.5"),
        (lambda f, y: range_loss(f, y + 0j), "`label` to be real, got torch.complex64"),
        (lambda f, y: range_loss(f.long(), y), "`features` to be floating point"),
        (lambda f, y: range_loss(f[0], y), r"`features` of the shape \(N, D\)"),
        (lambda f, y: range_loss(f, y, k=0), "`k` to be a number of at least 1, got 0"),
        (lambda f, y: RangeLoss(margin=-1.0), "`margin` to be a number of at least 0"),
        (lambda f, y: RangeLoss(max_pixels=1), "`max_pixels` to be a number of at least 2"),
    ],
)
def test_bad_input_is_one_sentence(call, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        call(torch.randn(20, 3), torch.arange(20) % 2)
