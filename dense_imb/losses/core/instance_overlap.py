"""Soft counts of instances: what a region loss per instance needs of its pixels.

For instance r of class k, with shared pixels those of instance 0 and those of an instance that
has no true pixel in view (a crop keeps its neighbourhood and loses the object):

    tp = sum_{i in r, y_i = k} p_ik
    fp = sum_{i in r, y_i != k} p_ik + sum_{i shared, y_i = 0} p_ik
    fn = n_r - tp
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dense_imb.base.checks import values_are_readable
from dense_imb.losses.core.cells import ClassCells, KeyedCells, narrow_classes
from dense_imb.losses.core.instances import InstanceMap, number_cells, warn_of_uncovered
from dense_imb.losses.core.overlap import Overlap
from dense_imb.losses.core.overlap_sums import flat, flat_logits, legality, pixel_weights
from dense_imb.losses.core.penalty import Penalty
from dense_imb.losses.core.plain_sums import Request
from dense_imb.losses.core.sums import softmax_sums
from dense_imb.losses.core.target import PixelTarget


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
    label, weight = flat(pixels.label), pixel_weights(pixels)
    dtype = pixels.logits.dtype

    # pixels of each (image, instance, class), from which the class of an instance follows
    flat_map = InstanceMap(flat(instances.number), n_slots)
    shape = (n_images, n_slots, n_classes)
    cells = KeyedCells(number_cells(label, flat_map, n_classes), math.prod(shape))
    size = cells.sums([weight])[0].view(shape)
    _check_one_class(size)
    warn_of_uncovered(size, instances)
    owner = size[:, 1:, 1:].argmax(-1) + 1  # (B, R)
    owner = torch.where((size[:, 1:, 1:] != 0).any(-1), owner, 0)
    of_slot = torch.cat([owner.new_zeros(n_images, 1), owner], 1).unsqueeze(2)  # (B, R + 1, 1)
    of_cell = of_slot.expand(shape).reshape(-1)
    owner_of_pixel = None
    if n_classes > 2:
        owner_of_pixel = cells.spread(narrow_classes(of_cell, n_classes))
    is_background = torch.arange(n_classes, device=label.device) == 0
    is_shared = cells.spread(((of_slot == 0) & is_background).reshape(-1).to(dtype))

    classes = ClassCells(label, n_classes, False, dtype)
    shared_weight = is_shared if weight is None else is_shared * weight
    areas = (weight, shared_weight)
    request = Request(owner_of_pixel, cells, areas, classes, penalties, weight)
    sums = softmax_sums(flat_logits(pixels), request)

    own = sums.own.view(shape)[:, 1:] * legality(pixels)  # (B, R, C) of p at the owner
    tp = own.gather(2, owner.unsqueeze(2)).squeeze(2)
    predicted, shared = sums.area.unbind(-1)  # (B, C)
    total = size.sum((1, 2)).unsqueeze(1)  # (B, 1)
    n = size[:, 1:].gather(2, owner.unsqueeze(2)).squeeze(2)  # (B, R)
    fp = (own.sum(-1) - tp).clamp(min=0) + shared.gather(1, owner)
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
        size.sum((0, 1)).unsqueeze(0),
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
