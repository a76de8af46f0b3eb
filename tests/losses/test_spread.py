"""The hardest share of the pixels, and the worst neighbour of each."""

from __future__ import annotations

import itertools
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dense_imb.losses import (
    Balance,
    BalancedRegressionLoss,
    CrossEntropyLoss,
    FocalLoss,
    Hardest,
    Linear,
    PixelLoss,
    WorstNeighbour,
)
from dense_imb.losses.foreign.parse import parse_loss

RNG = torch.Generator().manual_seed(0)
C = 4
LOGITS = 2 * torch.randn(3, C, 12, 11, generator=RNG, dtype=torch.float64)
LABEL = torch.randint(0, 2 * C, (3, 12, 11), generator=RNG)
LABEL = torch.where(LABEL < C, LABEL, 0)
MASK = torch.rand(3, 12, 11, generator=RNG) < 0.6
WEIGHT = 0.1 + torch.rand(3, 12, 11, generator=RNG, dtype=torch.float64)
BINARY = torch.randn(2, 1, 16, 16, generator=RNG, dtype=torch.float64)
FOREGROUND = (torch.rand(2, 1, 16, 16, generator=RNG) < 0.3).to(torch.float64)


def errors(logits: Tensor = LOGITS, label: Tensor = LABEL) -> Tensor:
    return F.cross_entropy(logits, label, reduction="none")


def gradient(call, logits: Tensor) -> Tensor:
    logits = logits.clone().requires_grad_()
    (slope,) = torch.autograd.grad(call(logits), logits)
    return slope


@pytest.mark.parametrize("share", [0.003, 0.1, 0.29, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hardest_is_the_mean_of_topk(share, dtype):
    logits = LOGITS.to(dtype)

    def topk(logits):
        flat = errors(logits).flatten()
        return flat.topk(max(1, int(share * flat.numel() + 1e-9))).values.mean()

    loss = CrossEntropyLoss(spread=Hardest(share))
    torch.testing.assert_close(loss(logits, LABEL), topk(logits))
    torch.testing.assert_close(gradient(lambda z: loss(z, LABEL), logits), gradient(topk, logits))


@pytest.mark.parametrize(("share", "n"), [(0.29, 29), (0.07, 7), (0.001, 1), (0.999, 99)])
def test_the_number_of_the_hardest_is_rounded_down_but_not_to_none(share, n):
    error = torch.arange(100.0)
    loss = BalancedRegressionLoss("l1", "hits", spread=Hardest(share))
    torch.testing.assert_close(loss(error, torch.zeros(100)), error[-n:].mean())


def test_hardest_counts_valid_pixels_only():
    value = CrossEntropyLoss(spread=Hardest(0.2))(LOGITS, LABEL, mask=MASK)
    valid = errors()[MASK]
    torch.testing.assert_close(value, valid.topk(int(0.2 * valid.numel())).values.mean())
    holes = torch.where(MASK, LABEL, 255)
    again = CrossEntropyLoss(spread=Hardest(0.2), ignore_index=255)(LOGITS, holes)
    assert again == value


@pytest.mark.parametrize("scope", ["batch", "image"])
def test_a_balance_takes_the_hardest_of_each_class(scope):
    rows = [LABEL] if scope == "batch" else LABEL.split(1)
    maps = [errors()] if scope == "batch" else errors().split(1)
    expected = []
    for error, label in zip(maps, rows, strict=True):
        own = [error[label == k] for k in range(C)]
        hardest = [e.topk(max(1, int(0.3 * len(e)))).values.mean() for e in own if len(e)]
        expected.append(torch.stack(hardest).mean())
    loss = CrossEntropyLoss(spread=Hardest(0.3), balance=Balance(scope=scope))
    torch.testing.assert_close(loss(LOGITS, LABEL), torch.stack(expected).mean())
    if scope == "batch":
        parts = loss(LOGITS, LABEL, return_parts=True)
        torch.testing.assert_close(parts.class_mean, torch.stack(hardest))
        assert torch.equal(parts.class_count, torch.bincount(LABEL.flatten(), minlength=C))


def test_weights_count_within_the_hardest():
    a = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    loss = CrossEntropyLoss(spread=Hardest(0.3), class_weight=a)
    value = loss(LOGITS, LABEL, pixel_weight=WEIGHT)
    error, weight = errors().flatten(), (a[LABEL] * WEIGHT).flatten()
    hardest = error.topk(int(0.3 * error.numel())).indices
    expected = (error * weight)[hardest].sum() / weight[hardest].sum()
    torch.testing.assert_close(value, expected)


def test_all_of_the_pixels_are_the_plain_loss():
    for balance in (None, Balance(scope="image")):
        for options in ({}, {"mask": MASK, "pixel_weight": WEIGHT}):
            plain = FocalLoss(balance=balance)(LOGITS, LABEL, **options)
            for spread in (Hardest(1.0), WorstNeighbour(1)):
                value = FocalLoss(balance=balance, spread=spread)(LOGITS, LABEL, **options)
                torch.testing.assert_close(value, plain)


def test_ties_with_the_hardest_count():
    logits = torch.zeros(1, 2, 4)
    value = CrossEntropyLoss(spread=Hardest(0.25))(logits, torch.tensor([[0, 1, 0, 1]]))
    torch.testing.assert_close(value, torch.tensor(math.log(2)))


def test_negative_errors_have_their_order():
    error = torch.linspace(-3, 2, 41)

    def signed(prediction: Tensor, target: Tensor) -> Tensor:
        return prediction

    for share in (0.05, 0.3, 0.5, 0.9):
        loss = BalancedRegressionLoss(signed, "hits", spread=Hardest(share))
        expected = error.topk(max(1, int(41 * share))).values.mean()
        torch.testing.assert_close(loss(error.flip(0), torch.zeros(41)), expected)


def test_infinite_and_nan_errors_come_out():
    def signed(prediction: Tensor, target: Tensor) -> Tensor:
        return prediction

    loss = BalancedRegressionLoss(signed, "hits", spread=Hardest(0.5))
    given = torch.tensor([1.0, 2.0, torch.inf, -torch.inf])
    assert loss(given, torch.zeros(4)) == torch.inf
    for nan in (torch.nan, -torch.tensor(torch.nan)):
        given[1] = nan
        assert loss(given, torch.zeros(4)).isnan()


def test_hardest_refuses_a_window_of_accumulation():
    loss = CrossEntropyLoss(spread=Hardest(0.3), balance=Balance())
    with pytest.raises(ValueError, match=r"Expected no `class_count` with Hardest\(share=0\.3\)"):
        loss(LOGITS, LABEL, class_count=[9, 9, 9, 9])


def worst_by_loops(error: Tensor, label: Tensor, valid: Tensor, size: int) -> Tensor:
    reach = range(-(size // 2), size // 2 + 1)
    result = error.clone()
    for place in itertools.product(*map(range, error.shape)):
        for step in itertools.product(reach, repeat=error.dim() - 1):
            other = (place[0], *(a + b for a, b in zip(place[1:], step, strict=True)))
            if any(a < 0 or a >= n for a, n in zip(other, error.shape, strict=True)):
                continue
            if valid[other] and label[other] == label[place]:
                result[place] = max(result[place], error[other])
    return result


@pytest.mark.parametrize("shape", [(2, 9), (2, 5, 6), (1, 3, 4, 5), (2, 5, 1, 4), (3,)])
@pytest.mark.parametrize("size", [3, 5])
def test_worst_neighbour_by_loops(shape, size):
    logits = torch.randn(shape[0], 3, *shape[1:], generator=RNG, dtype=torch.float64)
    label = torch.randint(0, 3, shape, generator=RNG)
    valid = torch.rand(shape, generator=RNG) < 0.7
    expected = worst_by_loops(errors(logits, label), label, valid, size)[valid].mean()
    value = CrossEntropyLoss(spread=WorstNeighbour(size))(logits, label, mask=valid)
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("size", [3, 5])
def test_worst_neighbour_is_scnp_of_binary_logits(size):
    """The published formula pools the logits: the lowest of objects, the highest around them."""

    def highest(x):
        return F.max_pool2d(x, size, 1, size // 2)

    def scnp(z):
        y, far = FOREGROUND, 9999.0
        lowest = -highest(-(z * y + far * (1 - y)))
        pooled = lowest * y + highest(z * (1 - y) - far * y) * (1 - y)
        return F.binary_cross_entropy_with_logits(pooled, y)

    loss = CrossEntropyLoss(spread=WorstNeighbour(size))
    torch.testing.assert_close(loss(BINARY, FOREGROUND), scnp(BINARY))
    torch.testing.assert_close(
        gradient(lambda z: loss(z, FOREGROUND), BINARY), gradient(scnp, BINARY)
    )


def test_worst_neighbour_leaves_ignored_pixels_out():
    spoilt = LOGITS.clone().masked_fill_(~MASK.unsqueeze(1), torch.nan)
    loss = CrossEntropyLoss(spread=WorstNeighbour(), balance=Balance())
    assert loss(spoilt, LABEL, mask=MASK) == loss(LOGITS, LABEL, mask=MASK)


def test_windows_run_in_three_dimensions_at_most():
    with pytest.raises(ValueError, match=r"at most three dimensions with `WorstNeighbour`, got 4"):
        CrossEntropyLoss(spread=WorstNeighbour())(
            torch.zeros(1, 2, 3, 3, 3, 3), torch.zeros(1, 3, 3, 3, 3, dtype=torch.long)
        )


@pytest.mark.parametrize("spread", [Hardest(0.3), WorstNeighbour()], ids=["hardest", "worst"])
@pytest.mark.parametrize("balance", [None, Balance(scope="image")], ids=["plain", "balanced"])
def test_transforms_of_torch_func_agree(spread, balance):
    loss = CrossEntropyLoss(spread=spread, balance=balance)
    expected = gradient(lambda z: loss(z, LABEL), LOGITS)
    torch.testing.assert_close(torch.func.grad(lambda z: loss(z, LABEL))(LOGITS), expected)
    several = torch.stack([LOGITS, LOGITS.flip(0)])
    values = torch.func.vmap(loss)(several, torch.stack([LABEL, LABEL]))
    each = torch.stack([loss(one, LABEL) for one in several])
    torch.testing.assert_close(values, each)


@pytest.mark.parametrize("spread", [Hardest(0.3), WorstNeighbour()], ids=["hardest", "worst"])
def test_compiled_with_masks_and_weights(spread):
    loss = CrossEntropyLoss(spread=spread, balance=Balance(), ignore_index=3)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    options = {"mask": MASK, "pixel_weight": WEIGHT}
    torch.testing.assert_close(
        gradient(lambda z: compiled(z, LABEL, **options), LOGITS),
        gradient(lambda z: loss(z, LABEL, **options), LOGITS),
    )


def test_spreads_are_values():
    for spread in (Hardest(0.1), WorstNeighbour(5)):
        assert pickle.loads(pickle.dumps(spread)) == spread
        assert repr(spread) in repr(CrossEntropyLoss(spread=spread))
    assert "spread=None" in repr(BalancedRegressionLoss())


def test_spreads_from_text():
    assert parse_loss("CrossEntropyLoss(spread={'hardest': 0.1})").spread == Hardest(0.1)
    both = parse_loss('FocalLoss(balance={}, spread={"worst_neighbour": 5}) + 0.5 * FocalLoss')
    assert next(iter(both.losses.values())).spread == WorstNeighbour(5)
    assert parse_loss("CrossEntropyLoss(spread=None)").spread is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{'hardes': 0.1}", "'hardes'. Did you mean 'hardest'"),
        ("'hardest'", r"got 'hardest'; write spread=\{\"hardest\": 0\.1\}"),
        ("{'hardest': 0.1, 'worst_neighbour': 3}", "one entry"),
        ("{'hardest': 10}", "Expected `share` of the pixels to be above 0 and at most 1"),
        ("{'hardest': '10 %'}", "Expected `share` to be a number, got str"),
        ("{'worst_neighbour': 4}", "Expected `size` to be odd"),
        ("{'worst_neighbour': 3.5}", "Expected `size` to be a whole number"),
    ],
)
def test_wrong_text_of_a_spread_is_refused(text, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        parse_loss(f"CrossEntropyLoss(spread={text})")
    assert "\n" not in str(refusal.value)


def test_an_object_that_is_no_spread_is_refused():
    for make in (CrossEntropyLoss, BalancedRegressionLoss):
        with pytest.raises(TypeError, match=r"`spread` to be Hardest\(share\) or WorstNeighbour"):
            make(spread={"hardest": 0.1})


def test_linear_is_the_absolute_error_of_probabilities():
    one_hot = F.one_hot(LABEL, C).movedim(-1, 1)
    expected = (LOGITS.softmax(1) - one_hot).abs().sum(1).mean() / 2
    torch.testing.assert_close(PixelLoss(Linear())(LOGITS, LABEL), expected)
    assert pickle.loads(pickle.dumps(Linear())) == Linear()


@pytest.mark.parametrize("weight", [None, (0, 1)])
def test_linear_on_the_skeleton_is_skeleton_recall(weight):
    """Kirchhoff et al. 2024: sum of the foreground's probability on the skeleton / its size."""
    skeleton = (torch.rand(FOREGROUND.shape, generator=RNG) < 0.2) * FOREGROUND
    loss = PixelLoss(Linear(), balance=Balance(weight=weight))

    def published(z):
        return 1 - (z.sigmoid() * skeleton).sum() / skeleton.sum()

    torch.testing.assert_close(loss(BINARY, FOREGROUND, mask=skeleton), published(BINARY))
    torch.testing.assert_close(
        gradient(lambda z: loss(z, FOREGROUND, mask=skeleton), BINARY),
        gradient(published, BINARY),
    )


def test_skeleton_recall_of_several_classes_is_the_mean_of_theirs():
    skeleton = (torch.rand(LABEL.shape, generator=RNG) < 0.3) & (LABEL > 0)
    probability = LOGITS.softmax(1)
    recall = [probability[:, k][skeleton & (k == LABEL)].mean() for k in range(1, C)]
    loss = PixelLoss(Linear(), balance=Balance())
    torch.testing.assert_close(loss(LOGITS, LABEL, mask=skeleton), 1 - torch.stack(recall).mean())
