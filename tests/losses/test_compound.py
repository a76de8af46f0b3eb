"""A sum of anybody's losses."""

from __future__ import annotations

import copy
import importlib
import warnings

import pytest
import torch
from torch import nn

from dense_imb.losses import (
    ACBMSELoss,
    Balance,
    BalancedRegressionLoss,
    BalancedSoftmaxLoss,
    BiasCompensatedLoss,
    CompoundLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    HardMiningLoss,
    RangeLoss,
)
from dense_imb.losses.foreign.parse import parse_loss, split_sum

monai = pytest.importorskip("monai.losses")

RNG = torch.Generator().manual_seed(0)
LOGITS = torch.randn(2, 1, 8, 9, generator=RNG)
LABEL = torch.randint(0, 2, (2, 1, 8, 9), generator=RNG)
MASK = torch.rand(2, 8, 9, generator=RNG) < 0.5


def with_dice() -> CompoundLoss:
    return CompoundLoss(
        {"hard_mining": HardMiningLoss(balance=Balance()), "dice": monai.DiceLoss(sigmoid=True)},
        weights={"dice": 0.5},
    )


def test_it_is_the_weighted_sum_and_tells_the_parts():
    loss = with_dice()
    logits = LOGITS.clone().requires_grad_()
    value = loss(logits, LABEL)
    hard = HardMiningLoss(balance=Balance())(LOGITS, LABEL)
    dice = monai.DiceLoss(sigmoid=True)(LOGITS, LABEL.float())
    torch.testing.assert_close(value.detach(), hard + 0.5 * dice)
    assert value.shape == ()
    torch.testing.assert_close(loss.parts, {"hard_mining": hard, "dice": dice})
    assert not any(part.requires_grad for part in loss.parts.values())
    value.backward()
    assert logits.grad.abs().sum() > 0


def test_losses_without_names_have_their_classes():
    loss = CompoundLoss(FocalLoss(), nn.CrossEntropyLoss(), FocalLoss(gamma=0.5), weights=(1, 2, 3))
    assert list(loss.losses) == ["FocalLoss", "CrossEntropyLoss", "FocalLoss_2"]
    assert loss.weights == {"FocalLoss": 1.0, "CrossEntropyLoss": 2.0, "FocalLoss_2": 3.0}


def test_losses_of_values_are_fed_the_target_as_it_is():
    loss = CompoundLoss(ACBMSELoss(), nn.L1Loss())
    target = 7 * torch.rand(2, 1, 8, 9, generator=RNG)
    expected = ACBMSELoss()(LOGITS, target) + nn.L1Loss()(LOGITS, target)
    assert loss.feeds_on == "values"
    torch.testing.assert_close(loss(LOGITS, target), expected)
    whole = target.round()  # times in steps, not labels
    torch.testing.assert_close(loss(LOGITS, whole.to(torch.uint8)), loss(LOGITS, whole))


def test_a_loss_of_values_beside_one_of_logits_compares_probabilities():
    loss = CompoundLoss(CrossEntropyLoss(), ACBMSELoss())
    expected = CrossEntropyLoss()(LOGITS, LABEL) + ACBMSELoss()(LOGITS.sigmoid(), LABEL.float())
    assert loss.feeds_on == "logits"
    torch.testing.assert_close(loss(LOGITS, LABEL), expected)
    three = torch.randn(2, 3, 8, 9, generator=RNG)
    one_hot = nn.functional.one_hot(LABEL.squeeze(1), 3).movedim(-1, 1).float()
    expected = CrossEntropyLoss()(three, LABEL) + ACBMSELoss()(three.softmax(1), one_hot)
    torch.testing.assert_close(loss(three, LABEL), expected)


def test_sums_may_hold_sums():
    inner = CompoundLoss(FocalLoss(), CrossEntropyLoss())
    loss = CompoundLoss({"inner": inner, "dice": monai.DiceLoss(sigmoid=True)})
    expected = inner(LOGITS, LABEL) + monai.DiceLoss(sigmoid=True)(LOGITS, LABEL.float())
    torch.testing.assert_close(loss(LOGITS, LABEL), expected)


def test_options_go_to_those_who_take_them_all():
    ours = CompoundLoss(FocalLoss(), CrossEntropyLoss(), weights=(1, 2))
    expected = FocalLoss()(LOGITS, LABEL, mask=MASK)
    expected = expected + 2 * CrossEntropyLoss()(LOGITS, LABEL, mask=MASK)
    torch.testing.assert_close(ours(LOGITS, LABEL, mask=MASK), expected)
    with pytest.raises(TypeError, match="`DiceLoss` takes no `mask`; drop it or use a den"):
        with_dice()(LOGITS, LABEL, mask=MASK)


def test_counts_of_a_window_are_refused_by_the_region_loss():
    loss = CompoundLoss(DiceLoss(), CrossEntropyLoss(balance=Balance()))
    with pytest.raises(TypeError, match="`DiceLoss` takes no `class_count`"):
        loss(torch.zeros(1, 2, 3), torch.tensor([[0, 1, 0]]), class_count=torch.tensor([2.0, 1.0]))


def test_an_instance_map_goes_to_the_parts_that_want_it():
    component = torch.randint(0, 4, (2, 8, 9), generator=RNG)
    per = CrossEntropyLoss(per="instance")
    for others in ([monai.DiceLoss(sigmoid=True)], [FocalLoss(), nn.BCEWithLogitsLoss()]):
        loss = CompoundLoss(per, *others)
        assert loss.per == "instance"
        expected = per(LOGITS, LABEL, instance=component)
        expected = expected + sum(other(LOGITS, LABEL.float()) for other in others)
        torch.testing.assert_close(loss(LOGITS, LABEL, instance=component), expected)
        with pytest.raises(ValueError, match='Expected `instance` with per="instance", got none'):
            loss(LOGITS, LABEL)
    nested = CompoundLoss({"inner": CompoundLoss(per, FocalLoss()), "dice": with_dice()})
    assert nested.per == "instance"
    nested(LOGITS, LABEL, instance=component)
    values = CompoundLoss(ACBMSELoss(), BalancedRegressionLoss(per="instance"))
    assert values(LOGITS, LABEL.float(), instance=component).isfinite()
    with pytest.raises(
        ValueError,
        match='`CompoundLoss` takes no `instance`; drop it or give a part per="instance"',
    ):
        with_dice()(LOGITS, LABEL, instance=component)
    compiled = torch.compile(
        CompoundLoss(CrossEntropyLoss(per="instance", max_instances=3), FocalLoss()),
        fullgraph=True, backend="aot_eager",
    )  # fmt: skip
    torch.testing.assert_close(
        compiled(LOGITS, LABEL, instance=component),
        CompoundLoss(per, FocalLoss())(LOGITS, LABEL, instance=component),
    )


def test_state_goes_with_it():
    loss = CompoundLoss(BiasCompensatedLoss([9, 1]), nn.CrossEntropyLoss(torch.tensor([1.0, 2.0])))
    assert "losses.CrossEntropyLoss.weight" in loss.state_dict()
    twin = copy.deepcopy(loss)
    loss(LOGITS, LABEL)
    for key, tensor in loss.state_dict().items():
        tensor.fill_(0.5) if tensor.is_floating_point() else None
        assert key in twin.state_dict()
    twin.load_state_dict(loss.state_dict())
    torch.testing.assert_close(twin(LOGITS, LABEL), loss(LOGITS, LABEL))
    assert set(copy.deepcopy(loss).parts) == set(loss.parts)


@pytest.mark.parametrize("n_channels", [1, 4])
def test_with_another_librarys_loss_it_compiles_as_one_graph(n_channels):
    """torch's own here: MONAI's Dice is not one graph by itself."""
    torch.compiler.reset()
    logits = torch.randn(2, n_channels, 8, 9, generator=RNG)
    others = {"ce": nn.CrossEntropyLoss(), "bce": nn.BCEWithLogitsLoss(), "mse": nn.MSELoss()}
    loss = CompoundLoss({"focal": FocalLoss(), **others})
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, LABEL), loss(logits, LABEL))
    value = compiled(logits, LABEL)
    torch.testing.assert_close(sum(loss.parts.values()), value)


def test_monais_tensors_are_tensors():
    tensor = importlib.import_module("monai.data").MetaTensor
    value = with_dice()(tensor(LOGITS), tensor(LABEL.float()))
    torch.testing.assert_close(value.as_subclass(torch.Tensor), with_dice()(LOGITS, LABEL))


def test_in_monais_deep_supervision():
    deep = monai.DeepSupervisionLoss(with_dice())
    outputs = [LOGITS, LOGITS[..., ::2, ::3]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert deep(outputs, LABEL.float()).isfinite()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: CompoundLoss({}), "at least one loss, got none"),
        (lambda: CompoundLoss(FocalLoss(), weights=(1, 2)), "each of the 1 losses, got 2"),
        (lambda: CompoundLoss(FocalLoss(), weights={"dice": 1}), "`weights` of FocalLoss, got 'di"),
        (
            lambda: CompoundLoss(FocalLoss(), weights=(-1,)),
            "`weights` to be a number of at least 0",
        ),
        (lambda: CompoundLoss({"a.b": FocalLoss()}), "got 'a.b'; no dot"),
        (lambda: CompoundLoss({"keys": FocalLoss()}), "got 'keys'; no dot"),
        (lambda: CompoundLoss(FocalLoss(), RangeLoss()), "of logits or values, got RangeLoss"),
        (lambda: CompoundLoss(FocalLoss(), monai.DiceLoss()), "sigmoid=True or softmax=True"),
        (
            lambda: CompoundLoss(FocalLoss(ignore_index=9), monai.DiceLoss(sigmoid=True)),
            r"got 9 in 'FocalLoss' and none in 'DiceLoss' \(DiceLoss\), which would count",
        ),
    ],
)
def test_what_cannot_be_summed_is_refused(make, told):
    with pytest.raises(ValueError, match=told) as refusal:
        make()
    assert "\n" not in str(refusal.value)


def test_what_is_no_loss_is_refused():
    with pytest.raises(TypeError, match="Expected a loss to be a torch.nn.Module, got 'dice'"):
        CompoundLoss(FocalLoss(), "dice")
    with pytest.raises(TypeError, match="a mapping of names to losses, or losses; got both"):
        CompoundLoss({"a": FocalLoss()}, FocalLoss())


def test_maps_of_two_shapes_do_not_add():
    """They would broadcast to (B, B, H, W)."""
    loss = CompoundLoss(FocalLoss(reduction="none"), nn.BCEWithLogitsLoss(reduction="none"))
    with pytest.raises(ValueError, match="Expected parts of one shape.*the same `reduction`"):
        loss(LOGITS, LABEL)


def test_a_typed_sum():
    text = "HardMiningLoss(balance={}) + 0.5 * monai.losses:DiceLoss(sigmoid=True)"
    loss = parse_loss(text, packages=("dense_imb", "monai"))
    assert loss.weights == {"HardMiningLoss": 1.0, "DiceLoss": 0.5}
    torch.testing.assert_close(loss(LOGITS, LABEL), with_dice()(LOGITS, LABEL))
    assert loss.losses["HardMiningLoss"].balance == Balance()


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("A+B", [(None, "A"), (None, "B")]),
        ("2*A(1) + 1e+3 * p.q:B('+')", [(2.0, "A(1)"), (1000.0, "p.q:B('+')")]),
        (".5 * A(x={'a': '+)'})", [(0.5, "A(x={'a': '+)'})")]),
        ("A(b=1e+3)", [(None, "A(b=1e+3)")]),
        ("A2e+B", [(None, "A2e"), (None, "B")]),
    ],
)
def test_terms_of_a_sum(text, terms):
    assert split_sum(text) == terms


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("FocalLoss + 0.5 * os:system('true')", "Expected a loss of torch, got .FocalLoss"),
        ("FocalLoss + ", "Expected a loss as a name"),
        ("FocalLoss + -1 * CrossEntropyLoss", "Expected a loss as a name"),
        ("FocalLoss + x * CrossEntropyLoss", "Expected a loss as a name"),
        ("FocalLoss + RangeLoss", "Expected losses that add up, got 'FocalLoss \\+ RangeLoss'"),
        ("FocalLoss + FocalLos", "Did you mean 'FocalLoss'"),
    ],
)
def test_a_typed_sum_that_is_none_is_refused(text, told):
    with pytest.raises(ValueError, match=told) as refusal:
        parse_loss(text, packages=("torch",))
    assert "\n" not in str(refusal.value)


def test_counts_are_supplied_to_those_that_need_them_and_have_none():
    loss = parse_loss("BalancedSoftmaxLoss + FocalLoss", class_counts=[90, 10])
    expected = BalancedSoftmaxLoss([90, 10])(LOGITS, LABEL) + FocalLoss()(LOGITS, LABEL)
    torch.testing.assert_close(loss(LOGITS, LABEL), expected)
    for text in ("BalancedSoftmaxLoss([3, 1])", "BalancedSoftmaxLoss(class_counts=[3, 1])"):
        own = parse_loss(text, class_counts=[90, 10])
        torch.testing.assert_close(own(LOGITS, LABEL), BalancedSoftmaxLoss([3, 1])(LOGITS, LABEL))
    with pytest.raises(ValueError, match="missing 1 required positional argument: 'class_counts'"):
        parse_loss("BalancedSoftmaxLoss")
