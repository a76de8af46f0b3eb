"""The tables "Same numbers" of docs/migration: both cells of each row are evaluated.

Their loss is our loss times the factor, in value and gradient, with the installed library.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dense_imb import losses

from .peers import MONAI_IGNORES, SMP_FOCAL, SMP_JACCARD, needs
from .test_region import BINARY, HOLES, LOGITS, MASK, SOFT, TARGET, WEIGHT, C

FOLDER = Path(__file__).parents[2] / "docs" / "migration"
LIBRARIES = {
    "index": ("torch.nn", "torchvision.ops"),
    "monai": ("monai.losses",),
    "smp": ("segmentation_models_pytorch.losses",),
    "kornia": ("kornia.losses",),
    "acb_mse": ("acb_mse",),
}
ROW = re.compile(
    r"^\| `(?P<theirs>[^`]+)`(?:, (?P<kind>binary|soft|values))? \| `(?P<ours>[^`]+)` \|"
    r"(?: (?P<factor>1|1/C|used|used/C) \|)?$",
    re.MULTILINE,
)
RNG = torch.Generator().manual_seed(1)
HOLES_OF_MASK = torch.where(torch.rand(MASK.shape, generator=RNG) < 0.3, 255.0, MASK)
# logits or values, the target, and the target with pixels to ignore
TENSORS = {
    None: (LOGITS, TARGET, HOLES),
    "binary": (BINARY, MASK, HOLES_OF_MASK),
    "soft": (LOGITS, SOFT, None),
    "values": (BINARY, MASK * torch.rand(MASK.shape, generator=RNG), None),
}


class Row(NamedTuple):
    """One row of a table: texts of both losses, what they are fed with, and the factor."""

    page: str
    theirs: str
    kind: str | None
    ours: str
    factor: str


def tables_of(page: str) -> str:
    """Return the tables of equal losses of a page, without their headers."""
    section = (FOLDER / f"{page}.md").read_text().split("## Same numbers")[1].split("\n## ")[0]
    return re.sub(r"^\| .*\n\| --- .*$", "", section, flags=re.MULTILINE)


def rows_of(page: str) -> list[Row]:
    return [
        Row(page, row["theirs"], row["kind"], row["ours"], row["factor"] or "1")
        for row in ROW.finditer(tables_of(page))
    ]


ROWS = [row for page in LIBRARIES for row in rows_of(page)]


def test_every_page_has_its_library():
    assert {path.stem for path in FOLDER.glob("*.md")} == {*LIBRARIES, "nnunet"}


@pytest.mark.parametrize("page", LIBRARIES)
def test_every_row_is_read(page):
    lines = [line for line in tables_of(page).splitlines() if line.startswith("|")]
    assert len(rows_of(page)) == len(lines) > 0


def marks_of(row: Row) -> pytest.MarkDecorator | tuple[()]:
    """Return the mark that skips a row with a peer that is too old for it."""
    ignores = "ignore_index" in row.theirs
    if row.page == "monai" and ignores:
        return needs(*MONAI_IGNORES)
    if row.page == "smp" and "FocalLoss" in row.theirs:
        return needs(*SMP_FOCAL)
    return needs(*SMP_JACCARD) if row.page == "smp" and ignores else ()


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=f"{row.page} {row.theirs}", marks=marks_of(row)) for row in ROWS],
)
def test_a_row_holds(row):
    modules = [pytest.importorskip(name) for name in LIBRARIES[row.page]]
    prediction, target, holes = TENSORS[row.kind]
    target = holes if "ignore_index" in row.ours else target
    names: dict[str, Any] = {
        "torch": torch,
        "t": target,
        "C": C,
        "w": torch.tensor(WEIGHT).double(),
    }
    if row.kind is None:
        names["n"] = torch.bincount(TARGET.flatten()).double()
        names["one_hot"] = F.one_hot(TARGET, C).movedim(-1, 1).double()
    used = (target != 255).double().mean()
    factor = {"1": 1.0, "1/C": 1 / C, "used": used, "used/C": used / C}[row.factor]

    theirs = {key: value for module in modules for key, value in vars(module).items()}
    their_target = target
    if row.page == "monai" and row.kind is None:
        their_target = target.unsqueeze(1)
    expected = evaluated(row.theirs, {**theirs, **names}, prediction, their_target)
    ours = {**vars(losses), **names, "monai": _monai()}
    value, gradient = evaluated(row.ours, ours, prediction, target)
    assert gradient.abs().sum() > 0
    atol = 1e-6 if "ocal" in row.theirs else 1e-8  # some focal losses compute in float32
    torch.testing.assert_close((value * factor, gradient * factor), expected, rtol=0, atol=atol)


def evaluated(
    text: str, names: dict[str, Any], prediction: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the value and the gradient of a cell: a loss, or a call that names `z`."""
    z = prediction.clone().requires_grad_()
    cell: Callable[[Tensor, Tensor], Tensor] | Tensor = eval(text, {**names, "z": z})
    value = cell if isinstance(cell, Tensor) else cell(z, target)
    (gradient,) = torch.autograd.grad(value, z)
    return value.detach().double(), gradient


def _monai() -> Any:
    try:
        importlib.import_module("monai.losses")
    except ImportError:  # no row of this library is tested then
        return None
    return importlib.import_module("monai")


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
