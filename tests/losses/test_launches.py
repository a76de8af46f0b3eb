"""Forms of sums for GPUs, which take all classes at once; here on the CPU."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dense_imb.losses import Balance, CrossEntropyLoss, DiceLoss

from .cases import CASES, Case, labelled_logits
from .test_every_loss import SCOPES, evaluate, pixels_of, some_mask


@pytest.fixture
def as_on_gpu(monkeypatch):
    for room in ("cells", "groups", "hand_sums", "overlap_sums", "overlap_values"):
        name = f"dense_imb.losses.core.{room}"
        monkeypatch.setattr(f"{name}.values_are_readable", lambda value: False)
        if room in ("cells", "groups"):
            monkeypatch.setattr(f"{name}.launches_kernels", lambda value: True)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_all_classes_at_once_give_the_same(case: Case, scope, is_masked, request):
    inputs = case.inputs(3)
    options = {}
    if is_masked:
        weight = 0.5 + torch.rand(pixels_of(inputs), dtype=torch.float64)
        options = {"mask": some_mask(inputs), "pixel_weight": weight}
    expected, expected_gradient = evaluate(case.make(scope=scope), inputs, **options)
    request.getfixturevalue("as_on_gpu")
    value, gradient = evaluate(case.make(scope=scope), inputs, **options)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.usefixtures("as_on_gpu")
def test_large_maps_take_one_class_after_the_other(monkeypatch):
    loss, inputs = CrossEntropyLoss(balance=Balance()), labelled_logits(2)
    counts = []
    for most in (2**27, 0):
        monkeypatch.setattr("dense_imb.losses.core.groups._AT_ONCE", most)
        with _Operations() as operations:
            evaluate(loss, inputs)
        counts.append(operations.n)
    assert counts[0] < counts[1]


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.n += not function.is_view
        return function(*args, **(kwargs or {}))


@pytest.mark.usefixtures("as_on_gpu")
@pytest.mark.parametrize("make", [DiceLoss, lambda: CrossEntropyLoss(balance=Balance())])
def test_the_number_of_kernels_does_not_grow_with_the_classes(make):
    counts = []
    for n_channels in (3, 40):
        inputs = labelled_logits(2, n_channels=n_channels)
        with _Operations() as operations:
            evaluate(make(), inputs)
        counts.append(operations.n)
    assert counts[0] == counts[1]
