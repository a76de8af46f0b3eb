"""Region losses and instance maps in MONAI's pipelines: dictionary transforms, engines, crops."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("ignite", reason="pytorch-ignite is not installed: MONAI's engines need it")
pytest.importorskip("scipy", reason="scipy is not installed: it finds the components")

from monai.data import DataLoader, Dataset, MetaTensor
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.transforms import Compose, EnsureTyped, RandFlipd, RandSpatialCropd

from dense_imb.data.images.instances import label_instances, nearest_instance
from dense_imb.integrations.monai import GradientShareHandler, InstanceInTarget, LabelInstancesd
from dense_imb.losses import Balance, CompoundLoss, CrossEntropyLoss, DiceLoss
from tests.integrations.engines import losses_of, tiny, trainer_of

LOSSES = {
    "dice": lambda: DiceLoss(),
    "dice + ce": lambda: CompoundLoss(DiceLoss(), CrossEntropyLoss()),
    "instances": lambda: InstanceInTarget(DiceLoss(per="instance")),
    "blob loss": lambda: InstanceInTarget(
        CompoundLoss(DiceLoss(), CrossEntropyLoss(), DiceLoss(per="instance"))
    ),
    "objects": lambda: InstanceInTarget(CrossEntropyLoss(per="instance", balance=Balance())),
}


def items(n: int = 6, spatial_dims: int = 2, size: int = 16) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(spatial_dims)
    made = []
    for _ in range(n):
        label = np.zeros((1, *(size,) * spatial_dims), np.uint8)
        for width in (1, 2, 4):
            start = rng.integers(0, size - width, spatial_dims)
            label[(0, *(slice(s, s + width) for s in start))] = 1
        image = label + rng.normal(0, 0.3, label.shape)
        made.append({"image": image.astype(np.float32), "label": label})
    return made


def batches(name: str, spatial_dims: int = 2, instances: str = "components") -> DataLoader:
    keys = ["image", "label"]
    steps = [EnsureTyped(keys=keys)]
    if isinstance(LOSSES[name](), InstanceInTarget):
        steps.append(LabelInstancesd("label", instances))
    steps += [
        RandSpatialCropd(keys, (12,) * spatial_dims, random_size=False),
        RandFlipd(keys, prob=0.5),
    ]
    return DataLoader(Dataset(items(spatial_dims=spatial_dims), Compose(steps)), batch_size=3)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_it_trains_in_the_engines(name, spatial_dims):
    network = tiny(spatial_dims=spatial_dims)
    trainer = trainer_of(network, LOSSES[name](), batches(name, spatial_dims), epochs=12)
    seen = losses_of(trainer)
    GradientShareHandler(every=4).attach(trainer)
    trainer.run()
    assert all(map(math.isfinite, seen))
    assert sum(seen[-4:]) < sum(seen[:4])
    assert 0 < trainer.state.metrics["gradient_share_1"] < 1


def test_one_line_replaces_monais_dice_ce():
    """With its smoothing, each image on its own, and the background, the losses are equal."""
    ours = CompoundLoss(
        DiceLoss(
            1e-5, include_background=True, balance=Balance(scope="image", absent="index")
        ),
        CrossEntropyLoss(),
    )  # fmt: skip
    runs = []
    for loss in (DiceCELoss(to_onehot_y=True, softmax=True), ours):
        torch.manual_seed(0)
        data = Dataset(items(), EnsureTyped(keys=["image", "label"]))
        trainer = trainer_of(tiny(), loss, DataLoader(data, batch_size=3), epochs=3)
        runs.append(losses_of(trainer))
        trainer.run()
    assert runs[1] == pytest.approx(runs[0], rel=1e-4)


@pytest.mark.parametrize("kind", ["array", "tensor", "MetaTensor"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("instances", ["components", "nearest"])
def test_the_map_is_the_last_channel(kind, dtype, instances):
    label = items(1)[0]["label"]
    make = {"array": np.asarray, "tensor": torch.as_tensor, "MetaTensor": MetaTensor}[kind]
    made = LabelInstancesd("label", instances)({"label": make(label.astype(dtype))})["label"]
    expected = label_instances(label[0])
    if instances == "nearest":
        expected = nearest_instance(expected)
    assert made.shape == (2, 16, 16)
    assert isinstance(made, MetaTensor) == (kind == "MetaTensor")
    assert (
        made.dtype
        == {np.uint8: torch.int32, np.int64: torch.int64, np.float32: torch.float32}[dtype]
    )
    assert np.array_equal(np.asarray(made[0]), label[0])
    assert np.array_equal(np.asarray(made[1]), expected)


def test_more_instances_than_a_byte_holds():
    label = np.zeros((1, 64, 64), np.uint8)
    label[0, ::2, ::2] = 1
    made = LabelInstancesd("label")({"label": label})["label"]
    assert made[1].max() == 32 * 32


def test_the_loss_is_that_of_the_map():
    rng = torch.Generator().manual_seed(0)
    made = LabelInstancesd("label")(items(1)[0])["label"].unsqueeze(0)
    logits = torch.randn(1, 2, 16, 16, generator=rng)
    loss = DiceLoss(per="instance")
    value = InstanceInTarget(loss)(logits, made)
    assert value == loss(logits, made[:, 0], instance=made[:, 1])
    mask = torch.rand(1, 16, 16, generator=rng) < 0.5
    masked = InstanceInTarget(loss)(logits, made, mask=mask)
    assert masked == loss(logits, made[:, 0], instance=made[:, 1], mask=mask)


def test_deep_supervision_resizes_the_map_with_the_label():
    made = LabelInstancesd("label")(items(1)[0])["label"].unsqueeze(0).float()
    loss = InstanceInTarget(DiceLoss(per="instance"))
    levels = [torch.zeros(1, 2, 16, 16), torch.zeros(1, 2, 8, 8)]
    expected = loss(levels[0], made) + 0.5 * loss(levels[1], made[..., 1::2, 1::2])
    torch.testing.assert_close(DeepSupervisionLoss(loss)(levels, made), expected)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (
            lambda: InstanceInTarget(DiceLoss()),
            TypeError,
            'Expected `loss` with per="instance", got DiceLoss, which takes no instance map',
        ),
        (
            lambda: InstanceInTarget(DiceLoss(per="instance"))(
                torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4)
            ),
            ValueError,
            r"as its last channel, \(B, 2, \*spatial\), got \(1, 1, 4, 4\); put LabelInstancesd",
        ),
        (
            lambda: LabelInstancesd("label")({"label": np.zeros((2, 4, 4))}),
            ValueError,
            "Expected 'label' as one channel of class indices, got 2 channels; put LabelInstancesd",
        ),
        (
            lambda: LabelInstancesd("label")({"label": np.full((1, 4, 4), 0.5)}),
            ValueError,
            "one channel of class indices, got fractions",
        ),
        (
            lambda: LabelInstancesd("label", "blobs"),
            ValueError,
            "`instances` to be one of 'components', 'nearest', got 'blobs'",
        ),
    ],
)
def test_bad_input_is_one_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_the_transform_needs_scipy_when_it_is_made(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(ImportError, match=r"Expected SciPy, .* install it with `pip install"):
        LabelInstancesd("label")


def test_the_transform_shows_its_arguments():
    assert repr(LabelInstancesd("label")) == (
        "LabelInstancesd('label', 'components', ignore_index=255)"
    )
    several = LabelInstancesd(["a", "b"], "nearest", ignore_index=None, allow_missing_keys=True)
    assert repr(several) == (
        "LabelInstancesd(('a', 'b'), 'nearest', ignore_index=None, allow_missing_keys=True)"
    )
    assert repr(eval(repr(several))) == repr(several)
