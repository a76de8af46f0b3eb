"""The rows of docs/region_losses.md: both cells are evaluated, and give one value and gradient."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import torch

from dense_imb import losses

from .peers import MONAI_IGNORES, needs
from .test_region import BINARY, HOLES, LOGITS, MASK, TARGET, assert_same

PAGE = (Path(__file__).parents[2] / "docs" / "region_losses.md").read_text()
LIBRARIES = {
    "MONAI": "monai.losses",
    "segmentation-models-pytorch": "segmentation_models_pytorch.losses",
    "kornia": "kornia.losses",
}
ROW = re.compile(r"^\| (\S+) `([^`]+)`(, binary)? \| `([^`]+)` \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE.split("## Coming from another library")[1].split("These are tested")[0])


def test_every_row_is_read():
    table = PAGE.split("## Coming from another library")[1].split("These are tested")[0]
    assert len(ROWS) == sum(line.startswith("| ") for line in table.splitlines()) - 2
    assert {library for library, *_ in ROWS} == set(LIBRARIES)


@pytest.mark.parametrize(
    ("library", "theirs", "is_binary", "ours"),
    [
        pytest.param(
            *row,
            id=f"{row[0]} {row[1]}",
            marks=needs(*MONAI_IGNORES) if row[0] == "MONAI" and "ignore_index" in row[1] else (),
        )
        for row in ROWS
    ],
)
def test_a_row_holds(library, theirs, is_binary, ours):
    pytest.importorskip(LIBRARIES[library], reason=f"{library} is not installed")
    their_loss = eval(theirs, vars(importlib.import_module(LIBRARIES[library])))
    our_loss = eval(ours, vars(losses))
    logits, target = (BINARY, MASK) if is_binary else (LOGITS, TARGET)
    if "ignore_index" in ours:
        target = HOLES
    their_target = target
    if library == "MONAI" and not is_binary:
        their_target = target.unsqueeze(1)
    atol = 1e-6 if "Focal" in theirs else 1e-8  # MONAI's focal loss computes in float32
    assert_same(our_loss, their_loss, logits, target, their_target, atol=atol)


def test_a_balanced_sum_keeps_the_gradient_of_the_rare_class():
    """Of one foreground pixel in 10,000: half with Dice, which a plain cross-entropy takes away."""
    y = torch.zeros(1, 100, 100).long()
    y[0, 0, 0] = 1
    shares = []
    for part in (
        None,
        losses.CrossEntropyLoss(),
        losses.CrossEntropyLoss(balance=losses.Balance()),
    ):
        loss = losses.DiceLoss() if part is None else losses.CompoundLoss(losses.DiceLoss(), part)
        z = torch.full((1, 1, 100, 100), -2.0, dtype=torch.float64, requires_grad=True)
        loss(z, y).backward()
        shares.append(float(z.grad[0, 0, 0, 0].abs() / z.grad.abs().sum()))
    assert shares[0] == pytest.approx(0.5, rel=1e-3)
    assert shares[1] < 0.01
    assert shares[2] > 0.5
