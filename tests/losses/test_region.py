"""Region losses against the libraries that users come from: the value and the gradient."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dense_imb.losses import (
    Balance,
    CompoundLoss,
    CrossEntropyLoss,
    Dice,
    DiceLoss,
    GeneralizedDice,
    Jaccard,
    Matthews,
    Overlap,
    RegionLoss,
    Tversky,
    TverskyLoss,
)

from .peers import MONAI_IGNORES, SMP_JACCARD, needs

C = 4
RNG = torch.Generator().manual_seed(0)
LOGITS = 2 * torch.randn(3, C, 8, 9, generator=RNG, dtype=torch.float64)
TARGET = torch.randint(0, C, (3, 8, 9), generator=RNG)
TARGET[1] = TARGET[1].clamp(max=1)  # an image that lacks two classes
ABSENT = TARGET.clamp(max=2)  # a batch that lacks one
BINARY = 2 * torch.randn(3, 1, 8, 9, generator=RNG, dtype=torch.float64)
MASK = (torch.rand(3, 1, 8, 9, generator=RNG) < 0.2).double()
MASK[1] = 0  # an empty image
HOLES = torch.where(torch.rand(TARGET.shape, generator=RNG) < 0.3, 255, TARGET)
SOFT = torch.softmax(2 * torch.randn(3, C, 8, 9, generator=RNG, dtype=torch.float64), 1)
WEIGHT = (0.2, 1.0, 3.0, 1.5)
S = 1e-5  # MONAI's smoothing


def assert_same(ours, theirs, logits=LOGITS, target=TARGET, their_target=None, atol=1e-8):
    """Value and gradient agree to 1e-8."""
    their_target = target if their_target is None else their_target
    results = []
    for loss, y in ((ours, target), (theirs, their_target)):
        z = logits.clone().requires_grad_()
        value = loss(z, y)
        (gradient,) = torch.autograd.grad(value, z)
        results.append((value.detach(), gradient))
    assert results[0][1].abs().sum() > 0
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=atol)


def as_monai(is_batch: bool, **options) -> Balance:
    return Balance(scope="batch" if is_batch else "image", absent="index", **options)


def channel(target: Tensor) -> Tensor:
    return target.unsqueeze(1)


# MONAI


@pytest.fixture
def monai():
    return pytest.importorskip("monai.losses", reason="monai is not installed")


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize(
    ("name", "options", "index"),
    [
        ("DiceLoss", {}, Dice(S)),
        ("DiceLoss", {"smooth_nr": 1.0, "smooth_dr": 1.0}, Dice(1.0)),
        ("DiceLoss", {"jaccard": True}, Jaccard(S / 2)),
        ("TverskyLoss", {"alpha": 0.3, "beta": 0.7}, Tversky(0.3, 0.7, S)),
        ("MCCLoss", {"smooth_nr": S}, Matthews()),
        ("GeneralizedDiceLoss", {}, GeneralizedDice()),
        ("GeneralizedDiceLoss", {"w_type": "simple"}, GeneralizedDice(1)),
        ("GeneralizedDiceLoss", {"w_type": "uniform"}, GeneralizedDice(0)),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else None,
)
def test_monai_region_losses(monai, name, options, index, is_batch, background):
    shared = {"include_background": background, "batch": is_batch, **options}
    theirs = getattr(monai, name)(to_onehot_y=True, softmax=True, **shared)
    ours = RegionLoss(index, balance=as_monai(is_batch), include_background=background)
    assert_same(ours, theirs, target=TARGET, their_target=channel(TARGET))
    assert_same(ours, theirs, target=ABSENT, their_target=channel(ABSENT))


@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("DiceLoss", Dice(S)),
        ("TverskyLoss", Tversky(0.5, 0.5, S)),
        ("GeneralizedDiceLoss", GeneralizedDice()),
    ],
)
def test_monai_binary_with_one_channel(monai, name, index, is_batch):
    theirs = getattr(monai, name)(sigmoid=True, batch=is_batch)
    target = MASK.clone()
    if name == "GeneralizedDiceLoss":  # their weight of an empty image is 0 / 0
        target[1, 0, 0] = 1
    assert_same(RegionLoss(index, balance=as_monai(is_batch)), theirs, BINARY, target)


def test_monai_matthews_smooths_below_alone(monai):
    def index(o: Overlap) -> Tensor:
        product = (o.tp + o.fp) * (o.tp + o.fn) * (o.tn + o.fp) * (o.tn + o.fn)
        return (o.tp * o.tn - o.fp * o.fn) / (product + S).sqrt()

    for logits, target, made in (
        (LOGITS, channel(TARGET), {"to_onehot_y": True, "softmax": True}),
        (BINARY, MASK, {"sigmoid": True}),
    ):
        theirs = monai.MCCLoss(batch=True, include_background=logits is BINARY, **made)
        assert_same(RegionLoss(index), theirs, logits, target)


@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_monai_class_weights(monai, is_batch, background):
    weight = torch.tensor(WEIGHT if background else WEIGHT[1:])
    theirs = monai.DiceLoss(
        to_onehot_y=True, softmax=True, include_background=background, batch=is_batch, weight=weight
    )
    balance = as_monai(is_batch, weight=weight.tolist() if background else (0, *weight.tolist()))
    ours = DiceLoss(S, balance=balance, include_background=background)
    assert_same(ours, theirs, their_target=channel(TARGET))


@needs(*MONAI_IGNORES)
@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize(("name", "index"), [("DiceLoss", Dice(S)), ("TverskyLoss", Tversky())])
def test_monai_ignored_pixels(monai, name, index, is_batch):
    smooth = {} if name == "DiceLoss" else {"smooth_nr": 0.0, "smooth_dr": 0.0}
    theirs = getattr(monai, name)(
        to_onehot_y=True, softmax=True, include_background=False, batch=is_batch, ignore_index=255,
        **smooth,
    )  # fmt: skip
    ours = RegionLoss(index, balance=as_monai(is_batch), ignore_index=255)
    holes = HOLES if is_batch else torch.where(HOLES == 255, 255, HOLES.roll(1, 0))
    if name == "TverskyLoss":  # unsmoothed, an absent class is 0 / 0
        for k in range(C):
            holes[:, 0, k] = k
    assert_same(ours, theirs, target=holes, their_target=channel(holes))


@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize(
    ("name", "options", "index"),
    [
        ("DiceLoss", {}, Dice(S)),
        ("DiceLoss", {"jaccard": True}, Jaccard(S / 2)),
        ("TverskyLoss", {"alpha": 0.3, "beta": 0.7}, Tversky(0.3, 0.7, S)),
    ],
)
def test_monai_soft_labels(monai, name, options, index, is_batch):
    theirs = getattr(monai, name)(softmax=True, soft_label=True, batch=is_batch, **options)
    ours = RegionLoss(index, balance=as_monai(is_batch), include_background=True)
    assert_same(ours, theirs, target=SOFT)


def test_a_soft_target_is_best_met_by_itself():
    """MONAI without soft_label is best at the argmax of the target."""
    z = SOFT.log()
    assert RegionLoss()(z, SOFT) == pytest.approx(0, abs=1e-15)
    assert RegionLoss()(z + 0.1 * torch.randn(z.shape, generator=RNG), SOFT) > 1e-3


@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_monai_dice_ce_from_one_softmax(monai, is_batch, background):
    weight = torch.tensor(WEIGHT, dtype=torch.float64)
    theirs = monai.DiceCELoss(
        to_onehot_y=True, softmax=True, include_background=background, batch=is_batch,
        lambda_dice=0.7, lambda_ce=1.3,
    )  # fmt: skip
    theirs.cross_entropy.weight = weight
    dice = DiceLoss(S, balance=as_monai(is_batch), include_background=background)
    ours = CompoundLoss(dice, CrossEntropyLoss(class_weight=WEIGHT), weights=(0.7, 1.3))
    assert_same(ours, theirs, their_target=channel(TARGET))
    assert set(ours.parts) == {"DiceLoss", "CrossEntropyLoss"}


def test_monai_dice_ce_binary(monai):
    theirs = monai.DiceCELoss(sigmoid=True)
    ours = CompoundLoss(DiceLoss(S, balance=as_monai(False)), CrossEntropyLoss())
    assert_same(ours, theirs, BINARY, MASK)


# segmentation-models-pytorch: sums over the batch, all classes count, absent ones add 0


@pytest.fixture
def smp():
    return pytest.importorskip(
        "segmentation_models_pytorch.losses", reason="segmentation-models-pytorch is not installed"
    )


def as_smp(**options) -> Balance:
    return Balance(absent="zero", **options)


@pytest.mark.parametrize("target", [TARGET, ABSENT])
@pytest.mark.parametrize(
    ("name", "options", "index"),
    [
        ("DiceLoss", {}, Dice()),
        ("DiceLoss", {"smooth": 1.0}, Dice(2.0)),
        ("JaccardLoss", {"smooth": 1.0}, Jaccard(1.0)),
        ("TverskyLoss", {"alpha": 0.3, "beta": 0.7, "smooth": 0.5}, Tversky(0.3, 0.7, 0.5)),
        ("DiceLoss", {"log_loss": True}, lambda o: 1 + Dice()(o).log()),
        ("JaccardLoss", {"log_loss": True}, lambda o: 1 + Jaccard()(o).log()),
    ],
)
def test_smp_multiclass(smp, name, options, index, target):
    theirs = getattr(smp, name)("multiclass", **options)
    ours = RegionLoss(index, balance=as_smp(), include_background=True)
    assert_same(ours, theirs, target=target)


@pytest.mark.parametrize("name", ["DiceLoss", "JaccardLoss", "TverskyLoss"])
def test_smp_chosen_classes(smp, name):
    theirs = getattr(smp, name)("multiclass", classes=[1, 2])
    index = Jaccard() if name == "JaccardLoss" else Dice()
    ours = RegionLoss(index, balance=as_smp(weight=(0, 0.5, 0.5, 0), combine="sum"))
    assert_same(ours, theirs)


@pytest.mark.parametrize(
    "name", ["DiceLoss", pytest.param("JaccardLoss", marks=needs(*SMP_JACCARD)), "TverskyLoss"]
)
def test_smp_ignored_pixels(smp, name):
    theirs = getattr(smp, name)("multiclass", ignore_index=255)
    index = Jaccard() if name == "JaccardLoss" else Dice()
    ours = RegionLoss(index, balance=as_smp(), include_background=True, ignore_index=255)
    assert_same(ours, theirs, target=HOLES)


@pytest.mark.parametrize("is_empty", [False, True])
@pytest.mark.parametrize(
    ("name", "options", "ours"),
    [
        ("DiceLoss", {}, DiceLoss(balance=as_smp())),
        ("JaccardLoss", {}, RegionLoss(Jaccard(), balance=as_smp())),
        (
            "TverskyLoss",
            {"alpha": 0.3, "beta": 0.7, "gamma": 0.75},
            TverskyLoss(0.3, 0.7, gamma=0.75, balance=as_smp()),
        ),
    ],
)
def test_smp_binary(smp, name, options, ours, is_empty):
    theirs = getattr(smp, name)("binary", **options)
    if is_empty and "gamma" not in options:  # theirs has the slope of 0^0.75, NaN
        z = BINARY.clone().requires_grad_()
        assert ours(z, 0 * MASK) == theirs(z, 0 * MASK) == 0
    elif not is_empty:
        assert_same(ours, theirs, BINARY, MASK)


def test_smp_multilabel_is_one_call_a_channel(smp):
    labels = (torch.rand(LOGITS.shape, generator=RNG) < 0.2).double()
    dice = DiceLoss(balance=as_smp())

    def ours(z, y):
        return torch.stack([dice(z[:, k : k + 1], y[:, k : k + 1]) for k in range(C)]).mean()

    assert_same(ours, smp.DiceLoss("multilabel"), target=labels)


def test_smp_matthews_adds_its_eps_to_each_count(smp):
    def index(o: Overlap) -> Tensor:
        return Matthews(0.0)(Overlap(*(part + S for part in o)))

    def theirs(z, y):
        return smp.MCCLoss(S)(z.sigmoid(), y)

    assert_same(RegionLoss(index), theirs, BINARY, MASK)
    assert_same(RegionLoss(Matthews(0.0)), theirs, BINARY, MASK, atol=1e-6)


# kornia: images on their own, all classes that are present


@pytest.fixture
def kornia():
    return pytest.importorskip("kornia.losses", reason="kornia is not installed")


@pytest.mark.parametrize("target", [TARGET, torch.where(HOLES == 255, -100, HOLES)])
def test_kornia(kornia, target):
    balance = Balance(scope="image", absent="skip")
    shared = {"balance": balance, "include_background": True, "ignore_index": -100}
    macro = kornia.DiceLoss(average="macro", eps=0.0)
    assert_same(DiceLoss(**shared), macro, target=target)
    micro = kornia.DiceLoss(eps=0.0)
    assert_same(RegionLoss(GeneralizedDice(0, 0), **shared), micro, target=target)
    tversky = kornia.TverskyLoss(0.3, 0.7, eps=0.0)
    assert_same(TverskyLoss(0.3, 0.7, **shared), tversky, target=target)


# nnU-Net, whose file of losses needs the whole package: its formula


def nnunet_dice(logits: Tensor, target: Tensor, batch_dice: bool) -> Tensor:
    """MemoryEfficientSoftDiceLoss with do_bg=False and smooth=1e-5."""
    p = logits.softmax(1)[:, 1:]
    y = F.one_hot(target, C).movedim(-1, 1)[:, 1:]
    axes = (0, 2, 3) if batch_dice else (2, 3)
    hit, size, predicted = (part.sum(axes) for part in (p * y, y, p))
    return -((2 * hit + S) / (size + predicted + S).clamp(min=1e-8)).mean()


@pytest.mark.parametrize("batch_dice", [False, True])
def test_nnunet_dice_and_cross_entropy_is_ours_minus_one(batch_dice):
    def theirs(z, y):
        return nnunet_dice(z, y, batch_dice) + F.cross_entropy(z, y) + 1

    ours = CompoundLoss(DiceLoss(S, balance=as_monai(batch_dice)), CrossEntropyLoss())
    assert_same(ours, theirs, target=ABSENT)


# scikit-learn counts hard predictions: logits of +-1e4


def test_scores_of_hard_predictions():
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    guess = torch.randint(0, C, TARGET.shape, generator=RNG)
    z = 1e4 * F.one_hot(guess, C).movedim(-1, 1).double()
    flat = TARGET.flatten().numpy(), guess.flatten().numpy()

    def score(index) -> float:
        return 1 - RegionLoss(index, include_background=True)(z, TARGET).item()

    for index, expected in (
        (Dice(), metrics.f1_score(*flat, average="macro")),
        (Jaccard(), metrics.jaccard_score(*flat, average="macro")),
        (lambda o: o.tp / (o.tp + o.fn), metrics.balanced_accuracy_score(*flat)),
        (
            lambda o: 5 * o.tp / (5 * o.tp + 4 * o.fn + o.fp),
            metrics.fbeta_score(*flat, beta=2, average="macro"),
        ),
    ):
        assert score(index) == pytest.approx(expected, rel=1e-12)
    two = TARGET.clamp(max=1), guess.clamp(max=1)
    expected = metrics.matthews_corrcoef(*(part.flatten().numpy() for part in two))
    z = 1e4 * (2 * two[1].unsqueeze(1).double() - 1)
    assert 1 - RegionLoss(Matthews(0.0))(z, two[0]).item() == pytest.approx(expected, rel=1e-12)


# formulas of papers, one line each


@pytest.mark.parametrize(
    ("index", "formula"),
    [
        (lambda o: o.tp / (o.tp + o.fn) + o.tn / (o.tn + o.fp) - 1, "youden"),
        (lambda o: 1 - ((o.fp - o.fn) / (o.tp + o.fp + o.fn + o.tn)) ** 2, "size"),
        (lambda o: 1 - (-Dice()(o).log()) ** 0.3, "exponential logarithmic"),
    ],
)
def test_any_function_of_the_counts_is_an_index(index, formula):
    def theirs(z, y):
        p = z.softmax(1)
        of_class = []
        for k in range(1, C):
            q, is_k = p[:, k], y == k
            hit, size, n = q[is_k].sum(), is_k.sum(), y.numel()
            if formula == "youden":
                value = 2 - hit / size - (1 - q)[~is_k].sum() / (n - size)
            elif formula == "size":
                value = ((q.sum() - size) / n) ** 2
            else:
                value = (-(2 * hit / (q.sum() + size)).log()) ** 0.3
            of_class.append(value)
        return sum(of_class) / len(of_class)

    assert_same(RegionLoss(index), theirs)


@pytest.mark.parametrize("gamma", [0.75, 1.0, 2.0])
def test_focal_tversky_of_each_class(gamma):
    def theirs(z, y):
        p = z.softmax(1)
        of_class = []
        for k in range(1, C):
            tp, fp, fn = p[:, k][y == k].sum(), p[:, k][y != k].sum(), (1 - p[:, k])[y == k].sum()
            of_class.append((1 - tp / (tp + 0.3 * fp + 0.7 * fn)) ** gamma)
        return sum(of_class) / len(of_class)

    assert_same(TverskyLoss(0.3, 0.7, gamma=gamma), theirs)


def test_limits():
    """Tversky of 1/2 is Dice and of 1 is Jaccard; a mean of errors 1 - p is recall."""
    value = DiceLoss()(LOGITS, TARGET)
    torch.testing.assert_close(TverskyLoss(0.5, 0.5)(LOGITS, TARGET), value)
    jaccard = RegionLoss(Jaccard())(LOGITS, TARGET)
    torch.testing.assert_close(TverskyLoss(1.0, 1.0)(LOGITS, TARGET), jaccard)
    uniform = torch.zeros_like(LOGITS)
    share = [TARGET.eq(k).double().mean() for k in range(1, C)]
    expected = sum(1 - 2 * s / C / (s + 1 / C) for s in share) / 3
    torch.testing.assert_close(DiceLoss()(uniform, TARGET), expected)
    assert math.isclose(RegionLoss(Matthews())(uniform, TARGET), 1, rel_tol=1e-6)
