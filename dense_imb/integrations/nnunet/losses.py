"""Losses with nnU-Net's call: its Dice and a loss of dense_imb, of one output of the network.

nnU-Net's Dice is negative, -1 for a perfect prediction, and so the sum is as low as in its logs.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dense_imb.data.images.instances import label_instances, nearest_instance

Instances = Literal["components", "nearest"]


class LabelsLoss(nn.Module):
    """Loss of label maps, for trainings with softmax.

    Args:
        loss: loss of logits (B, C, *spatial) and labels; it ignores `ignore_label` itself.
        dice: nnU-Net's Dice, called as dice(logits, target, loss_mask=mask); none to leave it out.
        instances: map for a loss with per="instance": "components", or "nearest" with the nearest
            component at each pixel of the background.
        ignore_label: label of ignored pixels.
    """

    def __init__(
        self,
        loss: nn.Module,
        dice: nn.Module | None = None,
        *,
        instances: Instances | None = None,
        ignore_label: int | None = None,
    ) -> None:
        super().__init__()
        self.loss, self.dice = loss, dice
        self.instances, self.ignore_label = instances, ignore_label

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a target (B, 1, *spatial)."""
        label = target[:, 0].long()
        value: Tensor = self.loss(
            logits, label, **_map_of(label, self.instances, self.ignore_label)
        )
        if self.dice is None:
            return value
        mask = None
        if self.ignore_label is not None:
            mask = target != self.ignore_label
            target = torch.where(mask, target, 0)
        dice: Tensor = self.dice(logits, target, loss_mask=mask)
        return value + dice


class RegionsLoss(nn.Module):
    """Loss of regions that may overlap, for trainings with sigmoid: a mean of binary losses.

    Args:
        loss: loss of logits (B, 1, *spatial) and labels 0 or 1.
        dice: nnU-Net's Dice, called as dice(logits, target, loss_mask=mask); none to leave it out.
        instances: see `LabelsLoss`, of each region.
        is_last_ignored: the target has a last channel that marks ignored pixels.
    """

    def __init__(
        self,
        loss: nn.Module,
        dice: nn.Module | None = None,
        *,
        instances: Instances | None = None,
        is_last_ignored: bool = False,
    ) -> None:
        super().__init__()
        self.loss, self.dice = loss, dice
        self.instances, self.is_last_ignored = instances, is_last_ignored

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a target (B, regions, *spatial) of 0 and 1."""
        mask = None
        if self.is_last_ignored:
            mask, target = ~target[:, -1:].bool(), target[:, :-1]
        values = []
        for k in range(logits.shape[1]):
            label = target[:, k].long()
            options = _map_of(label, self.instances, None)
            if mask is not None:
                options["mask"] = mask
            values.append(self.loss(logits[:, k : k + 1], label, **options))
        value = torch.stack(values).mean()
        if self.dice is None:
            return value
        dice: Tensor = self.dice(logits, target, loss_mask=mask)
        return value + dice


def _map_of(label: Tensor, kind: Instances | None, ignore_label: int | None) -> dict[str, Any]:
    """Return the options of a call: the instance map of labels (B, *spatial), if wanted.

    The map is made of the crop on the CPU, after nnU-Net's augmentation.
    """
    if kind is None:
        return {}
    maps = [label_instances(one, ignore_label) for one in label.cpu().numpy()]
    if kind == "nearest":
        maps = [nearest_instance(one) for one in maps]
    return {"instance": torch.from_numpy(np.stack(maps)).to(label.device)}
