"""A user's own loss: imported with a permission that is typed, never with one from a file."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from dense_imb.cli import main
from dense_imb.config import SecondConfig, UnlabelledConfig
from dense_imb.losses import RangeLoss
from dense_imb.losses.foreign import parse
from dense_imb.losses.foreign.parse import parse_loss
from dense_imb.runs import Recipe, open_run, train
from dense_imb.runs.read import read_config
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import tiny

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")

SOURCE = """
import torch
from torch import nn

class Mine(nn.Module):
    feeds_on = "logits"
    target_form = "binary"

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def forward(self, logits, target):
        return self.scale * nn.functional.binary_cross_entropy_with_logits(logits, target)
"""
LOSS = "own_losses:Mine(scale=2.0)"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    return write_folders(tmp_path / "pictures", 6, (32, 32))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module of the user's in the current folder."""
    (tmp_path / "own_losses.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path / "own_losses.py"
    sys.modules.pop("own_losses", None)


def words(folders: tuple[str, str], *more: str) -> list[str]:
    return ["train", "images", "--out", "run", "--images.train", folders[0], "--images.masks",
            folders[1], "--steps", "2", "--quiet", "--report", "false", "--batch-size", "2",
            "--loss", LOSS, *more]  # fmt: skip


def test_an_own_loss_trains_with_a_permission_and_not_without(folders, module, capsys):
    assert main(words(folders)) == 2
    error = capsys.readouterr().err
    assert "add --allow-import own_losses if you trust it" in error
    assert "own_losses" not in sys.modules
    assert main(words(folders, "--allow-import", "own_losses")) == 0
    stored = yaml.safe_load(Path("run/config.yaml").read_text())
    assert stored["loss"] == LOSS
    assert stored["allow_import"] == ["own_losses"]


def test_a_file_gives_no_permission(folders, module, capsys):
    assert main(words(folders, "--allow-import", "own_losses")) == 0
    del sys.modules["own_losses"]
    module.write_text("raise RuntimeError('imported')\n")
    assert read_config(Path("run/config.yaml")).allow_import == []
    for more in (["--resume"], ["--config", "run/config.yaml"]):
        out = "run" if more == ["--resume"] else "other"
        capsys.readouterr()
        assert main(["train", "images", "--out", out, *more, "--quiet"]) == 2
        assert "add --allow-import own_losses" in capsys.readouterr().err
    assert "own_losses" not in sys.modules


def test_a_run_resumes_with_the_same_permission(folders, module):
    assert main(words(folders, "--allow-import", "own_losses")) == 0
    resume = ["train", "images", "--out", "run", "--resume", "--quiet"]
    assert main([*resume, "--allow-import", "own_losses"]) == 0


def test_a_run_is_used_without_its_loss(folders, module, tmp_path):
    assert main(words(folders, "--allow-import", "own_losses")) == 0
    del sys.modules["own_losses"]
    module.unlink()
    assert open_run("run").trained(device="cpu").reading.is_logit
    assert main(["segment", "run", folders[0], str(tmp_path / "out"), "--quiet"]) == 0
    assert main(["evaluate", "run", folders[0], "--masks", folders[1], "--quiet"]) == 0
    assert "own_losses" not in sys.modules


def test_every_loss_of_a_configuration_needs_the_permission(folders, module):
    plain = tiny_images(folders)
    hits = tiny("nowhere.h5", hits={"output": "both"})
    changed = [
        replace(plain, loss=f"FocalLoss + {LOSS}"),
        replace(plain, feature_loss="own_losses:Mine"),
        replace(plain, second=SecondConfig(2, LOSS)),
        replace(plain, unlabelled=UnlabelledConfig(train=folders[0], loss=LOSS)),
        replace(hits, hits=replace(hits.hits, value_loss=LOSS)),
    ]
    for config in changed:
        with pytest.raises(ValueError, match="`allow_import=own_losses`"):
            Recipe.of(config)
    assert "own_losses" not in sys.modules
    Recipe.of(replace(changed[0], allow_import=["own_losses"]))
    Recipe.of(replace(changed[2], allow_import=["own_losses"]))


@pytest.mark.parametrize("name", ["own_losses.py", "a/b", "own_losses.inner", "", "*"])
def test_a_permission_names_a_package(folders, name):
    with pytest.raises(ValueError, match="a package in `allow_import`"):
        Recipe.of(tiny_images(folders, allow_import=[name]))


@pytest.mark.parametrize("is_installed", [False, True])
@pytest.mark.parametrize("is_searched", [False, True])
def test_a_file_called_like_a_library_is_not_that_library(
    tmp_path, monkeypatch, is_searched, is_installed
):
    """Libraries are imported from where they are installed, not from the current folder."""
    monkeypatch.setattr(parse, "LIBRARIES", ("known_library",))
    here, installed = tmp_path / "here", tmp_path / "installed"
    for folder, source in ((here, "raise RuntimeError('ran')"), (installed, SOURCE)):
        folder.mkdir()
        (folder / "known_library.py").write_text(source)
    monkeypatch.chdir(here)
    if is_installed:
        monkeypatch.syspath_prepend(str(installed))
    if is_searched:  # as by python -m dense_imb
        monkeypatch.syspath_prepend("")
    try:
        if is_installed:
            assert type(parse_loss("known_library:Mine")).__name__ == "Mine"
        else:
            with pytest.raises(ValueError, match="No module named 'known_library'"):
                parse_loss("known_library:Mine")
    finally:
        sys.modules.pop("known_library", None)


@pytest.mark.parametrize("name", ["PerceptualLoss", "perceptual:RadImageNetPerceptualSimilarity"])
def test_a_loss_that_loads_networks_is_not_built_from_text(folders, name):
    """Its options name a folder, whose code it would run."""
    path = name if ":" in name else f":{name}"
    loss = f"monai.losses{'.' if ':' in name else ''}{path}(cache_dir='hub')"
    with pytest.raises(ValueError, match="loads a network, which may run code"):
        Recipe.of(tiny_images(folders, loss=loss))


def test_a_module_is_the_loss_of_both_stages(folders):
    loss = torch.nn.BCEWithLogitsLoss(reduction="sum")
    config = tiny_images(folders, second=SecondConfig(2))
    recipe = Recipe.of(config, loss=loss)
    for stage in (recipe, recipe.second):
        built = stage.loss((1, 1))
        assert built.reduction == "sum"
        assert built is not loss
    own = Recipe.of(replace(config, second=SecondConfig(2, "FocalLoss")), loss=loss)
    assert type(own.second.loss((1, 1))).__name__ == "FocalLoss"
    with pytest.raises(ValueError, match="a loss of features"):
        Recipe.of(config, loss=RangeLoss(8))


def test_python_trains_with_a_permission_in_the_configuration(folders, module, tmp_path):
    config = tiny_images(folders, loss=LOSS, allow_import=["own_losses"], steps=2, validate_every=2)
    run = train(config, tmp_path / "run", is_quiet=True)
    assert run.metrics["is_finished"]
