"""A loss that fails is a row that says why; Modules and packages of the user compete too."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dense_imb.compare import ComparisonTable, Contestant, compare
from dense_imb.compare.contestants import PLAIN
from dense_imb.config import TrainConfig
from dense_imb.engine import Interrupted
from tests.runs.pictures import tiny_images, write_folders


class Mine(nn.Module):
    """A loss of the user's that may raise, become NaN, or work.

    Args:
        ends: "raise", "nan" or "work".
        after: calls that work.
    """

    feeds_on = "logits"
    target_form = "binary"

    def __init__(self, ends: str = "work", after: int = 0) -> None:
        super().__init__()
        self.ends, self.left = ends, after

    def forward(self, logits, target):
        cost = nn.functional.binary_cross_entropy_with_logits(logits, target)
        self.left -= 1
        if self.left < 0 and self.ends == "raise":
            raise RuntimeError("the kernel\nis missing.")
        return cost * math.nan if self.left < 0 and self.ends == "nan" else cost


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    folders = write_folders(tmp_path_factory.mktemp("pictures"), n=12)
    return tiny_images(folders, images={"test_share": 0.25})


def quiet(config: TrainConfig, folder, losses, **options):
    lines: list[str] = []
    options = {"n_seeds": 2, "steps": 4, "say": lines.append, **options}
    return compare(config, folder, losses=losses, is_quiet=True, **options), lines


@pytest.mark.parametrize(
    ("loss", "why"),
    [(Mine("raise", 3), "RuntimeError: the kernel is missing (seed 0)"),
     (Mine("nan", 3), "Expected a finite loss, got nan in step ")],
    ids=str,
)  # fmt: skip
def test_a_loss_that_fails_in_a_step_is_a_row(config, tmp_path, loss, why):
    losses = [Contestant("mine", loss), Contestant(PLAIN, "CrossEntropyLoss"), "focal"]
    table, lines = quiet(config, tmp_path / "out", losses)
    assert {row["loss"] for row in table.rows} == {"mine", PLAIN, "focal"}
    assert table.rows[-1]["loss"] == "mine"
    assert why in str(table.rows[-1]["failed"])
    assert [row["n_seeds"] for row in table.rows] == [2, 2, 0]
    assert any(line.startswith("mine fails: ") for line in lines)
    text = table.text()
    assert f"mine fails: {table.rows[-1]['failed']}." in text
    assert "mine" not in table.advice()
    stored = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert stored["rows"][-1]["failed"] == table.rows[-1]["failed"]
    assert stored["rows"][-1]["average_precision"] is None


def test_a_loss_that_cannot_be_built_is_a_row(config, tmp_path, monkeypatch):
    """A library that is missing ends no comparison by default."""
    monkeypatch.setitem(sys.modules, "monai.losses", None)
    monkeypatch.setattr(
        "dense_imb.compare.images.contestants",
        lambda *_, **__: [Contestant(PLAIN, "CrossEntropyLoss"), Contestant("Dice", "Dice")],
    )
    table, _ = quiet(config, tmp_path / "out", None, n_seeds=1)
    assert [row["loss"] for row in table.rows] == [PLAIN, "Dice"]
    assert "monai" in str(table.rows[1]["failed"])
    assert f"{PLAIN} is the only loss that does not fail" in table.advice()


def test_a_loss_of_the_user_that_cannot_be_built_is_a_row(config, tmp_path, monkeypatch):
    (tmp_path / "own_package.py").write_text(
        "from torch import nn\nclass Broken(nn.Module):\n"
        "    def __init__(self):\n        raise OSError('no weights')\n"
    )
    monkeypatch.chdir(tmp_path)
    typed = [PLAIN, "own_package:Broken"]
    with pytest.raises(ValueError, match="allow_import=own_package"):
        quiet(config, tmp_path / "out", typed)
    config = TrainConfig(**{**vars(config), "allow_import": ["own_package"]})
    table, _ = quiet(config, tmp_path / "out", typed, n_seeds=1)
    assert "no weights" in str(table.rows[1]["failed"])
    sys.modules.pop("own_package", None)


def test_a_comparison_of_losses_that_all_fail_says_why(config, tmp_path):
    losses = [Contestant("a", Mine("raise")), Contestant("b", Mine("nan"))]
    with pytest.raises(ValueError, match="a loss that trains, got none; a: RuntimeError"):
        quiet(config, tmp_path / "out", losses)


def test_a_failed_loss_is_tried_again(config, tmp_path):
    broken, mended = ([PLAIN, Contestant("mine", Mine("raise", n))] for n in (2, 99))
    table, _ = quiet(config, tmp_path / "out", broken, n_seeds=1)
    assert table.rows[-1]["failed"]
    table, _ = quiet(config, tmp_path / "out", mended, n_seeds=1)
    assert [row["failed"] for row in table.rows] == ["", ""]


@pytest.mark.parametrize("problem", [Interrupted(15, 3), OSError(28, "disk full")])
def test_a_stop_and_a_full_disk_are_no_failures_of_a_loss(config, tmp_path, monkeypatch, problem):
    def stop(*_, **__):
        raise problem

    monkeypatch.setattr("dense_imb.compare.run.train", stop)
    with pytest.raises(type(problem)):
        quiet(config, tmp_path / "out", [PLAIN, "focal"])


def test_a_module_competes_with_a_copy_for_each_run(config, tmp_path):
    loss = Mine()
    table, _ = quiet(config, tmp_path / "out", [PLAIN, Contestant("mine", loss)], steps=2)
    assert loss.left == 0  # it was copied
    row = next(row for row in table.rows if row["loss"] == "mine")
    assert row["n_seeds"] == 2
    assert table.losses["mine"] == "tests.compare.test_failures:Mine()"
    with pytest.raises(TypeError, match=r"a torch\.nn\.Module"):
        quiet(config, tmp_path / "other", [PLAIN, Contestant("x", torch.ones(1))])


def test_the_advice_of_a_module_is_python():
    losses = [Contestant("a", Mine()), Contestant("b", "FocalLoss")]
    runs = [{"loss": n, "seed": s, "ap": v + s / 100, "cpu_seconds": 1.0}
            for n, v in (("a", 0.9), ("b", 0.1)) for s in range(2)]  # fmt: skip
    table = ComparisonTable.from_runs(runs, ["ap"], losses, 10, folder="x", kind="images")
    assert "pass it in Python, train(Recipe.of(config, loss=loss), folder)" in table.advice()


@pytest.mark.filterwarnings("ignore::dense_imb.tasks.images.recipe.PatchWarning")
def test_an_image_below_the_crop_ends_no_comparison(tmp_path):
    """Dice ignores no pixel: crops of small images repeat their outermost pixels and labels."""
    images, masks = write_folders(tmp_path / "large", 6, (48, 48))
    small = write_folders(tmp_path / "small", 6, (20, 48), seed=1)
    for folder, other in zip((images, masks), small, strict=True):
        for path in Path(other).iterdir():
            shutil.copy(path, Path(folder) / f"small_{path.name}")
    config = tiny_images((images, masks), images={"test_share": 0.25})
    losses = [PLAIN, "Dice", "balanced softmax + Dice"]
    table, _ = quiet(config, tmp_path / "out", losses, n_seeds=1)
    assert [row["failed"] for row in table.rows] == ["", "", ""]


def test_a_loss_that_ignores_no_pixel_is_a_row_where_masks_ignore_some(tmp_path):
    folders = write_folders(tmp_path, 12, (40, 48), 3, values=(0, 255, 7))
    config = tiny_images(
        folders, images={"test_share": 0.25, "labels": [0, 255], "ignore_index": 7}
    )
    table, _ = quiet(config, tmp_path / "out", [PLAIN, "Dice"], n_seeds=1)
    assert [row["loss"] for row in table.rows] == [PLAIN, "Dice"]
    assert "`DiceLoss` can ignore no pixel" in str(table.rows[1]["failed"])
