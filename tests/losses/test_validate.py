"""Input that a loss could compute with, but that its user did not mean."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from dense_imb import losses
from dense_imb.losses.foreign.catalogue import CATALOGUE

COUNTS = {1: (90, 10), 4: (500, 120, 30, 7)}
CLASSIFIERS = [
    entry.name
    for entry in CATALOGUE
    if entry.feeds_on == "logits" and entry.name != "CompoundLoss"  # its parts have the option
]
RNG = torch.Generator().manual_seed(0)


def make(name, n_channels, **options):
    of = getattr(losses, name)
    needs_counts = "class_counts" in inspect.signature(of).parameters
    return of(**({"class_counts": COUNTS[n_channels]} if needs_counts else {}), **options)


@pytest.fixture(params=CLASSIFIERS)
def name(request):
    return request.param


def some_logits(n_channels):
    return 2 * torch.randn(2, n_channels, 6, 7, generator=RNG)


def some_label(n_channels):
    return torch.randint(0, max(n_channels, 2), (2, 6, 7), generator=RNG)


@pytest.mark.parametrize("n_channels", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_probabilities_are_refused(name, n_channels, dtype):
    logits, label = some_logits(n_channels), some_label(n_channels)
    told = {1: "sigmoid", 4: "softmax"}[n_channels]
    said = f"got .* which look like probabilities; drop the network's last {told},"
    loss = make(name, n_channels, validate=True)
    for probability in (
        logits.sigmoid(),
        logits.softmax(1) if n_channels > 1 else logits.sigmoid(),
    ):
        with pytest.raises(ValueError, match=said) as refusal:
            loss(probability.to(dtype), label)
        assert "\n" not in str(refusal.value)
        make(name, n_channels)(probability.to(dtype), label)  # nobody asked
    assert loss(logits.to(dtype), label) == make(name, n_channels)(logits.to(dtype), label)


def test_the_function_validates_too():
    probability = some_logits(4).softmax(1)
    for name in losses.__all__:
        known = inspect.signature(getattr(losses, name)).parameters
        if name[0].islower() and {"logits", "validate"} <= set(known):
            counts = {"class_counts": COUNTS[4]} if "class_counts" in known else {}
            with pytest.raises(ValueError, match="look like probabilities"):
                getattr(losses, name)(probability, some_label(4), validate=True, **counts)


@pytest.mark.parametrize(
    "logits",
    [
        torch.zeros(2, 1, 6, 7),
        torch.zeros(2, 2, 6, 7),
        torch.full((2, 2, 6, 7), 0.5),
        torch.zeros(0, 2, 6, 7),
        torch.tensor([[0.1, 0.7]]),
        0.05 + 0.01 * torch.rand(2, 1, 6, 7, generator=RNG),
        torch.rand(2, 1, 6, 7, generator=RNG).index_fill(0, torch.tensor([1]), torch.nan),
        torch.rand(2, 1, 6, 7, generator=RNG) - 0.2,
    ],
    ids=["zeros", "zeros of two", "constant", "empty", "two numbers", "fresh", "NaN", "below 0"],
)
def test_no_false_alarm(logits):
    target = torch.zeros(logits.shape[0], *logits.shape[2:], dtype=torch.long)
    losses.CrossEntropyLoss(validate=True)(logits, target)


def test_validation_costs_no_graph_break():
    torch.compiler.reset()
    loss = losses.HardMiningLoss(validate=True)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    logits, label = some_logits(4), some_label(4)
    torch.testing.assert_close(compiled(logits, label), loss(logits, label))


def test_values_are_not_looked_at_where_that_would_wait():
    logits, label = some_logits(4).to("meta"), some_label(4).to("meta")
    assert losses.CrossEntropyLoss(validate=True)(logits, label).shape == ()


@pytest.mark.parametrize("validate", [False, True])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda y: y + 3, r"Expected `target` between 0 and 3, got \d; pass `ignore_index=\d` or"),
        (
            lambda y: 255 * (y > 1),  # of four classes: not a mask of two
            r"got 255; pass `ignore_index=255` or `mask` for pixels that belong to no class, or "
            "take logits of more classes than 4",
        ),
        (lambda y: 255 * (y > 1).float(), "got 255; pass `ignore_index=255` or `mask` for"),
        (
            lambda y: 0 * y + 4,
            r"got 4; pass `ignore_index=4` .*, subtract 1 from labels 1 \.\. 4, ",
        ),
        (lambda y: y[:, None].expand(-1, 3, -1, -1), "its 3 channels are neither one nor the 4 cl"),
        (lambda y: y[..., None], r"its channel is the last dimension: target\.squeeze\(-1\)"),
        (
            lambda y: nn.functional.one_hot(y, 4),
            r"its channels are the last dimension: target\.movedim\(-1, 1\)",
        ),
    ],
)
def test_wrong_targets_are_refused_with_the_cure(name, change, told, validate):
    loss = make(name, 4, validate=validate)
    with pytest.raises(ValueError, match=told) as refusal:
        loss(some_logits(4), change(some_label(4)))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_binary_mask_of_0_and_255_is_told_how_to_map_it(name, dtype):
    mask = (255 * (some_label(1) > 0)).to(dtype)
    with pytest.raises(ValueError, match=r"map .*\((target|mask) > 0\)"):
        make(name, 1)(some_logits(1), mask)
