"""The promises of every public loss on a GPU: the numbers of the CPU, without waiting for them."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from dense_imb.losses import BalancedMSELoss

from .cases import CASES, Case, frames
from .test_every_loss import SCOPES, cast, evaluate, keep, on, pixels_of, some_mask

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(params=CASES, ids=lambda case: case.id)
def case(request) -> Case:
    return request.param


def on_gpu(inputs):
    return keep(inputs, lambda tensor: tensor.cuda())


def weighted(inputs, dtype=torch.float64):
    rng = torch.Generator().manual_seed(7)
    weight = 0.5 + torch.rand(pixels_of(inputs), generator=rng, dtype=torch.float64)
    return {"mask": some_mask(inputs), "pixel_weight": weight.to(dtype)}


@contextmanager
def no_waiting():
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("is_masked", [False, True])
def test_value_and_gradient_are_those_of_the_cpu(case, scope, is_masked):
    inputs = case.inputs(3)
    options = weighted(inputs) if is_masked else {}
    expected, expected_gradient = evaluate(case.make(scope=scope), inputs, **options)
    value, gradient = evaluate(case.make(scope=scope), on_gpu(inputs), **on_gpu(options))
    assert value.is_cuda
    torch.testing.assert_close(value.cpu(), expected)
    torch.testing.assert_close(gradient.cpu(), expected_gradient)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("is_masked", [False, True])
def test_the_host_never_waits(case, scope, is_masked):
    inputs = cast(case.inputs(3), torch.float32)
    options = on_gpu(weighted(inputs, torch.float32)) if is_masked else {}
    inputs = on_gpu(inputs)
    loss = case.make(scope=scope)
    evaluate(loss, inputs, **options)
    with no_waiting():
        evaluate(loss, inputs, **options)


def test_a_sample_of_pixels_is_drawn_without_waiting():
    inputs = on_gpu(cast(frames(4, size=16), torch.float32))
    loss = BalancedMSELoss(0.1, 64)
    evaluate(loss, inputs)
    with no_waiting():
        value, gradient = evaluate(loss, inputs)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_good_as_its_input(case, dtype):
    rounded = on_gpu(cast(case.inputs(3), dtype))
    with torch.autocast("cuda", dtype):
        value, gradient = evaluate(case.make(), rounded)
    expected, expected_gradient = evaluate(case.make(), cast(rounded, torch.float64))
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        gradient.double(),
        expected_gradient,
        rtol=torch.finfo(dtype).eps,
        atol=torch.finfo(dtype).tiny,
    )


def test_nan_under_a_mask_changes_nothing(case):
    inputs = case.inputs(3)
    first = next(iter(inputs))
    mask = some_mask(inputs)
    spoilt = dict(inputs)
    spoilt[first] = inputs[first].masked_fill(~on(mask, inputs[first]), torch.nan)
    expected, expected_gradient = evaluate(case.make(), inputs, mask=mask)
    value, gradient = evaluate(case.make(), on_gpu(spoilt), mask=mask.cuda())
    torch.testing.assert_close(value.cpu(), expected)
    torch.testing.assert_close(gradient.cpu(), expected_gradient)


@pytest.mark.parametrize("one", ["acb_mse", "cross entropy", "dice"])
def test_inductor_agrees(one):
    torch.compiler.reset()
    (case,) = [case for case in CASES if case.id == one]
    inputs = on_gpu(cast(case.inputs(3), torch.float32))
    compiled = torch.compile(case.make(), fullgraph=True)
    torch.testing.assert_close(evaluate(compiled, inputs), evaluate(case.make(), inputs))
