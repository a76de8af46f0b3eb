"""Every name that a comparison prints is a loss wherever one is typed."""

from __future__ import annotations

import pytest
import torch

from dense_imb.cli import main
from dense_imb.compare import contestants
from dense_imb.compare.contestants import ORDER
from dense_imb.curves import parse_losses
from dense_imb.losses import CrossEntropyLoss, FocalLoss, class_weights
from dense_imb.losses.foreign.parse import parse_loss, parse_spec
from dense_imb.losses.foreign.short_names import SHORT_NAMES, suggest_loss
from dense_imb.tasks.recipe import build_loss

NAMES = sorted({one.name for kind in ORDER for one in contestants(kind, n_classes=3)})


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_a_comparison_is_a_loss(name):
    assert build_loss(name, (9, 1)) is not None
    assert parse_loss(name, class_counts=(9, 1)) is not None
    assert parse_spec(name).takes_logits == (name not in ("ACB-MSE", "MSE", "MAE"))


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_a_short_name_is_the_loss_that_it_stands_for(name):
    short, full = (build_loss(text, (9, 1)) for text in (name.upper(), SHORT_NAMES[name]))
    assert repr(short) == repr(full)


def test_short_names_add_up_with_weights():
    loss = build_loss("focal + 0.5 * Dice")
    assert list(loss.weights.values()) == [1.0, 0.5]
    assert isinstance(loss.losses["FocalLoss"], FocalLoss)


def test_codes_keep_their_meaning():
    assert isinstance(build_loss("ce"), CrossEntropyLoss)
    assert build_loss("flg2a50").penalty.alpha == 0.5


def test_curves_take_short_names():
    assert list(parse_losses(["focal", "cross-entropy"])) == ["focal", "cross-entropy"]


@pytest.mark.parametrize("method", ["inverse", "sqrt", "effective"])
def test_weights_can_be_named_by_their_rule(method):
    loss = build_loss(f"CrossEntropyLoss(class_weight={method!r})", (90, 10))
    assert loss.class_weight == pytest.approx(class_weights((90, 10), method))
    logits, target = torch.randn(2, 2, 3, 3), torch.randint(2, (2, 3, 3))
    given = CrossEntropyLoss(class_weight=class_weights((90, 10), method))
    torch.testing.assert_close(loss(logits, target), given(logits, target))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("CrossEntropyLoss(class_weight='inverse')", "pixels of each class"),
        ("CrossEntropyLoss(class_weight='inverted')", "Did you mean 'inverse'"),
    ],
)
def test_a_rule_of_weights_without_counts_or_misspelt_is_one_sentence(text, sentence):
    counts = None if "inverse'" in text else (9, 1)
    with pytest.raises(ValueError, match=sentence) as refused:
        parse_loss(text, class_counts=counts)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("TverskyLss", "TverskyLoss"), ("focall", "FocalLoss"), ("Focal Loss", "FocalLoss"),
     ("balanced softmx", "balanced softmax"), ("CrossEntropy", "CrossEntropyLoss"),
     ("DiceCELoss", "DiceCE"), ("balanced focal mining", None)],
)  # fmt: skip
def test_a_misspelt_name_is_answered_with_the_nearest(typed, meant):
    with pytest.raises(ValueError, match="Expected") as refused:
        build_loss(typed)
    if meant is not None:
        assert f"Did you mean {meant!r}?" in str(refused.value)
    assert "PixelLoss" not in suggest_loss(typed)


def test_the_command_lists_them(capsys):
    assert main(["losses"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in SHORT_NAMES)
