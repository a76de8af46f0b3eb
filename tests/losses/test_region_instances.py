"""Region losses per instance against plain loops: blob loss, CC loss, several classes, crops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dense_imb.losses import (
    Balance,
    CompoundLoss,
    CrossEntropyLoss,
    Dice,
    DiceLoss,
    Jaccard,
    RegionLoss,
    Tversky,
    TverskyLoss,
    cross_entropy_loss,
)

from .test_region import S, assert_same

ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is not installed")

RNG = torch.Generator().manual_seed(1)
SIZE = (12, 14)
EVERYWHERE = ndimage.generate_binary_structure(2, 2)


def label_components(mask: Tensor) -> Tensor:
    """Number the components of each image, 0 on the background."""
    return torch.stack([torch.from_numpy(ndimage.label(m, EVERYWHERE)[0]).long() for m in mask])


def nearest_component(component: Tensor) -> Tensor:
    """Give each pixel the number of the nearest component."""
    images = []
    for one in component.numpy():
        where = ndimage.distance_transform_edt(
            one == 0, return_distances=False, return_indices=True
        )
        images.append(torch.from_numpy(one[tuple(where)]))
    return torch.stack(images)


MASK = torch.rand(4, *SIZE, generator=RNG) < 0.12
MASK[2] = False  # an image without objects
COMPONENT = label_components(MASK)
NEAREST = nearest_component(COMPONENT)
LABEL = MASK.long()
LOGITS = 2 * torch.randn(4, 1, *SIZE, generator=RNG, dtype=torch.float64)
TWO = 2 * torch.randn(4, 2, *SIZE, generator=RNG, dtype=torch.float64)
SKIPPING = Balance(scope="image", absent="skip")
assert COMPONENT[0].max() > 5


def with_map(loss, instance, **options):
    return lambda z, y: loss(z, y, instance=instance, **options)


# blob loss (Kofler et al., 2023, arXiv 2205.08209), as its published code goes through the blobs:
# the other blobs' probabilities are masked, and an image without blobs is left out


def published_blob_loss(criterion, p: Tensor, component: Tensor) -> Tensor:
    images = []
    for one_p, one in zip(p.split(1), component.unsqueeze(1).split(1), strict=True):
        blobs = []
        for number in one.unique():
            if number > 0:
                is_seen = (one == 0) | (one == number)
                blobs.append(criterion(one_p * is_seen, (one == number).to(p.dtype)))
        if blobs:
            images.append(sum(blobs) / len(blobs))
    return sum(images) / len(images)


def dice(p: Tensor, y: Tensor, smooth: float = 0.0) -> Tensor:
    return 1 - (2 * (p * y).sum() + smooth) / ((p + y).sum() + smooth)


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_blob_loss(smooth):
    def theirs(z, _):
        return published_blob_loss(lambda p, y: dice(p, y, smooth), z.sigmoid(), COMPONENT)

    ours = with_map(DiceLoss(smooth, per="instance", balance=SKIPPING), COMPONENT)
    assert_same(ours, theirs, LOGITS, LABEL, atol=1e-12)


def test_blob_loss_with_monais_dice_inside():
    monai = pytest.importorskip("monai.losses", reason="monai is not installed")

    def theirs(z, _):
        return published_blob_loss(monai.DiceLoss(), z.sigmoid(), COMPONENT)

    ours = with_map(DiceLoss(S, per="instance", balance=SKIPPING), COMPONENT)
    assert_same(ours, theirs, LOGITS, LABEL, atol=1e-12)


def test_blob_loss_of_two_channels():
    def theirs(z, _):
        return published_blob_loss(dice, z.softmax(1)[:, 1:], COMPONENT)

    ours = with_map(DiceLoss(per="instance", balance=SKIPPING), COMPONENT)
    assert_same(ours, theirs, TWO, LABEL, atol=1e-12)


# CC loss (Jaus et al., 2025): the loss of each component's neighbourhood, the pixels that are
# nearest to it


def cc_loss(criterion, p: Tensor, y: Tensor, nearest: Tensor) -> Tensor:
    images = []
    for one_p, one_y, one in zip(p[:, 0], y, nearest, strict=True):
        parts = [
            criterion(one_p[one == number], one_y[one == number].to(p.dtype))
            for number in one.unique()
            if number > 0
        ]
        if parts:
            images.append(sum(parts) / len(parts))
    return sum(images) / len(images)


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_cc_loss(smooth):
    def theirs(z, y):
        return cc_loss(lambda p, t: dice(p, t, smooth), z.sigmoid(), y, NEAREST)

    ours = with_map(DiceLoss(smooth, per="instance", balance=SKIPPING), NEAREST)
    assert_same(ours, theirs, LOGITS, LABEL, atol=1e-12)


# the general definition: any index, classes, weights, shared pixels and images without instances


def plain_instances(
    index,
    z: Tensor,
    y: Tensor,
    instance: Tensor,
    *,
    scope: str = "batch",
    absent: str = "rate",
    weight: Tensor | None = None,
    gamma: float = 1.0,
) -> Tensor:
    """Mean over classes of the mean over their instances, in loops over images and instances."""
    u = torch.ones(y.shape, dtype=z.dtype) if weight is None else weight
    p = torch.cat([1 - z.sigmoid(), z.sigmoid()], 1) if z.shape[1] == 1 else z.softmax(1)
    values: dict[tuple[int, int], list[Tensor]] = {}
    for b, (one_y, one) in enumerate(zip(y, instance, strict=True)):
        pairs = {(int(r), int(one_y[(one == r) & (one_y > 0)][0])) for r in one.unique()
                 if r > 0 and bool(((one == r) & (one_y > 0)).any())}  # fmt: skip
        numbers = torch.tensor([r for r, _ in pairs])
        is_shared = ~torch.isin(one, numbers) & (one_y == 0)
        for k in range(1, p.shape[1]):
            q = p[b, k] * u[b]
            mine = [r for r, of in pairs if of == k]
            for r in mine:
                is_true = (one == r) & (one_y == k)
                tp = q[is_true].sum()
                fp = q[(one == r) & (one_y != k)].sum() + q[is_shared].sum()
                fn = u[b][is_true].sum() - tp
                values.setdefault((b, k), []).append((1 - index(tp, fp, fn)) ** gamma)
            if not mine and absent == "rate":
                values[b, k] = [q.sum() / u[b].sum()]
    of_rows = []
    rows = [[b] for b in range(len(y))] if scope == "image" else [list(range(len(y)))]
    for row in rows:
        of_class = []
        for k in range(1, p.shape[1]):
            mine = [value for b in row for value in values.get((b, k), [])]
            if mine:
                of_class.append(sum(mine) / len(mine))
        if of_class:
            of_rows.append(sum(of_class) / len(of_class))
    return sum(of_rows) / len(of_rows)


def dice_of(tp, fp, fn):
    return 2 * tp / (2 * tp + fp + fn)


def tversky_of(tp, fp, fn):
    return tp / (tp + 0.3 * fp + 0.7 * fn)


@pytest.mark.parametrize("scope", ["image", "batch"])
@pytest.mark.parametrize("absent", ["rate", "skip"])
@pytest.mark.parametrize("instance", [COMPONENT, NEAREST], ids=["blob", "nearest"])
def test_images_without_objects_cost_their_rate_or_nothing(instance, scope, absent):
    ours = DiceLoss(per="instance", balance=Balance(scope=scope, absent=absent))

    def theirs(z, y):
        return plain_instances(dice_of, z, y, instance, scope=scope, absent=absent)

    for logits in (LOGITS, TWO):
        assert_same(with_map(ours, instance), theirs, logits, LABEL, atol=1e-12)


CLASSES = LABEL * (1 + COMPONENT % 3)  # the components belong to three classes
FOUR = 2 * torch.randn(4, 4, *SIZE, generator=RNG, dtype=torch.float64)
U = 0.5 + torch.rand(4, *SIZE, generator=RNG, dtype=torch.float64)


@pytest.mark.parametrize("scope", ["image", "batch"])
@pytest.mark.parametrize("instance", [COMPONENT, NEAREST], ids=["blob", "nearest"])
def test_several_classes_weights_and_any_index(instance, scope):
    balance = Balance(scope=scope)
    for index, formula, gamma in (
        (Dice(), dice_of, 1.0),
        (Tversky(0.3, 0.7), tversky_of, 0.75),
        (lambda o: o.tp / (o.tp + o.fp + o.fn), lambda *o: o[0] / sum(o), 2.0),
    ):
        loss = RegionLoss(index, per="instance", balance=balance, gamma=gamma)

        def theirs(z, y, formula=formula, gamma=gamma):
            return plain_instances(formula, z, y, instance, scope=scope, weight=U, gamma=gamma)

        ours = with_map(loss, instance, pixel_weight=U)
        assert_same(ours, theirs, FOUR, CLASSES, atol=1e-12)


def test_a_crop_of_the_map_keeps_the_parts_of_cut_objects_together():
    """A component that leaves the view makes its neighbourhood shared."""
    crop = (slice(None), slice(2, 9), slice(3, 10))
    z = TWO[:, :, 2:9, 3:10]

    def theirs(logits, y):
        return plain_instances(dice_of, logits, y, NEAREST[crop])

    is_lost = [set(NEAREST[crop][b].unique().tolist()) - set(COMPONENT[crop][b].unique().tolist())
               for b in range(4)]  # fmt: skip
    assert any(lost - {0} for lost in is_lost)
    assert_same(
        with_map(DiceLoss(per="instance"), NEAREST[crop]), theirs, z, LABEL[crop], atol=1e-12
    )


def test_volumes_and_ignored_pixels():
    z = 2 * torch.randn(2, 3, 5, 6, 7, generator=RNG, dtype=torch.float64)
    mask = torch.rand(2, 5, 6, 7, generator=RNG) < 0.1
    cells = torch.stack([torch.from_numpy(ndimage.label(m)[0]).long() for m in mask])
    y = mask * (1 + cells % 2)
    counts = torch.rand(y.shape, generator=RNG) < 0.8
    holes = torch.where(counts, y, 255)
    loss = DiceLoss(per="instance", ignore_index=255)

    def theirs(logits, target):
        return plain_instances(dice_of, logits, y, cells * counts, weight=counts.double())

    assert_same(with_map(loss, cells), theirs, z, holes, atol=1e-12)
    same = DiceLoss(per="instance")(z, y, instance=cells, mask=counts)
    torch.testing.assert_close(same, loss(z, holes, instance=cells))


def test_numbers_mean_nothing():
    """Neither their order nor their size, nor equal numbers in different images."""
    loss = DiceLoss(per="instance")
    expected = loss(FOUR, CLASSES, instance=COMPONENT)
    order = torch.cat([torch.zeros(1).long(), 1 + torch.randperm(300, generator=RNG)])
    for changed in (
        order[COMPONENT],
        COMPONENT * 7919,
        COMPONENT.to(torch.int16),
        COMPONENT[:, None],
    ):
        torch.testing.assert_close(loss(FOUR, CLASSES, instance=changed), expected)
    together = COMPONENT + 40 * torch.arange(4).view(4, 1, 1) * (COMPONENT > 0)
    torch.testing.assert_close(loss(FOUR, CLASSES, instance=together), expected)


def test_one_instance_of_each_class_is_the_class():
    """Where every class is one object, the pixels of other classes belong to other objects."""
    y = torch.zeros(1, *SIZE).long()
    y[0, 2:5, 3:9] = 1
    loss, z = DiceLoss(per="instance"), TWO[:1]
    value = loss(z, y, instance=y)
    torch.testing.assert_close(value, DiceLoss()(z, y))
    everywhere = torch.ones_like(y)
    torch.testing.assert_close(loss(z, y, instance=everywhere), value)


@pytest.mark.filterwarnings("ignore:.*of the foreground pixels have an instance")
def test_a_bound_changes_nothing_but_the_numbers_beyond_it():
    largest = int(COMPONENT.max())
    expected = DiceLoss(per="instance")(TWO, LABEL, instance=COMPONENT)
    for bound in (largest, 500):
        loss = DiceLoss(per="instance", max_instances=bound)
        torch.testing.assert_close(loss(TWO, LABEL, instance=COMPONENT), expected)
    bounded = DiceLoss(per="instance", max_instances=3)
    with pytest.warns(UserWarning, match=rf"is 3, and the map holds {largest - 3} larger instance"):
        value = bounded(TWO, LABEL, instance=COMPONENT)
    cut = COMPONENT.where(COMPONENT <= 3, 0)
    torch.testing.assert_close(value, DiceLoss(per="instance")(TWO, LABEL, instance=cut))


def test_a_sum_with_cross_entropy_shares_the_softmax():
    loss = CompoundLoss(TverskyLoss(0.3, 0.7, per="instance"), CrossEntropyLoss(balance=Balance()))

    def theirs(z, y):
        region = plain_instances(tversky_of, z, y, COMPONENT)
        return region + cross_entropy_loss(z, y, balance=Balance())

    assert_same(with_map(loss, COMPONENT), theirs, FOUR, CLASSES, atol=1e-12)
    assert math.isclose(sum(loss.parts.values()), loss(FOUR, CLASSES, instance=COMPONENT))


def test_small_objects_count_as_much_as_large_ones():
    y = torch.zeros(1, 40, 40).long()
    y[0, 1:31, 1:31] = 1  # 900 pixels
    y[0, 35:37, 35:37] = 1  # 4 pixels, all missed
    z = 20.0 * torch.where(y == 1, 1.0, -1.0).unsqueeze(1).double()
    z[0, 0, 35:37, 35:37] = -20.0
    component = label_components(y.bool())
    assert DiceLoss()(z, y) < 0.01
    assert DiceLoss(per="instance")(z, y, instance=component) == pytest.approx(0.5, abs=1e-6)
    assert RegionLoss(Jaccard(), per="instance")(z, y, instance=component) > 0.49
