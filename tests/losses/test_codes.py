"""Loss codes and class weights."""

from __future__ import annotations

import pytest
import torch

from dense_imb.losses import (
    Balance,
    CrossEntropyLoss,
    Focal,
    FocalLoss,
    HardMining,
    HardMiningLoss,
    LDAMLoss,
    class_weights,
    loss_from_code,
)

COUNTS = (5000, 600, 50)


@pytest.mark.parametrize(
    ("code", "kind", "penalty"),
    [
        ("hmld10000000g05a75", HardMiningLoss, HardMining(0.75, 0.5, 1e7)),
        ("hmld10000g05", HardMiningLoss, HardMining(1.0, 0.5, 1e4)),
        ("hmld100000g2a75", HardMiningLoss, HardMining(0.75, 2.0, 1e5)),
        ("hmld10000000g1", HardMiningLoss, HardMining(1.0, 1.0, 1e7)),
        ("flg1", FocalLoss, Focal(1.0)),
        ("flg2a50", FocalLoss, Focal(2.0, 0.5)),
        ("CBFLossg05", FocalLoss, Focal(0.5)),
    ],
)
def test_codes_with_numbers(code, kind, penalty):
    loss = loss_from_code(code, COUNTS)
    assert type(loss) is kind
    assert loss.penalty == penalty


def test_codes_with_weights():
    assert type(loss_from_code("ce")) is CrossEntropyLoss
    assert loss_from_code("ce").class_weight is None
    inverse = loss_from_code("csce", COUNTS).class_weight
    assert inverse == class_weights(COUNTS, "inverse")
    effective = class_weights(COUNTS, "effective")
    for code in ("CBLoss", "CBFLossg05", "LDAM-RW"):
        assert loss_from_code(code, COUNTS).class_weight == effective
    assert type(loss_from_code("LDAM-RW", COUNTS)) is LDAMLoss


def test_options_go_to_the_loss():
    loss = loss_from_code("csce", COUNTS, balance=Balance(scope="image"), ignore_index=255)
    assert loss.class_weight is None
    assert loss.balance == Balance(scope="image", weight=class_weights(COUNTS))
    assert loss.ignore_index == 255


def test_weights_by_hand():
    assert class_weights((900, 100)) == pytest.approx((0.2, 1.8))
    assert class_weights((900, 100), "sqrt") == pytest.approx((0.5, 1.5))
    weight = [(1 - 0.9) / (1 - 0.9**n) for n in (20, 2)]
    expected = [w * 2 / sum(weight) for w in weight]
    assert class_weights((20, 2), "effective", beta=0.9) == pytest.approx(expected)
    with pytest.warns(UserWarning, match="is 0 for class 1; 1 is used instead"):
        assert class_weights((9, 0)) == pytest.approx((0.2, 1.8))


@pytest.mark.parametrize(
    "code",
    ["", "hml", "hmld10g", "hmldxg1", "flg", "flg2a", "CE", "hmld10g1a75x", "CBFLoss", " ce", 3],
)
def test_what_is_no_code_is_refused(code):
    with pytest.raises((ValueError, TypeError), match="Expected `code` to be"):
        loss_from_code(code, COUNTS)


@pytest.mark.parametrize("code", ["csce", "CBLoss", "CBFLossg1", "LDAM-RW"])
def test_codes_with_weights_need_counts(code):
    with pytest.raises(ValueError, match=f"The code '{code}' needs `class_counts`"):
        loss_from_code(code)
    with pytest.raises(ValueError, match="The code sets the class weights"):
        loss_from_code(code, COUNTS, class_weight=(1.0, 1.0, 1.0))


def test_bad_numbers_in_a_code_are_refused():
    with pytest.raises(ValueError, match="`delta` to be a number of at least 1"):
        loss_from_code("hmld0g1")
    with pytest.raises(ValueError, match="`beta` below 1"):
        class_weights(COUNTS, "effective", beta=1.0)
    with pytest.raises(ValueError, match=r"`method` .*Did you mean 'inverse'"):
        class_weights(COUNTS, "inverted")


def test_a_code_trains():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss_from_code("hmld10000000g05a75")(logits, torch.zeros(2, 4, 4).long()).backward()
    assert logits.grad.abs().sum() > 0
