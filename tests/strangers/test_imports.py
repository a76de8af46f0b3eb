"""Packages are imported from where they are installed, never from the folder of a stranger."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dense_imb
from dense_imb.base.imports import import_installed, installed_only, without_current_folder
from dense_imb.losses.foreign.parse import LOSS_MODULES, parse_loss
from dense_imb.tasks.recipe import build_loss

TRAP = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with files called like packages."""
    for name in ("evil_package", "docstring_parser", "yaml", "torch", "kornia", "timm"):
        (tmp_path / f"{name}.py").write_text(TRAP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("entry", ["", ".", "HERE"])
def test_the_current_folder_is_not_searched(here, monkeypatch, entry):
    monkeypatch.syspath_prepend(str(here) if entry == "HERE" else entry)
    searched = list(sys.path)
    with pytest.raises(ModuleNotFoundError):
        import_installed("evil_package")
    with installed_only(), pytest.raises(ModuleNotFoundError):
        __import__("evil_package")
    assert sys.path == searched
    assert not (here / "ran").exists()


def test_a_checkout_in_the_current_folder_is_searched(monkeypatch):
    home = Path(dense_imb.__file__).parents[1]
    monkeypatch.chdir(home)
    assert without_current_folder(["", str(home), "a"]) == ["", str(home), "a"]


def test_the_command_runs_no_file_of_the_current_folder(here):
    done = subprocess.run(
        [sys.executable, "-m", "dense_imb", "losses"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(dense_imb.__file__).parents[1])},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "FocalLoss" in done.stdout
    assert not (here / "ran").exists()


REFUSED = {
    "monai.networks.nets:UNet(2, 1, 1, (4, 8), (2,))": "a loss of dense_imb, torch.nn",
    "torch.nn:Linear(100000, 100000)": "a loss of dense_imb, torch.nn",
    "torch.hub:Anything": "a loss of dense_imb, torch.nn",
    "torch.utils.bottleneck.__main__:X": "a loss of dense_imb, torch.nn",
    "segmentation_models_pytorch:Unet(encoder_weights='imagenet')": "a loss of dense_imb",
    "kornia.feature:LoFTR('outdoor')": "a loss of dense_imb",
    "torchvision.ops:MLP(10, [10])": "a loss of dense_imb",
    "dense_imb.models:FastUNet(1, 1)": "a loss of dense_imb",
    "monai.losses:PerceptualLoss(2, 'alex')": "loads a network",
    "monai.losses.perceptual:TorchvisionModelPerceptualSimilarity('resnet50')": "loads a network",
    "monai.losses2:Loss": "a loss of dense_imb",
    "evil_package:Loss": "add `allow_import=evil_package` if you trust it",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_loss_of_a_file_is_one_of_the_listed_modules(here, text, monkeypatch):
    monkeypatch.syspath_prepend("")
    with pytest.raises(ValueError, match=REFUSED[text]):
        build_loss(text, (1, 1))
    assert not (here / "ran").exists()


def test_a_permission_opens_the_rest_of_a_library():
    text = "torch.nn:Softplus()"
    with pytest.raises(ValueError, match="add `allow_import=torch`"):
        parse_loss(text, packages=tuple(LOSS_MODULES))
    assert type(parse_loss(text, packages=(*LOSS_MODULES, "torch"))).__name__ == "Softplus"
    assert type(parse_loss(text)).__name__ == "Softplus"  # typed in Python, by the user
