"""Balanced MSE: equal to its published formula on all pixels, and on a fair sample of many."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from dense_imb.losses import BalancedMSELoss, balanced_mse_loss

from .cases import frames


def published(prediction, target, sigma):
    """Cross-entropy of which target each prediction means (Ren et al. 2022), in one number each."""
    logits = -((prediction.reshape(-1, 1) - target.reshape(1, -1)) ** 2) / (2 * sigma**2)
    return 2 * sigma**2 * F.cross_entropy(logits, torch.arange(len(logits)))


def evaluate(loss, prediction, target, **options):
    prediction = prediction.detach().clone().requires_grad_()
    value = loss(prediction, target, **options)
    (gradient,) = torch.autograd.grad(value, prediction)
    return value.detach(), gradient


def many(dtype=torch.float64):
    rng = torch.Generator().manual_seed(3)
    target = torch.rand(2, 1, 40, 50, generator=rng, dtype=dtype) ** 4
    return target + 0.1 * torch.randn(target.shape, generator=rng, dtype=dtype), target


def some_mask(like):
    return torch.rand(like.shape, generator=torch.Generator().manual_seed(5)) < 0.6


@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_all_pixels_as_published(sigma):
    prediction, target = frames(3).values()
    prediction.view(-1)[0] = 40.0  # far from every target
    found = evaluate(BalancedMSELoss(sigma), prediction, target)
    expected = evaluate(lambda p, t: published(p, t, sigma), prediction, target)
    torch.testing.assert_close(found, expected)
    more_than_a_block = evaluate(BalancedMSELoss(sigma, 4000), *many())
    expected = evaluate(lambda p, t: published(p, t, sigma), *many())
    torch.testing.assert_close(more_than_a_block, expected)


@pytest.mark.parametrize(
    ("prediction", "target"),
    [((3000.0, 0.2), (0.25, 1.0)), ((2000.5, 2001.5, 2003.0), (2001.0, 2001.25, 2003.5))],
    ids=["a distant prediction", "values far from 0"],
)
def test_single_precision_keeps_its_digits(prediction, target):
    prediction, target = torch.tensor(prediction), torch.tensor(target)
    found = evaluate(balanced_mse_loss, prediction, target)
    expected = evaluate(balanced_mse_loss, prediction.double(), target.double())
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1].double(), expected[1], rtol=1e-6, atol=1e-7)


def test_channels_are_more_values():
    prediction, target = torch.rand(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert balanced_mse_loss(prediction, target) == balanced_mse_loss(
        prediction.flatten(), target.flatten()
    )


@pytest.mark.parametrize("n_samples", [10, 1024])
def test_gradients_are_right(n_samples):
    prediction, target = frames(1, size=3).values()
    options = {"mask": some_mask(target), "pixel_weight": 0.5 + torch.rand(target.shape)}
    for chosen in ({}, options):

        def call(p, chosen=chosen):
            return balanced_mse_loss(p, target, noise_sigma=0.7, n_samples=n_samples, **chosen)

        assert torch.autograd.gradcheck(call, prediction.requires_grad_())
        assert torch.autograd.gradgradcheck(call, prediction)


def test_a_mask_leaves_the_formula_of_the_others():
    prediction, target = frames(3).values()
    mask = some_mask(target)
    expected = published(prediction[mask], target[mask], 1.0)
    spoilt = prediction.masked_fill(~mask, torch.nan), target.masked_fill(~mask, torch.nan)
    for options in ({"mask": mask}, {"mask": mask.float()}, {"pixel_weight": mask.double()}):
        value, gradient = evaluate(balanced_mse_loss, *spoilt, **options)
        torch.testing.assert_close(value, expected)
        assert (gradient[~mask] == 0).all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("n_valid", [0, 7, 300, 301, 3000, 3333])
def test_a_sample_holds_valid_pixels_only_and_each_once(n_valid):
    prediction, target = many()
    order = torch.randperm(target.numel(), generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(target.numel(), dtype=torch.bool)
    mask[order[:n_valid]] = True
    mask = mask.view(target.shape)
    spoilt = prediction.masked_fill(~mask, torch.nan)
    value, gradient = evaluate(BalancedMSELoss(0.2, 300), spoilt, target, mask=mask)
    assert value.isfinite()
    assert (gradient != 0).sum() == min(n_valid, 300)
    assert (gradient[~mask] == 0).all()
    if n_valid <= 300:
        expected = published(prediction[mask], target[mask], 0.2) if n_valid else 0.0
        assert value.item() == pytest.approx(float(expected))


@pytest.mark.parametrize("is_masked", [False, True])
def test_every_pixel_is_equally_likely(is_masked):
    prediction, target = (x[:, :, :10] for x in many())
    mask = some_mask(target) if is_masked else torch.ones_like(target, dtype=torch.bool)
    n_samples = 430 if is_masked else 125  # of 1.4 pixels each, or of 8
    loss = BalancedMSELoss(0.2, n_samples)
    n_drawn = torch.zeros_like(target)
    n_calls = 400
    for _ in range(n_calls):
        n_drawn += evaluate(loss, prediction, target, mask=mask)[1] != 0
    share = n_drawn[mask] / n_calls
    expected = n_samples / int(mask.sum())
    spread = (expected * (1 - expected) / n_calls) ** 0.5
    assert share.mean().item() == pytest.approx(expected)
    assert (share - expected).abs().max() < 5 * spread
    assert share.std().item() == pytest.approx(spread, rel=0.1)


def test_the_loss_of_samples_is_near_that_of_all_pixels():
    prediction, target = many()
    full = published(prediction, target, 0.2)
    loss = BalancedMSELoss(0.2, 500)
    constant = 2 * 0.2**2 * torch.tensor(4000 / 500).log()  # a sum over more targets
    values = torch.stack([loss(prediction, target) for _ in range(50)]) + constant
    assert values.mean().item() == pytest.approx(full.item(), abs=3 * values.std().item() / 50**0.5)


def test_samples_follow_from_the_seed_and_the_number_of_calls():
    inputs = many()
    loss, twin, other = (BalancedMSELoss(0.2, 100, seed=seed) for seed in (1, 1, 2))
    values = [loss(*inputs).item() for _ in range(5)]
    assert [twin(*inputs).item() for _ in range(3)] == values[:3]
    assert len({*values, *(other(*inputs).item() for _ in range(5))}) == 10
    resumed = BalancedMSELoss(0.2, 100, seed=1)
    resumed.load_state_dict(twin.state_dict())
    assert [resumed(*inputs).item() for _ in range(2)] == values[3:]
    again = balanced_mse_loss(*inputs, noise_sigma=0.2, n_samples=100, seed=1, call=4)
    assert again.item() == values[4]
    assert BalancedMSELoss(seed=-1, n_samples=2)(*inputs).isfinite()


def test_weight_two_is_the_pixel_twice():
    prediction, target = frames(2).values()
    weight = torch.randint(0, 3, target.shape, generator=torch.Generator().manual_seed(2)).double()
    repeat = weight.flatten().long()
    value, gradient = evaluate(balanced_mse_loss, prediction, target, pixel_weight=weight)
    expected, _ = evaluate(
        balanced_mse_loss,
        prediction.flatten().repeat_interleave(repeat),
        target.flatten().repeat_interleave(repeat),
    )
    torch.testing.assert_close(value, expected)
    assert (gradient[weight == 0] == 0).all()


def test_nan_at_a_valid_pixel_comes_out():
    for broken in (0, 1):
        inputs = list(frames(3).values())
        inputs[broken].view(-1)[7] = torch.nan
        value, gradient = evaluate(balanced_mse_loss, *inputs)
        assert value.isnan()
        assert gradient.isnan().any()


def test_nothing_to_see_is_a_connected_zero():
    prediction, target = frames(2).values()
    mask = torch.zeros(target.shape, dtype=torch.bool)
    value, gradient = evaluate(
        balanced_mse_loss, torch.full_like(prediction, torch.nan), target, mask=mask
    )
    assert value == 0
    assert (gradient == 0).all()
    value, gradient = evaluate(balanced_mse_loss, prediction[:0], target[:0])
    assert value == 0
    assert gradient.numel() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_good_as_its_input(dtype):
    prediction, target = (x.to(dtype) for x in many())
    value, gradient = evaluate(BalancedMSELoss(0.2, 300), prediction, target)
    expected, expected_gradient = evaluate(
        BalancedMSELoss(0.2, 300), prediction.double(), target.double()
    )
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    resolution = torch.finfo(dtype).eps
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=resolution, atol=1e-7)


def test_autocast_layout_and_integer_targets_change_nothing():
    prediction, target = many(torch.float32)
    loss = BalancedMSELoss(0.2, 300)
    expected = evaluate(copy.deepcopy(loss), prediction, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(evaluate(copy.deepcopy(loss), prediction, target), expected)
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in (prediction, target)]
    torch.testing.assert_close(evaluate(copy.deepcopy(loss), *strided), expected)
    pickled = pickle.loads(pickle.dumps(loss))
    torch.testing.assert_close(evaluate(pickled, prediction, target), expected)
    whole = (3 * target).round()
    assert balanced_mse_loss(prediction, whole.to(torch.uint8)) == balanced_mse_loss(
        prediction, whole
    )
    assert repr(loss) == "BalancedMSELoss(noise_sigma=0.2, n_samples=300, seed=0)"


@pytest.mark.parametrize("is_masked", [False, True])
def test_compiles_as_one_graph_and_shapes_never_depend_on_the_data(is_masked):
    torch.compiler.reset()
    prediction, target = many(torch.float32)
    options = {"mask": some_mask(target)} if is_masked else {}
    loss = BalancedMSELoss(0.2, 300)
    compiled = torch.compile(copy.deepcopy(loss), fullgraph=True, backend="aot_eager")
    for _ in range(2):
        torch.testing.assert_close(
            evaluate(compiled, prediction, target, **options),
            evaluate(loss, prediction, target, **options),
        )
    meta = {name: value.to("meta") for name, value in options.items()}
    assert balanced_mse_loss(prediction.to("meta"), target.to("meta"), **meta).shape == ()


def test_memory_does_not_grow_with_the_image_or_the_square_of_the_sample():
    from torch.profiler import ProfilerActivity, profile

    prediction, target = torch.rand(2, 1, 1, 300, 400, generator=torch.Generator().manual_seed(0))
    prediction.requires_grad_()
    loss = BalancedMSELoss(0.2, 4096)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        value = loss(prediction, target)
    assert value.isfinite()
    events = profiler.profiler.kineto_results.events()
    largest = max(event.nbytes() for event in events if event.name() == "[memory]")
    assert largest <= 4 * 2**18  # of 4 * 4096^2


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: BalancedMSELoss(0.0), ValueError, "Expected `noise_sigma` above 0, got 0"),
        (lambda: BalancedMSELoss(-1.0), ValueError, "Expected `noise_sigma` to be a number of at"),
        (lambda: BalancedMSELoss(n_samples=1), ValueError, "`n_samples` .* at least 2, got 1"),
        (lambda: BalancedMSELoss(n_samples=1e3), TypeError, "`n_samples` to be a whole number"),
        (lambda: BalancedMSELoss(reduction="sum"), ValueError, "Expected `reduction` to be one of"),
        (lambda: balanced_mse_loss(torch.ones(3), torch.ones(2)), ValueError, "`target` in the sh"),
        (lambda: balanced_mse_loss(torch.ones(3), [1]), TypeError, "`target` to be a torch.Tensor"),
        (lambda: balanced_mse_loss(torch.ones(3).long(), torch.ones(3)), TypeError, "floating poi"),
        (
            lambda: balanced_mse_loss(torch.ones(3), torch.ones(3).cfloat()),
            TypeError,
            "Expected `target` to be real",
        ),
        (
            lambda: balanced_mse_loss(torch.ones(3), torch.ones(3), mask=torch.ones(2)),
            ValueError,
            "Expected `mask` in the shape of `prediction`",
        ),
        (
            lambda: balanced_mse_loss(torch.ones(3), torch.ones(3), pixel_weight=-torch.ones(3)),
            ValueError,
            "Expected `pixel_weight` of at least 0, got -1",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()
