"""torch.func, the second backward pass, and gradients by targets and weights, for every loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from dense_imb import losses

from .cases import CASES
from .test_every_loss import evaluate, pixels_of

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")  # torch's own


@dataclass(frozen=True)
class Row:
    """A loss, and sound inputs of two images for it."""

    id: str
    make: Callable[[], Callable[..., Tensor]]
    inputs: dict[str, Tensor]
    refuses_vmap: str = ""  # sentence by which it refuses torch.func.vmap


def _frames(seed: int = 0) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    shape = (2, 1, 2, 3)
    return {n: torch.rand(shape, generator=rng).double() for n in ("prediction", "target")}


def _features() -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 2, 3, generator=rng, dtype=torch.float64)
    return {"features": features, "label": torch.randint(0, 2, (2, 2, 3), generator=rng)}


# losses of their own test files, which are no rows of `CASES`
_OTHERS = (
    Row("balanced mse", losses.BalancedMSELoss, _frames()),
    Row("balanced mse of samples", lambda: losses.BalancedMSELoss(n_samples=4), _frames()),
    Row(
        "range", lambda: losses.RangeLoss(intra_weight=1.0, inter_weight=1.0), _features(),
        r"Expected `label` whose values can be read, got one inside torch\.func\.vmap",
    ),
)  # fmt: skip
ROWS = (*(Row(case.id, case.make, case.inputs(2, size=2)) for case in CASES), *_OTHERS)
every_loss = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)


def call_of(row: Row) -> Callable[..., Tensor]:
    """Return the loss as a function of its tensors in their order."""
    names = list(row.inputs)

    def call(first: Tensor, second: Tensor, *rest: Tensor) -> Tensor:
        # a new Module each time: some draw another sample in each call
        return row.make()(first, second, **dict(zip(names[2:], rest, strict=True)))

    return call


def test_every_loss_is_here():
    modules = {type(row.make()).__name__ for row in ROWS}
    assert {case.name for case in CASES} | {"BalancedMSELoss", "RangeLoss"} == modules


@every_loss
def test_vmap_equals_the_loop(row):
    call, given = call_of(row), list(row.inputs.values())

    def of_one(*one: Tensor) -> Tensor:
        return call(*(tensor.unsqueeze(0) for tensor in one))

    if row.refuses_vmap:
        with pytest.raises(ValueError, match=row.refuses_vmap):
            torch.func.vmap(of_one)(*given)
        return
    gradients, values = torch.func.vmap(torch.func.grad_and_value(of_one))(*given)
    for number, images in enumerate(zip(*given, strict=True)):
        inputs = {n: one.unsqueeze(0) for n, one in zip(row.inputs, images, strict=True)}
        value, gradient = evaluate(row.make(), inputs)
        torch.testing.assert_close(values[number], value)
        torch.testing.assert_close(gradients[number], gradient[0])


@every_loss
def test_jacrev_and_the_second_backward_pass_agree(row):
    call, (first, *others) = call_of(row), row.inputs.values()
    _, gradient = evaluate(row.make(), row.inputs)

    def of_first(x: Tensor) -> Tensor:
        return call(x, *others)

    torch.testing.assert_close(torch.func.jacrev(of_first)(first), gradient)
    x = first.clone().requires_grad_()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x)
    (slope,) = torch.autograd.grad(of_first(x), x, create_graph=True)
    # a constant gradient has no second one
    curvature = torch.zeros_like(x)
    if slope.requires_grad:
        (found,) = torch.autograd.grad((slope * direction).sum(), x, allow_unused=True)
        curvature = curvature if found is None else found
    hessian = torch.func.jacrev(torch.func.jacrev(of_first))(first).reshape(x.numel(), -1)
    expected = (hessian @ direction.flatten()).view_as(x)
    torch.testing.assert_close(curvature, expected, rtol=1e-7, atol=1e-9)


def _with_weights(row: Row) -> dict[str, Tensor]:
    """Return the inputs, with pixel weights where the loss takes them."""
    if row.id == "range":
        return row.inputs
    rng = torch.Generator().manual_seed(4)
    weight = 0.5 + torch.rand(pixels_of(row.inputs), generator=rng, dtype=torch.float64)
    return {**row.inputs, "pixel_weight": weight}


@every_loss
def test_targets_and_weights_have_the_gradient_of_plain_operations(row):
    """Training on a CPU takes formulas by hand, torch.func plain operations."""
    inputs = _with_weights(row)
    weighted = Row(row.id, row.make, inputs)
    call, given = call_of(weighted), list(inputs.values())
    places = tuple(k for k, tensor in enumerate(given) if tensor.is_floating_point())

    def of_floats(*floats: Tensor) -> Tensor:
        changed = list(given)
        for k, tensor in zip(places, floats, strict=True):
            changed[k] = tensor
        return call(*changed)

    leaves = [given[k].clone().requires_grad_() for k in places]
    found = torch.autograd.grad(of_floats(*leaves), leaves, materialize_grads=True)
    numbers = tuple(range(len(places)))
    expected = torch.func.grad(of_floats, argnums=numbers)(*(given[k] for k in places))
    for one, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-7, atol=1e-9)


def test_weights_with_gradient_are_refused_over_processes(monkeypatch):
    """The sums of weights that processes exchange have no gradient."""
    monkeypatch.setattr("dense_imb.losses.core.balance.n_processes", lambda scope: 2)
    weight = torch.ones(2, 1, 2, 3, requires_grad=True)
    loss: Any = losses.ACBMSELoss(scope="global")
    with pytest.raises(ValueError, match=r"Expected `pixel_weight` without gradient .*detach"):
        loss(*(tensor.float() for tensor in _frames().values()), pixel_weight=weight)
