"""A loss's text tells what the loss is fed, without building or importing anything."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dense_imb.losses import (
    Balance,
    CompoundLoss,
    CrossEntropyLoss,
    DiceLoss,
    Hardest,
    Linear,
    LogPrior,
    Matthews,
    PixelLoss,
    RegionLoss,
    Tversky,
)
from dense_imb.losses.foreign.catalogue import CATALOGUE
from dense_imb.losses.foreign.feeding import feeds_on, takes_logits
from dense_imb.losses.foreign.parse import Spec, parse_loss, parse_spec

MONAI, SMP, KORNIA = "monai.losses", "segmentation_models_pytorch.losses", "kornia.losses"
OTHERS = [
    *(
        f"torch.nn:{name}"
        for name in ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss(delta=2.0)", "PoissonNLLLoss",
                     "CrossEntropyLoss(label_smoothing=0.1)", "NLLLoss", "BCEWithLogitsLoss",
                     "KLDivLoss", "SoftMarginLoss", "MultiMarginLoss")
    ),
    "torch.nn.modules.loss:MSELoss",
    *(
        f"{MONAI}:{text}"
        for text in ("DiceLoss(sigmoid=True)", "DiceCELoss(softmax=True, to_onehot_y=True)",
                     "FocalLoss", "TverskyLoss(softmax=True)", "GeneralizedDiceLoss(sigmoid=True)")
    ),
    *(
        f"{SMP}:{text}"
        for text in ("DiceLoss('binary')", "JaccardLoss('multiclass')", "FocalLoss('multilabel')",
                     "LovaszLoss('binary')", "SoftBCEWithLogitsLoss",
                     "SoftCrossEntropyLoss(smooth_factor=0.0)",
                     "TverskyLoss('multiclass')")
    ),
    *(
        f"{KORNIA}:{text}"
        for text in ("FocalLoss(0.5)", "DiceLoss", "TverskyLoss(0.5, 0.5)", "LovaszHingeLoss",
                     "BinaryFocalLossWithLogits(0.25)", "CharbonnierLoss", "CauchyLoss",
                     "GemanMcclureLoss", "WelschLoss", "SSIMLoss(5)", "PSNRLoss(1.0)")
    ),
    "ACBMSELoss + torch.nn:L1Loss",
    "CrossEntropyLoss + ACBMSELoss",
    "0.5 * torch.nn:HuberLoss + 2 * torch.nn:BCEWithLogitsLoss",
    f"FocalLoss(balance={{}}) + 0.5 * {MONAI}:DiceLoss(sigmoid=True)",
]  # fmt: skip


@pytest.mark.parametrize("text", OTHERS)
def test_a_spec_agrees_with_the_loss_that_it_builds(text):
    for package in ("monai", "segmentation_models_pytorch", "kornia"):
        if package in text:
            pytest.importorskip(package)
    loss = parse_loss(text)
    assert parse_spec(text).feeds_on == feeds_on(loss)
    assert parse_spec(text).takes_logits == takes_logits(loss)


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_a_spec_agrees_with_every_loss_of_ours(entry):
    text = {
        "CompoundLoss": "FocalLoss + CrossEntropyLoss",
        "BalancedRegressionLoss": "BalancedRegressionLoss('l1')",
    }.get(entry.name, entry.name)
    loss = parse_loss(text, class_counts=[9, 1])
    assert parse_spec(text).takes_logits == takes_logits(loss) == (entry.feeds_on == "logits")
    assert parse_spec(f"dense_imb.losses:{text}" if " " not in text else text).takes_logits == (
        entry.feeds_on == "logits"
    )


def test_the_parts_of_a_spec():
    spec = parse_spec("FocalLoss(2.0, gamma=1.0) + 0.5 * torch.nn:HuberLoss(delta=2.0)")
    assert [one.name for one in spec.terms] == ["FocalLoss", "HuberLoss"]
    first, second = spec.terms
    assert (first.module, first.positional, first.options) == (None, (2.0,), {"gamma": 1.0})
    assert (second.module, second.positional, second.options) == ("torch.nn", (), {"delta": 2.0})
    assert spec.weights == (None, 0.5)
    assert isinstance(spec, Spec)


def test_nothing_is_imported_for_a_spec():
    code = (
        "import sys\n"
        "from dense_imb.losses.foreign.parse import parse_spec\n"
        "print(parse_spec('monai.losses:DiceLoss(sigmoid=True) + kornia:Loss').takes_logits,\n"
        "      parse_spec('no.such.module:Thing').takes_logits, 'monai' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("FocalLos", "Did you mean 'FocalLoss'"),
        ("__import__('os').system('true')", "Expected a loss as a name"),
        ("FocalLoss(gamma=open('x'))", "Expected a loss as a name"),
        ("FocalLoss + ", "Expected a loss as a name"),
        ("", "Expected a loss as a name"),
    ],
)
def test_a_text_that_is_no_spec_is_refused(text, sentence):
    with pytest.raises(ValueError, match=sentence) as refusal:
        parse_spec(text)
    assert "\n" not in str(refusal.value)


def test_a_quoted_option_does_not_end_at_a_plus():
    spec = parse_spec("torch.nn:MSELoss(reduction='sum + mean') + 0.5 * FocalLoss")
    assert [term.name for term in spec.terms] == ["MSELoss", "FocalLoss"]
    assert spec.terms[0].options == {"reduction": "sum + mean"}
    assert spec.weights == (None, 0.5)
    assert len(parse_spec("torch.nn:MSELoss(reduction='mean') + FocalLoss").terms) == 2


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        ("RegionLoss(Matthews())", RegionLoss(Matthews())),
        (
            "RegionLoss(index=Tversky(0.3, beta=0.7), balance=Balance(scope='image'))",
            RegionLoss(Tversky(0.3, 0.7), balance=Balance(scope="image")),
        ),
        (
            "CrossEntropyLoss(balance=Balance(power=math.inf), spread=Hardest(0.1))",
            CrossEntropyLoss(balance=Balance(power="inf"), spread=Hardest(0.1)),
        ),
        (
            "PixelLoss(Linear(), LogPrior([90, 10]), balance=Balance(weight=(0, 1)))",
            PixelLoss(Linear(), LogPrior([90, 10]), balance=Balance(weight=(0, 1))),
        ),
        (
            "DiceLoss(per='instance') + 0.5 * CrossEntropyLoss(balance=Balance())",
            CompoundLoss(
                DiceLoss(per="instance"), CrossEntropyLoss(balance=Balance()), weights=(1, 0.5)
            ),
        ),
    ],
)
def test_objects_of_ours_are_written_as_in_python(text, loss):
    assert repr(parse_loss(text)) == repr(loss)


@pytest.mark.parametrize(
    "text",
    [
        "RegionLoss(__import__('os'))",
        "RegionLoss(Overlap(1, 2, 3, 4))",
        "RegionLoss(Matthews)",
        "RegionLoss(math.pi)",
        "RegionLoss(Dice(*[1]))",
        "RegionLoss(Dice(**{'smooth': 1}))",
        "RegionLoss(Dice(open('x')))",
        "RegionLoss(lambda o: o.tp)",
    ],
)
def test_nothing_else_in_a_text_is_evaluated(text):
    with pytest.raises(ValueError, match="options as literals or objects of ours"):
        parse_spec(text)


def test_objects_of_ours_refuse_their_options_in_one_sentence():
    with pytest.raises(ValueError, match=r"RegionLoss takes, .*Expected `smooth` to be .*got -1"):
        parse_loss("RegionLoss(Dice(smooth=-1))")
    with pytest.raises(ValueError, match="CrossEntropyLoss takes, .*unexpected keyword.*'powr'"):
        parse_loss("CrossEntropyLoss(balance=Balance(powr=2))")
