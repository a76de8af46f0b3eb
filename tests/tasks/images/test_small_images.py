"""Images smaller than the crop train with every loss, also one that can ignore no pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dense_imb.data.epochs.patches import draw_patch, patch_rng
from dense_imb.data.images.labelled import IGNORED
from dense_imb.losses.foreign.feeding import can_ignore
from dense_imb.losses.foreign.parse import parse_loss
from dense_imb.runs import train
from dense_imb.tasks.images.recipe import PatchWarning
from dense_imb.tasks.recipe import build_task
from tests.runs.pictures import tiny_images, write_folders

DICE = "monai.losses:DiceLoss(sigmoid=True)"
SMP = "segmentation_models_pytorch.losses:DiceLoss(mode='binary')"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Eleven images of 48 x 48 pixels and one of 20 x 48."""
    root = tmp_path_factory.mktemp("sizes")
    images, masks = write_folders(root, 12, (48, 48), values=(0, 255))
    for folder in (images, masks):
        path = Path(folder) / "003.png"
        Image.fromarray(np.asarray(Image.open(path))[:20]).save(path)
    return images, masks


def config_of(folders, loss: str, **images):
    return tiny_images(folders, loss=loss, steps=4, validate_every=4, images={
        "labels": [0, 255], "patch": [32, 32], "patches": 1, **images
    })  # fmt: skip


@pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")
@pytest.mark.parametrize("loss", [DICE, SMP, f"FocalLoss + {DICE}"])
def test_a_loss_that_ignores_no_pixel_trains_on_a_small_image(folders, tmp_path, loss):
    with pytest.warns(PatchWarning, match="repeat their outermost pixels and labels"):
        run = train(config_of(folders, loss), tmp_path / "run", is_quiet=True)
    assert run.metrics["is_finished"]


@pytest.mark.parametrize(("loss", "is_padded"), [(DICE, False), ("FocalLoss", True)])
def test_padded_pixels_are_ignored_wherever_the_loss_can(folders, recwarn, loss, is_padded):
    task = build_task(config_of(folders, loss))
    batch = task.batch(np.arange(task.n_samples), 0, torch.device("cpu"))
    assert batch.has_ignored is is_padded
    warned = [one for one in recwarn if one.category is PatchWarning]
    assert len(warned) == (not is_padded)


def test_pixels_that_the_masks_ignore_are_named_by_their_option(tmp_path):
    folders = write_folders(tmp_path, 8, (40, 48), 3, values=(0, 255, 7))
    config = config_of(folders, DICE, ignore_index=7)
    with pytest.raises(ValueError, match=r"can ignore no pixel.*images.ignore_index"):
        build_task(config)


@pytest.mark.parametrize(
    ("loss", "can"),
    [("FocalLoss", True), ("torch.nn:CrossEntropyLoss", True), (DICE, False), (SMP, False),
     ("FocalLoss + LDAMLoss", True), ("DiceLoss", True), ("FocalLoss + DiceLoss", True),
     (f"FocalLoss + {DICE}", False),
     ("torch.nn:BCEWithLogitsLoss", False)],
)  # fmt: skip
def test_the_losses_that_can_ignore_pixels(loss, can):
    assert can_ignore(parse_loss(loss, class_counts=(9, 1))) is can


class Plain(nn.Module):
    """A loss of a user, which takes logits and classes only."""

    def forward(self, logits, target):
        return nn.functional.cross_entropy(logits, target)


def test_a_users_loss_ignores_no_pixel_unless_it_says_so():
    assert not can_ignore(Plain())


@pytest.mark.parametrize("flips", [False, True])
def test_labels_repeat_as_pixels_do(flips):
    image = np.arange(15.0).reshape(1, 3, 5)
    label = (image[0] % 2).astype(np.uint8)
    for sample in range(20):
        patch, classes = draw_patch(
            image, label, 8, patch_rng(0, 0, sample), flips=flips, pads_labels=True
        )
        np.testing.assert_array_equal(classes, patch[0] % 2)
        assert not (classes == IGNORED).any()
