"""nnU-Net finds our trainers, and trains and predicts with them by its own commands."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dense_imb.integrations.nnunet import TRAINERS, trainers_folder
from dense_imb.losses import CrossEntropyLoss, FocalLoss
from tests.integrations.nnunet_folder import LABELS, REGIONS, ROOT, Workplace
from tests.limits import HANG_SECONDS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its own imports
    pytest.importorskip(
        "nnunetv2",
        reason="nnU-Net is no part of the tests' packages: slow to import, and 400 MB; "
        'pip install "dense-imb[nnunet]" runs these',
        exc_type=ImportError,
    )
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from dense_imb.integrations.nnunet import trainers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of nnU-Net's own code
]
RNG = torch.Generator().manual_seed(0)
LOGITS = [torch.randn(2, 3, side, side, generator=RNG) for side in (16, 8, 4)]
TARGETS = [torch.randint(0, 3, (2, 1, side, side), generator=RNG) for side in (16, 8, 4)]
KINDS = ("labels", "labels with ignored", "regions", "regions with ignored")


class PlainTrainer(trainers.WithLoss, nnUNetTrainer):
    """nnU-Net's own loss, with our plain cross-entropy."""

    def make_loss(self, scope, ignore_index):
        return CrossEntropyLoss(ignore_index=ignore_index)


def trainer_of(kind: type, data: str, *, is_deep: bool, batch_dice: bool) -> nnUNetTrainer:
    """Make a trainer that has what `_build_loss` reads."""
    trainer = object.__new__(kind)
    trainer.label_manager = SimpleNamespace(
        has_regions="regions" in data, ignore_label=3 if "ignored" in data else None
    )
    trainer.configuration_manager = SimpleNamespace(batch_dice=batch_dice)
    trainer.is_ddp, trainer.enable_deep_supervision = False, is_deep
    trainer.device = torch.device("cpu")
    trainer._get_deep_supervision_scales = lambda: [[1, 1], [0.5, 0.5], [0.25, 0.25]]
    trainer.logged = []
    trainer.print_to_log_file = trainer.logged.append
    return trainer


def batch_of(data: str, *, is_deep: bool):
    """Make logits and targets as nnU-Net's loader does."""
    logits, targets = [z.clone().requires_grad_() for z in LOGITS], []
    for target in TARGETS:
        hole = torch.zeros_like(target, dtype=torch.bool)
        if "ignored" in data:
            hole[:, :, :2] = True
        if "regions" in data:
            target = torch.cat([target > 0, target == 2, target == 1], 1) & ~hole
            target = torch.cat([target, hole], 1) if "ignored" in data else target
        else:
            target = torch.where(hole, 3, target).short()
        targets.append(target)
    return (logits, targets) if is_deep else (logits[0], targets[0])


@pytest.mark.parametrize("data", KINDS)
@pytest.mark.parametrize("is_deep", [False, True])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_with_a_plain_cross_entropy_it_is_nnunets_own_loss(data, is_deep, batch_dice):
    values, gradients = [], []
    for kind in (nnUNetTrainer, PlainTrainer):
        loss = trainer_of(kind, data, is_deep=is_deep, batch_dice=batch_dice)._build_loss()
        if kind is nnUNetTrainer and data == "regions with ignored":
            # its cross-entropy is a sum over the three regions there, and a mean without ignored
            (loss.loss if is_deep else loss).weight_ce = 1 / 3
        logits, targets = batch_of(data, is_deep=is_deep)
        value = loss(logits, targets)
        value.backward()
        values.append(value.detach())
        gradients.append((logits[0] if is_deep else logits).grad)
    torch.testing.assert_close(values[1], values[0])
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("name", TRAINERS)
@pytest.mark.parametrize("data", KINDS)
@pytest.mark.parametrize("is_deep", [False, True])
def test_each_trainer_has_a_loss_that_trains(name, data, is_deep):
    trainer = trainer_of(getattr(trainers, name), data, is_deep=is_deep, batch_dice=True)
    loss = trainer._build_loss()
    logits, targets = batch_of(data, is_deep=is_deep)
    value = loss(logits, targets)
    value.backward()
    assert value.isfinite()
    first = logits[0] if is_deep else logits
    assert first.grad.abs().sum() > 0
    assert trainer.logged[0].startswith("Loss of dense_imb: ")


@pytest.mark.parametrize("name", TRAINERS)
def test_nnunet_finds_it(name, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", str(trainers_folder()))
    found = recursive_find_trainer_class_by_name(name)
    assert found is getattr(importlib.import_module(trainers.__name__), name)


def test_nnunet_finds_the_trainers_of_the_documentation(tmp_path, monkeypatch):
    page = (ROOT / "docs" / "nnunet.md").read_text()
    (example,) = re.findall(r"```py\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "mine.py").write_text(example)
    folders = os.pathsep.join([str(trainers_folder()), str(tmp_path)])
    monkeypatch.setenv("nnUNet_extTrainer", folders)
    found = recursive_find_trainer_class_by_name("nnUNetTrainerBlobLoss_250epochs")
    assert [kind.__name__ for kind in found.__mro__[1:5]] == [
        "nnUNetTrainerBlobLoss", "WithLoss", "nnUNetTrainer_250epochs", "nnUNetTrainer"
    ]  # fmt: skip
    focal = recursive_find_trainer_class_by_name("nnUNetTrainerDiceFocalLoss")
    loss = trainer_of(focal, "labels", is_deep=False, batch_dice=True)._build_loss()
    assert isinstance(loss.loss, FocalLoss)


def test_another_loss_of_nnunet_is_one_sentence(monkeypatch):
    monkeypatch.setattr(nnUNetTrainer, "_build_loss", lambda self: nn.Identity())
    trainer = trainer_of(PlainTrainer, "labels", is_deep=False, batch_dice=True)
    with pytest.raises(TypeError, match=r"got Identity; the trainers are made for nnunetv2 2\.8\."):
        trainer._build_loss()


def test_two_processes_have_the_gradient_of_one():
    script = str(Path(__file__).with_name("nnunet_pair.py"))
    words = ["-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [sys.executable, *words, script], capture_output=True, text=True, timeout=HANG_SECONDS
    )
    assert done.returncode == 0, done.stderr[-4000:]


# by nnU-Net's own commands


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Workplace(tmp_path_factory.mktemp("nnunet"))
    place.prepare(1, LABELS)
    place.prepare(2, REGIONS)
    return place


@pytest.mark.parametrize(
    ("number", "loss"), [(1, "DiceBalancedCE"), (1, "DiceHardMining"), (1, "Blob"), (2, "CC")]
)
def test_two_epochs(place, number, loss):
    trainer = f"Short_nnUNetTrainer{loss}Loss"
    log = place.train(number, trainer)
    assert f"Using trainer '{trainer}'" in log
    assert log.count("Loss of dense_imb: ") == 1
    losses = [float(value) for value in re.findall(r"(?:train|val)_loss (\S+)", log)]
    assert len(losses) == 4
    assert np.isfinite(losses).all()
    assert losses[2] < losses[0]  # of the second epoch
    assert "Mean Validation Dice:" in log
    if loss in ("DiceBalancedCE", "CC"):
        predicted = place.predict(number, trainer)
        with Image.open(predicted / "new.png") as image:
            assert set(np.unique(image)) <= {0, 1, 2}
