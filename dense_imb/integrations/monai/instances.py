"""Losses per instance in MONAI's engines: the map travels as the last channel of the target."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform
from torch import Tensor, nn

from dense_imb.base.checks import check_choice
from dense_imb.data.images.instances import check_scipy, label_instances, nearest_instance

Instances = Literal["components", "nearest"]


class LabelInstancesd(MapTransform):
    """Append the instance map of a label map as its last channel.

    Transforms that crop, flip or resize the label map ("nearest") then do the same with the map;
    its loss is `InstanceInTarget`. `RandCropByPosNegLabeld` looks for foreground in the last
    channel: put it before the "nearest" map. Needs SciPy.

    Args:
        keys: label maps of class indices, (1, *spatial).
        instances: "components" numbers the connected components of each class, 0 on the
            background: blob loss. "nearest" gives each background pixel the nearest one: CC loss.
        ignore_index: label of the pixels of no class.
        allow_missing_keys: whether a missing key is no error.

    Example:
        >>> item = {"label": torch.tensor([[1, 0, 1, 1]])}
        >>> LabelInstancesd("label")(item)["label"]
        tensor([[1, 0, 1, 1],
                [1, 0, 2, 2]])
    """

    def __init__(
        self,
        keys: KeysCollection,
        instances: Instances = "components",
        *,
        ignore_index: int | None = 255,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        check_choice("instances", instances, get_args(Instances))
        check_scipy()  # refused here: MONAI would hide the sentence behind its own
        self.instances, self.ignore_index = instances, ignore_index

    def __repr__(self) -> str:
        keys = self.keys[0] if len(self.keys) == 1 else self.keys
        missing = ", allow_missing_keys=True" if self.allow_missing_keys else ""
        return (
            f"{type(self).__name__}({keys!r}, {self.instances!r}, "
            f"ignore_index={self.ignore_index}{missing})"
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self._with_instances(str(key), result[key])
        return result

    def _with_instances(self, key: str, label: Any) -> Tensor:
        label = torch.as_tensor(label)
        classes = np.asarray(label.detach().cpu())
        whole = classes.astype(np.int64)
        if label.shape[0] != 1 or not np.array_equal(whole, classes):
            got = f"{label.shape[0]} channels" if label.shape[0] != 1 else "fractions"
            raise ValueError(
                f"Expected {key!r} as one channel of class indices, got {got}; put LabelInstancesd "
                "before AsDiscreted."
            )
        number = label_instances(whole[0], self.ignore_index)
        if self.instances == "nearest":
            number = nearest_instance(number)
        # narrow types hold too few instances
        dtype = torch.float32 if label.is_floating_point() else torch.int32
        label = label.to(torch.promote_types(label.dtype, dtype))
        return torch.cat([label, torch.from_numpy(number).to(label).unsqueeze(0)])


class InstanceInTarget(nn.Module):
    """A loss per instance of a target whose last channel is the instance map.

        loss(logits, target[:, :-1], instance=target[:, -1])

    Args:
        loss: a loss of dense_imb with per="instance", or a `CompoundLoss` with such a part.

    Example:
        >>> loss = InstanceInTarget(DiceLoss(per="instance"))
        >>> loss(torch.zeros(1, 2, 3), torch.tensor([[[0, 1, 0], [0, 1, 0]]]))
        tensor(0.6000)
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        if getattr(loss, "per", None) != "instance":
            raise TypeError(
                f'Expected `loss` with per="instance", got {type(loss).__name__}, which takes no '
                "instance map; use it as it is."
            )
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor, **options: Any) -> Any:
        """Return the loss of logits (B, C, *spatial) and a target with one channel more."""
        label, instance = split_target(target)
        return self.loss(logits, label, instance=instance, **options)


def split_target(target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the label map and the instance map of a target, (B, ..., *spatial)."""
    if target.dim() < 3 or target.shape[1] < 2:
        raise ValueError(
            "Expected a target with the instance map as its last channel, (B, 2, *spatial), got "
            f"{tuple(target.shape)}; put LabelInstancesd into the transforms."
        )
    return target[:, :-1], target[:, -1].long()


def carries_instances(loss: object) -> bool:
    """Whether the targets of a loss hold an instance map."""
    return isinstance(loss, nn.Module) and any(
        isinstance(part, InstanceInTarget) for part in loss.modules()
    )
