"""Losses in nnU-Net's form, the folder of its trainers and the command; nnU-Net isn't needed."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dense_imb.cli import main
from dense_imb.data.images.instances import label_instances, nearest_instance
from dense_imb.integrations import nnunet
from dense_imb.integrations.nnunet.losses import LabelsLoss, RegionsLoss
from dense_imb.losses import Balance, CompoundLoss, CrossEntropyLoss, DiceLoss, HardMiningLoss
from dense_imb.losses.core.module import Loss

pytest.importorskip("scipy", reason="the components of labels need SciPy")

RNG = torch.Generator().manual_seed(0)
C, IGNORED = 3, 3
LOGITS = torch.randn(2, C, 8, 9, generator=RNG)
LABEL = torch.randint(0, C, (2, 1, 8, 9), generator=RNG)
HOLES = LABEL.clone()
HOLES[:, :, :2] = IGNORED
REGIONS = torch.stack([LABEL[:, 0] > 0, LABEL[:, 0] == 2], 1)  # (B, 2, H, W)
IS_IGNORED = HOLES == IGNORED


class NegativeDice(nn.Module):
    """Has the call of nnU-Net's Dice; the mean logit where the mask is set."""

    def forward(self, logits: Tensor, target: Tensor, loss_mask: Tensor | None = None) -> Tensor:
        assert int(target.max()) < C
        return -(logits if loss_mask is None else logits * loss_mask).mean()


def losses(ignore_index: int | None = None) -> list[tuple[Loss, str | None]]:
    per_object = DiceLoss(per="instance", ignore_index=ignore_index)
    by_object = CompoundLoss(per_object, CrossEntropyLoss(ignore_index=ignore_index))
    return [
        (CrossEntropyLoss(balance=Balance(), ignore_index=ignore_index), None),
        (HardMiningLoss(balance=Balance(), ignore_index=ignore_index), None),
        (by_object, "components"),
        (by_object, "nearest"),
    ]


def map_of(label: Tensor, kind: str | None, ignore_index: int | None = None) -> dict[str, Tensor]:
    if kind is None:
        return {}
    maps = [label_instances(one, ignore_index) for one in label.numpy()]
    maps = [nearest_instance(one) for one in maps] if kind == "nearest" else maps
    return {"instance": torch.from_numpy(np.stack(maps))}


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("target", [LABEL, HOLES, HOLES.short(), HOLES.float()])
def test_a_loss_of_labels_is_dice_and_ours(case, target):
    ignored = IGNORED if target is not LABEL else None
    loss, kind = losses(ignored)[case]
    ours = loss(LOGITS, target.long(), **map_of(target[:, 0].long(), kind, ignored))
    dice = NegativeDice()(LOGITS, LABEL, None if ignored is None else ~IS_IGNORED)
    value = LabelsLoss(loss, NegativeDice(), instances=kind, ignore_label=ignored)(LOGITS, target)
    torch.testing.assert_close(value, ours + dice)
    value = LabelsLoss(loss, instances=kind, ignore_label=ignored)(LOGITS, target)
    torch.testing.assert_close(value, ours)


@pytest.mark.parametrize("case", range(4))
def test_a_loss_of_regions_is_the_mean_of_binary_losses(case):
    loss, kind = losses()[case]
    z = LOGITS[:, :2]
    parts = [
        loss(z[:, k : k + 1], REGIONS[:, k].long(), **map_of(REGIONS[:, k].long(), kind))
        for k in range(2)
    ]
    value = RegionsLoss(loss, NegativeDice(), instances=kind)(z, REGIONS)
    torch.testing.assert_close(value, sum(parts) / 2 + NegativeDice()(z, REGIONS))


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("has_regions", [False, True])
def test_ignored_pixels_have_no_gradient(case, has_regions):
    loss, kind = losses(None if has_regions else IGNORED)[case]
    ours, target, n = (
        LabelsLoss(loss, NegativeDice(), instances=kind, ignore_label=IGNORED),
        HOLES,
        C,
    )
    if has_regions:
        ours = RegionsLoss(loss, NegativeDice(), instances=kind, is_last_ignored=True)
        target, n = torch.cat([REGIONS & ~IS_IGNORED, IS_IGNORED], 1), 2
    z = LOGITS[:, :n].clone().requires_grad_()
    ours(z, target).backward()
    at_ignored = IS_IGNORED.expand(-1, n, -1, -1)
    assert not z.grad[at_ignored].any()
    assert (z.grad[~at_ignored] != 0).any()


@pytest.mark.parametrize("case", range(4))
def test_a_patch_that_is_ignored_trains_nothing(case):
    loss, kind = losses(IGNORED)[case]
    z = LOGITS.clone().requires_grad_()
    value = LabelsLoss(loss, instances=kind, ignore_label=IGNORED)(z, torch.full_like(LABEL, 3))
    value.backward()  # in DDP each process calls backward
    assert value == 0
    assert not z.grad.any()


def test_the_folder_holds_each_trainer():
    (file,) = nnunet.trainers_folder().glob("*.py")
    names = {
        alias.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert names == set(nnunet.TRAINERS)


@pytest.fixture
def installed(monkeypatch):
    """Set the installed version of nnunetv2."""

    def use(version: str | None) -> None:
        def found(name: str) -> str:
            if version is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return version

        monkeypatch.setattr(nnunet, "version", found)

    return use


def test_the_command_prints_the_folder_alone(installed, capsys):
    installed("2.8.1")
    assert main(["nnunet-path"]) == 0
    assert capsys.readouterr().out == f"{nnunet.trainers_folder()}\n"
    assert nnunet.trainers_folder().is_dir()


def test_the_command_lists_the_trainers(installed, capsys):
    installed(None)
    assert main(["nnunet-path", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(nnunet.TRAINERS)


@pytest.mark.parametrize(
    ("version", "got"), [(None, "none"), ("2.6.4", "2.6.4"), ("1.7.1", "1.7.1")]
)
def test_no_nnunet_or_an_old_one_is_one_sentence(version, got, installed, capsys):
    installed(version)
    assert main(["nnunet-path"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "dense-imb nnunet-path: error: Expected nnunetv2 2.8 or newer in the environment of "
        f'dense_imb, got {got}; pip install "dense-imb[nnunet]".\n'
    )


@pytest.mark.parametrize("version", ["2.8.0", "2.10.1", "3.0.0rc1"])
def test_newer_ones_are_taken(version, installed):
    installed(version)
    nnunet.check_nnunet()


@pytest.mark.skipif(importlib.util.find_spec("nnunetv2") is not None, reason="nnunetv2 is there")
def test_trainers_without_nnunet_are_one_sentence():
    with pytest.raises(ImportError, match=r'got none; pip install "dense-imb\[nnunet\]"'):
        importlib.import_module("dense_imb.integrations.nnunet.trainers")


def test_the_command_imports_nothing_heavy():
    code = (
        "import sys; from dense_imb.integrations.nnunet import trainers_folder; trainers_folder(); "
        "assert not {'torch', 'numpy', 'nnunetv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
