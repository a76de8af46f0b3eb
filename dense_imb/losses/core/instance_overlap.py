"""Soft counts of instances: what a region loss per instance needs of its pixels.

For instance r of class k, with shared pixels those of instance 0 and those of an instance that
has no true pixel in view (a crop keeps its neighbourhood and loses the object):

    tp = sum_{i in r, y_i = k} p_ik
    fp = sum_{i in r, y_i != k} p_ik + sum_{i shared, y_i = 0} p_ik
    fn = n_r - tp
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dense_imb.base.checks import values_are_readable
from dense_imb.losses.core.balance import wide
from dense_imb.losses.core.cells import ClassCells, KeyedCells
from dense_imb.losses.core.instances import InstanceMap, number_cells
from dense_imb.losses.core.overlap_sums import flat, flat_logits, legality, pixel_weights
from dense_imb.losses.core.penalty import Penalty
from dense_imb.losses.core.sums import Request, softmax_sums
from dense_imb.losses.core.target import PixelTarget
from dense_imb.losses.overlap import Overlap


@dataclass(frozen=True, eq=False)
class InstanceNumbers:
    """Sums of each image (B) and instance (R), in the wide type."""

    overlap: Overlap  # (B, R), of the instance's class
    owner: Tensor  # (B, R) class of the instance; 0 where it has no true pixel
    false_alarms: Overlap  # (B, C), of a class as if the image had no pixel of it
    mass_of_image: Tensor  # (B, 1) sum of the pixel weights
    is_frame: Tensor  # (B, 1), whether the image has a pixel that counts
    mass: Tensor  # T of each class, (1, C)
    errors: tuple[Tensor, ...] = ()  # L of each penalty, (1, C)

    @property
    def checksum(self) -> Tensor:
        """A sum of all that depends on the logits."""
        return self.overlap.tp.sum() + self.overlap.fp.sum() + self.false_alarms.fp.sum()


def instance_overlap_sums(
    pixels: PixelTarget, instances: InstanceMap, penalties: tuple[Penalty | None, ...] = ()
) -> InstanceNumbers:
    """Return the sums of each instance.

    Args:
        pixels: logits and hard target after the contract; the logits may have one channel.
        instances: map of the instances.
        penalties: phi of wanted sums of errors, per class of the batch; None is cross-entropy.
    """
    n_images, n_slots = pixels.logits.shape[0], instances.n_slots
    n_classes = pixels.n_classes
    label, number = flat(pixels.label), flat(instances.number)
    weight = pixel_weights(pixels)
    ones = label.new_ones((), dtype=pixels.logits.dtype).expand_as(label)
    u = ones if weight is None else weight

    # pixels of each (image, instance, class), from which the class of an instance follows
    cell = number_cells(label, InstanceMap(number, n_slots), n_classes)
    shape = (n_images, n_slots, n_classes)
    cells = KeyedCells(cell, n_images * n_slots * n_classes)
    size = cells.sums([weight], u.dtype)[0].view(shape)
    _check_one_class(size)
    owner = size[:, 1:, 1:].argmax(-1) + 1  # (B, R)
    owner = torch.where((size[:, 1:, 1:] != 0).any(-1), owner, 0)
    mass = size.sum((0, 1)).unsqueeze(0)

    of_slot = torch.cat([owner.new_zeros(n_images, 1), owner], 1)  # (B, R + 1)
    row = torch.arange(n_images, device=label.device).unsqueeze(1)
    slot = number + n_slots * row
    owner_of_pixel = of_slot.reshape(-1).index_select(0, slot.reshape(-1)).view_as(label)
    is_true = owner_of_pixel == label
    is_owned = owner_of_pixel > 0
    # two sums for each slot, [false, true], in which shared pixels do not count
    own = KeyedCells(torch.add(is_true, slot, alpha=2), 2 * n_images * n_slots)
    is_shared = (~is_owned & (label == 0)).to(u.dtype) * u
    area = torch.stack([u, is_shared], 1)
    classes = ClassCells(label, n_classes, by_image=False)
    request = Request(
        owner_of_pixel, own, u * is_owned, area, classes, penalties, error_weight=weight
    )
    sums = softmax_sums(flat_logits(pixels), request)

    fp, tp = sums.own.view(n_images, n_slots, 2)[:, 1:].unbind(-1)
    predicted, shared = sums.area.unbind(-1)  # (B, C)
    total = size.sum((1, 2)).unsqueeze(1)  # (B, 1)
    n = size[:, 1:].gather(2, owner.unsqueeze(2)).squeeze(2)  # (B, R)
    tp = tp * legality(pixels)
    fp = fp + shared.gather(1, owner)
    fn = (n - tp).clamp(min=0)
    overlap = Overlap(tp, fp, fn, (total - tp - fp - fn).clamp(min=0))
    none = torch.zeros_like(predicted)
    alarms = Overlap(none, predicted, none, (total - predicted).clamp(min=0))
    return InstanceNumbers(
        overlap,
        owner,
        alarms,
        total,
        total != 0,
        mass.to(wide(label.device)),
        tuple(error.unsqueeze(0) for error in sums.errors),
    )


def _check_one_class(size: Tensor) -> None:
    """Refuse an instance with pixels of two foreground classes, where reading values is free."""
    if not values_are_readable(size):
        return
    is_of_two = (size[:, 1:, 1:] != 0).sum(-1) > 1
    if bool(is_of_two.any()):
        image, instance = is_of_two.nonzero()[0].tolist()
        classes = (size[image, instance + 1, 1:] != 0).nonzero().flatten() + 1
        raise ValueError(
            f"Expected `instance` numbers of one class each, got instance {instance + 1} of image "
            f"{image} with pixels of the classes {', '.join(map(str, classes.tolist()))}; number "
            "the components of each class apart, as `label_instances` does."
        )
