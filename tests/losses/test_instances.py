"""Instance maps of a call: the checks, the bound, and the numbers of cells."""

from __future__ import annotations

import warnings

import pytest
import torch

from dense_imb.losses import CrossEntropyLoss, DiceLoss
from dense_imb.losses.core import instances
from dense_imb.losses.core.instances import (
    InstanceMapWarning,
    check_max_instances,
    instance_map,
    number_cells,
)

PIXELS = torch.zeros(2, 2, 3)
MAP = torch.tensor([[[0, 1, 1], [2, 0, 0]], [[1, 0, 3], [0, 0, 0]]])


@pytest.fixture(autouse=True)
def _forget_warnings(monkeypatch):
    monkeypatch.setattr(instances, "_warned", set())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_any_integer_map_has_int32_numbers_and_its_own_bound(dtype):
    for shaped in (MAP, MAP.unsqueeze(1)):
        checked = instance_map(shaped.to(dtype), PIXELS, max_instances=None)
        assert checked.number.dtype == torch.int32
        assert torch.equal(checked.number, MAP.int())
        assert checked.n_slots == 4


def test_numbers_beyond_the_bound_are_no_instances_and_a_warning_says_so_once():
    with pytest.warns(UserWarning, match="is 2, and the map holds 1 larger instance number, up to"):
        checked = instance_map(MAP, PIXELS, max_instances=2)
    assert torch.equal(checked.number, MAP.where(MAP <= 2, 0).int())
    assert checked.n_slots == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        instance_map(MAP, PIXELS, max_instances=2)
        assert instance_map(MAP.byte(), PIXELS, max_instances=300).n_slots == 301


def test_a_bound_is_static_where_values_cannot_be_read():
    def count(instance):
        checked = instance_map(instance, PIXELS, max_instances=2)
        return checked.number, checked.n_slots

    number, n_slots = torch.compile(count, fullgraph=True, backend="aot_eager")(MAP - 1)
    assert torch.equal(number, (MAP - 1).clamp(min=0).int())
    assert n_slots == 3
    with pytest.raises(ValueError, match="Expected `max_instances` where the values of `instance`"):
        instance_map(MAP.to("meta"), PIXELS.to("meta"), max_instances=None)


def test_large_numbers_are_renumbered_without_a_bound():
    sparse = torch.where(MAP == 3, 2**60 + 1, MAP)
    checked = instance_map(sparse, PIXELS, max_instances=None)
    assert torch.equal(checked.number, MAP.int())
    assert checked.n_slots == 4


def test_numbers_of_ignored_pixels_are_not_read():
    valid = MAP != 2
    for broken in (-1, 255, 2**40):
        checked = instance_map(
            torch.where(valid, MAP, broken), PIXELS, max_instances=3, valid=valid
        )
        assert torch.equal(checked.number, MAP.where(valid, 0).int())


def test_cells_are_numbered_by_image_instance_and_label():
    label = torch.tensor([[[0, 1, 1], [2, 0, 0]], [[1, 0, 3], [0, 2, 0]]])
    cell = number_cells(label, instance_map(MAP, PIXELS, max_instances=4), 4)
    image = torch.tensor([0, 1]).view(2, 1, 1)
    assert torch.equal(cell, ((image * 5 + MAP) * 4 + label).int())
    huge = number_cells(label, instance_map(MAP, PIXELS, max_instances=2**30), 4)
    assert torch.equal(huge, (image * (2**30 + 1) + MAP) * 4 + label)


def test_an_empty_batch_has_no_instance():
    checked = instance_map(MAP[:0], PIXELS[:0], max_instances=None)
    assert checked.n_slots == 1
    assert number_cells(MAP[:0], checked, 4).shape == (0, 2, 3)


@pytest.mark.parametrize(
    ("instance", "error", "sentence"),
    [
        (MAP[:, :1], ValueError, r"`instance` of the shape \(2, 2, 3\) or \(2, 1, 2, 3\), got \(2"),
        (MAP.tolist(), TypeError, "Expected `instance` to be a torch.Tensor, got list"),
        (MAP.float(), TypeError, r"an integer map, got torch.float32; call .long\(\) on it first"),
        (MAP > 0, TypeError, "an integer map, got torch.bool; number its components first"),
        (MAP - 1, ValueError, "Expected `instance` numbers of at least 0, got -1; pixels of no"),
    ],
)
@pytest.mark.parametrize("max_instances", [None, 2])
def test_bad_maps_are_refused_by_name(instance, error, sentence, max_instances):
    with pytest.raises(error, match=sentence):
        instance_map(instance, PIXELS, max_instances=max_instances)


def test_a_bad_bound_is_refused_by_name():
    for bad in (0, -3, 2**31 - 1):
        with pytest.raises(ValueError, match=f"`max_instances` from 1 to 2147483646, got {bad}"):
            check_max_instances(bad)
    for bad in (2.0, "9", True):
        with pytest.raises(TypeError, match="Expected `max_instances` to be a whole number"):
            check_max_instances(bad)


LABEL = torch.zeros(2, 4, 8, dtype=torch.long)
LABEL[0, 1:3, :3] = 1
LABEL[1, 3, 4:] = 1
OBJECT = LABEL.clone()  # one object an image, of 6 and 4 pixels
OBJECT[1, 3, 6:] = 2
PER_INSTANCE = (DiceLoss(per="instance"), CrossEntropyLoss(per="instance"))


@pytest.mark.parametrize("loss", PER_INSTANCE, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize(
    ("instance", "percent"),
    [(OBJECT.flip(2), 0), (OBJECT.roll(1, 0), 0), (0 * OBJECT, 0), (OBJECT * (OBJECT == 2), 20)],
    ids=["flipped", "rolled", "empty", "mostly missing"],
)
def test_a_map_of_other_pixels_than_the_label_is_said_once(loss, instance, percent):
    z = torch.zeros(2, 2, 4, 8)
    with pytest.warns(InstanceMapWarning, match=rf"^{percent} % of the foreground .* flipped with"):
        loss(z, LABEL, instance=instance)
    loss(z, LABEL, instance=instance)  # a warning is an error here


@pytest.mark.parametrize("loss", PER_INSTANCE, ids=lambda loss: type(loss).__name__)
def test_a_map_of_half_of_the_foreground_says_nothing_nor_one_without_any(loss):
    z = torch.zeros(2, 2, 4, 8)
    loss(z, LABEL, instance=OBJECT)
    loss(z, LABEL, instance=OBJECT * torch.tensor([1, 0])[:, None, None])  # 6 of 10 pixels
    loss(z, 0 * LABEL, instance=OBJECT)  # no foreground
    loss(z, 0 * LABEL, instance=0 * OBJECT)
    loss(z[:0], LABEL[:0], instance=OBJECT[:0])
    loss(z, LABEL, instance=0 * OBJECT, mask=torch.zeros(2, 4, 8))
