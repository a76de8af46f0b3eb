"""Tiny real MONAI runs: a Dataset with transforms, a DataLoader, both engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import from_engine
from monai.inferers import SlidingWindowInferer
from monai.transforms import AsDiscreted, Compose, EnsureTyped, RandFlipd, RandGaussianNoised
from torch import Tensor, nn

from dense_imb import losses
from dense_imb.losses import Balance

COUNTS = (9000, 1000)
CPU = torch.device("cpu")
BALANCED = {"balance": Balance()}

# every loss of the catalogue, as two classes want it
MAKE: dict[str, Callable[[], nn.Module]] = {
    "ACBMSELoss": losses.ACBMSELoss,
    "BalancedRegressionLoss": lambda: losses.BalancedRegressionLoss("huber"),
    "OutcomeBalancedMSELoss": losses.OutcomeBalancedMSELoss,
    "BalancedMSELoss": lambda: losses.BalancedMSELoss(0.3, 4096),  # all pixels, no sample
    "CrossEntropyLoss": lambda: losses.CrossEntropyLoss(**BALANCED),
    "FocalLoss": lambda: losses.FocalLoss(gamma=2.0, **BALANCED),
    "HardMiningLoss": lambda: losses.HardMiningLoss(**BALANCED),
    "ComplementCrossEntropyLoss": lambda: losses.ComplementCrossEntropyLoss(**BALANCED),
    "BalancedSoftmaxLoss": lambda: losses.BalancedSoftmaxLoss(COUNTS),
    "ClassDependentTemperatureLoss": lambda: losses.ClassDependentTemperatureLoss(COUNTS),
    "BiasCompensatedLoss": lambda: losses.BiasCompensatedLoss(COUNTS),
    "LDAMLoss": lambda: losses.LDAMLoss(COUNTS, **BALANCED),
    "PixelLoss": lambda: losses.PixelLoss(losses.Focal(2.0), losses.LogPrior(COUNTS)),
    "CompoundLoss": lambda: losses.CompoundLoss(
        losses.HardMiningLoss(**BALANCED), losses.CrossEntropyLoss(**BALANCED)
    ),
    "RegionLoss": lambda: losses.RegionLoss(losses.Jaccard()),
    "DiceLoss": losses.DiceLoss,
    "TverskyLoss": lambda: losses.TverskyLoss(0.3, 0.7, gamma=0.75),
    "RangeLoss": lambda: losses.RangeLoss(intra_weight=0.01, margin=4.0),
}


def images(spatial_dims: int = 2, n: int = 4, size: int = 8) -> list[dict[str, Any]]:
    """A bright object of a tenth of the pixels, or less, in noise."""
    rng = np.random.default_rng(spatial_dims)
    found = []
    for _ in range(n):
        label = np.zeros((1, *(size,) * spatial_dims), np.float32)
        start = rng.integers(0, size - 2, spatial_dims)
        label[(0, *(slice(s, s + 2) for s in start))] = 1
        noise = rng.normal(0, 0.3, label.shape).astype(np.float32)
        valid = (rng.random(label.shape) < 0.7).astype(np.float32)
        found.append({"image": label + noise, "label": label, "valid": valid, "name": "x.nii"})
    return found


def loader(
    spatial_dims: int = 2,
    *,
    one_hot: bool = False,
    is_random: bool = False,
    more: Sequence[Any] = (),
    batch_size: int = 2,
    **options: Any,
) -> DataLoader:
    """MetaTensors out of MONAI's Dataset and DataLoader; targets are indices or one-hot."""
    keys = ["image", "label", "valid"]
    steps: list[Any] = [EnsureTyped(keys=keys)]
    if is_random:
        steps += [RandFlipd(keys=keys, prob=0.5), RandGaussianNoised(keys="image", prob=0.5)]
    if one_hot:
        steps.append(AsDiscreted(keys="label", to_onehot=2))
    data = Dataset(images(spatial_dims, **options), Compose([*steps, *more]))
    return DataLoader(data, batch_size=batch_size, shuffle=is_random, num_workers=0)


class Tiny(nn.Module):
    """Two convolutions; with two levels it answers with a list, the second at half the size."""

    def __init__(self, spatial_dims: int = 2, out_channels: int = 2, n_levels: int = 1) -> None:
        super().__init__()
        kind = {2: nn.Conv2d, 3: nn.Conv3d}[spatial_dims]
        self.body = nn.Sequential(kind(1, 4, 3, padding=1), nn.ReLU(), kind(4, out_channels, 1))
        self.n_levels = n_levels

    def forward(self, image: Tensor) -> Any:
        answer = self.body(image)
        if self.n_levels == 1 or not self.training:
            return answer
        return [answer, answer[(..., *(slice(None, None, 2),) * (answer.dim() - 2))]]


def tiny(seed: int = 0, **options: Any) -> Tiny:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Tiny(**options)


def trainer_of(
    network: nn.Module, loss: Any, batches: Any, *, epochs: int = 2, **options: Any
) -> SupervisedTrainer:
    options.setdefault("optimizer", torch.optim.Adam(network.parameters(), 0.03))
    return SupervisedTrainer(
        device=CPU,
        max_epochs=epochs,
        train_data_loader=batches,
        network=network,
        loss_function=loss,
        decollate=False,
        **options,
    )


def evaluator_of(network: nn.Module, batches: Any, **options: Any) -> SupervisedEvaluator:
    """Slides a window smaller than the image over it."""
    spatial_dims = next(iter(batches))["image"].dim() - 2
    options.setdefault("inferer", SlidingWindowInferer((4,) * spatial_dims, overlap=0.25))
    return SupervisedEvaluator(device=CPU, val_data_loader=batches, network=network, **options)


def losses_of(trainer: SupervisedTrainer) -> list[float]:
    """Filled with the loss of every iteration, while the trainer runs."""
    seen: list[float] = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output["loss"].item())
    )
    return seen


PRED_LABEL = from_engine(["pred", "label"])
