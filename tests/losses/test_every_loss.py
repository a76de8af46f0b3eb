"""The promises of every public loss, one by one."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import shutil

import pytest
import torch
from torch import Tensor, nn

from dense_imb import losses
from dense_imb.losses import Balance
from dense_imb.losses.foreign.catalogue import CATALOGUE

from .cases import CASES, Case

SCOPES = ("image", "batch", "global")


@pytest.fixture(params=CASES, ids=lambda case: case.id)
def case(request) -> Case:
    return request.param


def evaluate(loss, inputs: dict[str, Tensor], **options) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    names = list(inputs)
    prediction = inputs[names[0]].detach().clone().requires_grad_()
    positional = [prediction, inputs[names[1]]]
    value = loss(*positional, **{name: inputs[name] for name in names[2:]}, **options)
    (gradient,) = torch.autograd.grad(value.sum(), prediction)
    return value.detach(), gradient


def cast(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}


def keep(inputs: dict[str, Tensor], change) -> dict[str, Tensor]:
    return {name: change(tensor) for name, tensor in inputs.items()}


def with_prediction(inputs: dict[str, Tensor], change) -> dict[str, Tensor]:
    first = next(iter(inputs))
    changed = inputs[first].clone()
    change(changed)
    return {**inputs, first: changed}


def some_mask(inputs: dict[str, Tensor]) -> Tensor:
    rng = torch.Generator().manual_seed(5)
    shape = pixels_of(inputs)
    return torch.rand(shape, generator=rng) < 0.6


def pixels_of(inputs: dict[str, Tensor]) -> tuple[int, ...]:
    """Shape of a map with one number for each pixel."""
    first, second = (inputs[name] for name in list(inputs)[:2])
    if "logits" in inputs:
        return (first.shape[0], *first.shape[2:])
    return tuple(second.shape)


def on(mask: Tensor, tensor: Tensor) -> Tensor:
    """The mask in the shape of logits, too."""
    return (mask.unsqueeze(1) if mask.dim() < tensor.dim() else mask).expand_as(tensor)


def test_no_loss_is_forgotten():
    modules = {
        name
        for name in losses.__all__
        if inspect.isclass(getattr(losses, name)) and issubclass(getattr(losses, name), nn.Module)
    }
    has_its_own_tests = {"RangeLoss", "BalancedMSELoss"}
    assert {case.name for case in CASES} == modules - has_its_own_tests
    assert {entry.name for entry in CATALOGUE} == modules
    assert len(CATALOGUE) == len(modules)


def test_pinned_value(case):
    for inputs, expected in case.pinned:
        value, _ = evaluate(case.make(), inputs)
        assert value.item() == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("scope", SCOPES)
def test_module_equals_function(case, scope):
    inputs = case.inputs(3)
    value, gradient = evaluate(case.make(scope=scope), inputs)
    expected, expected_gradient = evaluate(case.function, inputs, scope=scope)
    assert value == expected
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=0)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("is_masked", [False, True])
def test_gradients_are_right(case, scope, is_masked):
    inputs = case.inputs(2, size=2)
    names = list(inputs)
    loss = case.make(scope=scope)
    options = {name: inputs[name] for name in names[2:]}
    if is_masked:
        options["mask"] = some_mask(inputs)
        options["pixel_weight"] = 0.5 + torch.rand(pixels_of(inputs), dtype=torch.float64)

    def call(prediction):
        return loss(prediction, inputs[names[1]], **options)

    prediction = inputs[names[0]].requires_grad_()
    assert torch.autograd.gradcheck(call, prediction)
    assert torch.autograd.gradgradcheck(call, prediction)


@pytest.mark.parametrize("scope", SCOPES)
def test_nan_at_a_valid_pixel_comes_out(case, scope):
    inputs = with_prediction(case.inputs(3), lambda p: p.view(-1)[7].fill_(torch.nan))
    value, gradient = evaluate(case.make(scope=scope), inputs)
    assert value.isnan()
    assert gradient.isnan().any()


@pytest.mark.parametrize("scope", SCOPES)
def test_nan_under_a_mask_changes_nothing(case, scope):
    inputs = case.inputs(3)
    first, second = list(inputs)[:2]
    mask = some_mask(inputs)
    loss = case.make(scope=scope)
    expected, expected_gradient = evaluate(loss, inputs, mask=mask)
    spoilt = dict(inputs)
    spoilt[first] = inputs[first].masked_fill(~on(mask, inputs[first]), torch.nan)
    broken = torch.nan if inputs[second].is_floating_point() else 99
    spoilt[second] = inputs[second].masked_fill(~on(mask, inputs[second]), broken)
    for options in (
        {"mask": mask},
        {"mask": mask.float()},
        {"pixel_weight": mask.to(torch.float64)},
    ):
        value, gradient = evaluate(loss, spoilt, **options)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(gradient, expected_gradient)
        assert (gradient[~on(mask, gradient)] == 0).all()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("which", [0, 1], ids=["all empty", "all full"])
def test_a_frame_of_one_kind_is_finite_and_trains(case, scope, which):
    inputs = case.inputs(2)
    second = list(inputs)[1]
    inputs[second] = torch.full_like(inputs[second], case.fill[which])
    value, gradient = evaluate(case.make(scope=scope), inputs)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("scope", SCOPES)
def test_everything_masked_is_a_connected_zero(case, scope):
    inputs = with_prediction(case.inputs(2), lambda p: p.fill_(torch.nan))
    mask = torch.zeros(pixels_of(inputs), dtype=torch.bool)
    value, gradient = evaluate(case.make(scope=scope), inputs, mask=mask)
    assert value == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("scope", SCOPES)
def test_empty_batch_is_a_connected_zero(case, scope):
    value, gradient = evaluate(case.make(scope=scope), case.inputs(0))
    assert value == 0
    assert gradient.numel() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_as_good_as_its_input(case, dtype):
    rounded = cast(case.inputs(3), dtype)
    value, gradient = evaluate(case.make(), rounded)
    expected, expected_gradient = evaluate(case.make(), cast(rounded, torch.float64))
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    resolution = torch.finfo(dtype).eps
    torch.testing.assert_close(
        gradient.double(), expected_gradient, rtol=resolution, atol=torch.finfo(dtype).tiny
    )


def test_64_full_frames_in_half_precision_do_not_overflow(case):
    inputs = case.inputs(64, size=64)
    first, second = list(inputs)[:2]
    inputs[first] = torch.full_like(inputs[first], 300.0)
    if case.is_regression:
        inputs[second] = torch.full_like(inputs[second], 1.0)
    half = cast(inputs, torch.float16)
    value, gradient = evaluate(case.make(), half)
    expected, _ = evaluate(case.make(), cast(half, torch.float64))
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=0)
    assert gradient.isfinite().all()


def test_autocast_changes_nothing(case):
    inputs = cast(case.inputs(3), torch.float32)
    expected = evaluate(case.make(), inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = evaluate(case.make(), inputs)
    torch.testing.assert_close(value, expected)


COMPILED = ("acb_mse", "hard mining", "LDAM", "compound")  # one of each family; the others: slow


def is_quick(case: Case, is_masked: bool) -> bool:
    return case.id in COMPILED and (is_masked or case.id == COMPILED[0])


@pytest.mark.parametrize(
    ("case", "scope", "is_masked"),
    [
        pytest.param(
            case, scope, is_masked, marks=() if is_quick(case, is_masked) else pytest.mark.slow,
            id=f"{case.id}-{scope}-{is_masked}",
        )
        for case in CASES
        for scope, is_masked in (("image", True), ("batch", False))
    ],
)  # fmt: skip
def test_compiles_as_one_graph(case, scope, is_masked):
    torch.compiler.reset()
    inputs = cast(case.inputs(3), torch.float32)
    options = {}
    if is_masked:
        mask = some_mask(inputs)
        options = {"mask": mask, "pixel_weight": mask * 0.5}
    loss = case.make(scope=scope)
    expected = evaluate(loss, inputs, **options)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(evaluate(compiled, inputs, **options), expected)
    compiled = torch.compile(case.function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(evaluate(compiled, inputs, scope=scope, **options), expected)


INDUCTOR = ("acb_mse", "l1, value bins", "mse, labels", "hard mining", "complement cross entropy")


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="Inductor needs a C++ compiler, and none was found",
)
@pytest.mark.parametrize("one", [c for c in CASES if c.id in INDUCTOR], ids=lambda c: c.id)
def test_inductor_agrees(one):
    torch.compiler.reset()
    inputs = cast(one.inputs(3), torch.float32)
    compiled = torch.compile(one.make(), fullgraph=True)
    torch.testing.assert_close(evaluate(compiled, inputs), evaluate(one.make(), inputs))


@pytest.mark.parametrize("scope", SCOPES)
def test_shapes_never_depend_on_the_data(case, scope):
    """A meta tensor has no values: an operation that had to look at one would raise."""
    inputs = keep(case.inputs(3), lambda tensor: tensor.to("meta"))
    names = list(inputs)
    mask = torch.ones(pixels_of(inputs), dtype=torch.bool, device="meta")
    options = {name: inputs[name] for name in names[2:]}
    value = case.make(scope=scope)(inputs[names[0]], inputs[names[1]], mask=mask, **options)
    assert value.shape == ()


def test_memory_layout_changes_nothing(case):
    inputs = case.inputs(4)
    expected, expected_gradient = evaluate(case.make(), inputs)
    strided = keep(inputs, lambda tensor: tensor.transpose(0, -1).contiguous().transpose(0, -1))
    channels_last = keep(
        inputs,
        lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t,
    )
    for changed in (strided, channels_last):
        for scope in ("batch", "image"):
            expected, expected_gradient = evaluate(case.make(scope=scope), inputs)
            value, gradient = evaluate(case.make(scope=scope), changed)
            torch.testing.assert_close(value, expected)
            torch.testing.assert_close(gradient, expected_gradient)


def test_integer_targets_are_welcome(case):
    inputs = case.inputs(3)
    first, second = list(inputs)[:2]
    if inputs[second].shape == inputs[first].shape and not case.is_regression:
        inputs[second] = inputs[second].argmax(1)
    whole = (inputs[second] * 3).round() if inputs[second].is_floating_point() else inputs[second]
    expected, _ = evaluate(case.make(), {**inputs, second: whole})
    for dtype in (torch.int64, torch.int32, torch.uint8):
        value, _ = evaluate(case.make(), {**inputs, second: whole.to(dtype)})
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("scope", SCOPES)
def test_contributions_sum_to_the_loss(case, scope):
    if case.is_region:  # refused, see test_wrong_input_is_refused_by_name
        return
    inputs = case.inputs(3)
    value, gradient = evaluate(case.make(scope=scope), inputs)
    contributions, same_gradient = evaluate(case.make(scope=scope, reduction="none"), inputs)
    assert contributions.shape == pixels_of(inputs)
    torch.testing.assert_close(contributions.sum(), value)
    torch.testing.assert_close(same_gradient, gradient)


def test_parts_tell_the_class_means(case):
    inputs = case.inputs(3)
    names = list(inputs)
    options = {name: inputs[name] for name in names[2:]}
    prediction = inputs[names[0]].requires_grad_()
    parts = case.make()(prediction, inputs[names[1]], return_parts=True, **options)
    value = case.make()(prediction, inputs[names[1]], **options)
    # a sum without parts may share a softmax
    torch.testing.assert_close(parts.value, value, rtol=1e-14 if case.is_sum else 0, atol=0)
    assert parts.value.requires_grad
    assert not parts.class_mean.requires_grad
    if case.is_cover:
        assert parts.class_count.sum() == inputs["label"].sum() + parts.class_count[3:].sum()
    else:
        assert parts.class_count.sum() == math.prod(pixels_of(inputs))
    assert parts.class_mean.shape == parts.class_count.shape
    is_missing = parts.class_count == 0
    if case.is_region and not getattr(case.make(), "include_background", False):
        is_missing[0] = True
    if not getattr(case.make(), "is_joint", False):
        assert torch.equal(parts.class_mean.isnan(), is_missing)


def test_pickles_copies_and_prints(case):
    inputs = case.inputs(3)
    loss = case.make()
    expected, _ = evaluate(loss, inputs)
    for twin in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss), loss.half()):
        assert evaluate(twin, inputs)[0] == expected
    assert "balance=" in repr(loss)


def test_wrong_input_is_refused_by_name(case):
    inputs = case.inputs(3)
    first, second = list(inputs)[:2]
    loss = case.make()

    def call(**changes):
        return evaluate(loss, {**inputs, **changes})

    with pytest.raises(ValueError, match=rf"Expected `{second}` .*got \(2, "):
        call(**{second: inputs[second][:2]})
    with pytest.raises(TypeError, match=f"Expected `{second}` to be a torch.Tensor, got list"):
        loss(inputs[first], inputs[second].tolist())
    for wrong in (torch.complex64, torch.int64):
        with pytest.raises(
            TypeError, match=f"Expected `{first}` to be floating point, got {wrong}"
        ):
            loss(inputs[first].to(wrong), inputs[second])
    with pytest.raises(ValueError, match=r"Expected `mask` (in|of) the shape"):
        loss(inputs[first], inputs[second], mask=torch.ones(3, 2, 6, 7))
    with pytest.raises(ValueError, match=r"Expected `pixel_weight` of at least 0, got -1"):
        loss(inputs[first], inputs[second], pixel_weight=-torch.ones(3, 1, 6, 7))
    if case.is_region:
        with pytest.raises(TypeError, match="takes no `reduction`: it has no map of contributions"):
            case.make(reduction="sum")
    else:
        with pytest.raises(ValueError, match=r'Expected `reduction` .*"none".*"sum"'):
            case.make(reduction="sum")
    with pytest.raises(ValueError, match=r"Expected `scope` to be one of .*Did you mean 'batch'"):
        case.make(scope="batches")


def test_monais_tensors_are_tensors(case):
    """Their subclass goes through every loss, gradient included."""
    monai_data = pytest.importorskip("monai.data", reason="monai is not installed")
    inputs = case.inputs(3)
    expected, expected_gradient = evaluate(case.make(), inputs)
    wrapped = keep(inputs, monai_data.MetaTensor)
    for options in ({}, {"mask": monai_data.MetaTensor(torch.ones(pixels_of(inputs)))}):
        value, gradient = evaluate(case.make(), wrapped, **options)
        torch.testing.assert_close(torch.as_tensor(value).as_subclass(Tensor), expected)
        torch.testing.assert_close(gradient.as_subclass(Tensor), expected_gradient)


def test_a_misspelt_option_is_refused_with_the_right_one(case):
    """Silently dropped, it would train an unbalanced network and never say so."""
    loss = case.make()
    inputs = case.inputs(1)
    with pytest.raises(TypeError, match="got 'masks'. Did you mean 'mask'?"):
        loss(*list(inputs.values())[:2], masks=torch.ones(1))
    needs_counts = "class_counts" in inspect.signature(type(loss)).parameters
    arguments = ((1, 1),) if needs_counts else (loss,) if case.is_sum else ()
    with pytest.raises(TypeError, match="balence"):
        type(loss)(*arguments, balence=Balance())
    if not (case.is_regression or case.is_sum):
        with pytest.raises(TypeError, match="got 'balence'. Did you mean 'balance'?"):
            type(loss)(*arguments, balence=Balance())
        with pytest.raises(TypeError, match="got 'ignore'. Did you mean 'ignore_index'?"):
            case.function(*list(inputs.values())[:2], ignore=255)
    if not (case.is_regression or case.is_sum or case.is_region):
        with pytest.raises(TypeError, match="got 'weight'. Did you mean 'class_weight'?"):
            type(loss)(*arguments, weight=(1.0, 1.0))


def test_help_spells_the_options_out(case):
    shown = inspect.signature(type(case.make()).forward).parameters
    count = "window" if case.is_region else "class_count"
    assert {"mask", "pixel_weight", count, "return_parts"} <= set(shown)
    assert "options" not in shown
    if not (case.is_regression or case.is_sum):
        made = inspect.signature(type(case.make())).parameters
        weighs = {"gamma", "per"} if case.is_region else {"class_weight", "reduction"}
        assert {"ignore_index", "balance"} | weighs <= set(made)
        assert "options" not in made


def test_help_shows_the_defaults(case):
    if case.is_regression or case.is_sum:
        pytest.skip("spells its options itself")
    of = type(case.make())
    shown = inspect.signature(of).parameters
    needed = {"class_counts": (9, 1)} if "class_counts" in shown else {}
    defaults = {name: one.default for name, one in shown.items() if name not in needed}
    assert repr(of(**needed, **defaults)) == repr(of(**needed))


@pytest.mark.parametrize("n_calls", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_calls_leave_no_tensor_behind(case, n_calls):
    import gc

    gc.freeze()  # what is there already is not looked at again and again
    inputs = case.inputs(1, size=3)
    loss = case.make()

    def live() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    for _ in range(5):
        evaluate(loss, inputs)
    before = live()
    for _ in range(n_calls):
        evaluate(loss, inputs)
    after = live()
    gc.unfreeze()
    assert after <= before + 1
