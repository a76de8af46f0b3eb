"""A number compares as it is with labels of any integer type: -100 is not 156, 256 is not 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dense_imb.base.checks import is_other
from dense_imb.data.epochs.mixing import mix_labels
from dense_imb.data.images.instances import check_instances, label_instances
from dense_imb.data.images.labelled import LabelMap
from dense_imb.losses import (
    Balance,
    BalancedRegressionLoss,
    BalancedSoftmaxLoss,
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    RangeLoss,
    RegionLoss,
)
from dense_imb.losses.core.balance import balanced_mean
from dense_imb.losses.foreign.feeding import feed, intake_of
from dense_imb.metrics import SegmentationScores
from dense_imb.statistics import ClassStatistics
from dense_imb.tasks.feature_loss import FeatureTerm

# labels that a type holds, and a number outside it that wraps to one of them
WRAPPED = [
    (torch.uint8, 156, -100),
    (torch.uint8, 0, 256),
    (torch.int8, 0, 256),
    (torch.int8, 100, -156),
    (torch.int16, 3, 3 + 2**16),
    (torch.int32, 1, 1 + 2**32),
    (torch.float16, 2048, 2049),
    (torch.bfloat16, 256, 257),
]


@pytest.mark.parametrize(("dtype", "label", "number"), WRAPPED)
def test_a_number_outside_the_type_ignores_nothing(dtype, label, number):
    labels = torch.tensor([label, 0, 1]).to(dtype)
    assert bool(is_other(labels, number).all())
    assert is_other(labels, label).tolist() == (labels.double() != label).tolist()


N_CLASSES = 160
LOGITS = torch.randn(2, N_CLASSES, 4, 4, generator=torch.Generator().manual_seed(0))
LABEL = torch.randint(0, N_CLASSES, (2, 4, 4), generator=torch.Generator().manual_seed(1))
LABEL[0, 0] = 156
LABEL[0, 1, :2] = 0


@pytest.mark.parametrize("ignore_index", [-100, 256])
@pytest.mark.parametrize(
    "loss",
    [
        CrossEntropyLoss,
        FocalLoss,
        lambda **options: BalancedSoftmaxLoss([1] * N_CLASSES, **options),
        DiceLoss,
        RegionLoss,
        lambda **options: CrossEntropyLoss(balance=Balance(scope="image"), **options),
    ],
)
def test_losses_of_bytes_equal_those_of_int64(loss, ignore_index):
    made = loss(ignore_index=ignore_index)
    expected = made(LOGITS, LABEL)
    assert made(LOGITS, LABEL.to(torch.uint8)).item() == expected.item()
    assert expected.item() == loss()(LOGITS, LABEL).item()


@pytest.mark.parametrize("ignore_index", [-100, 256])
def test_losses_of_others_are_fed_bytes_as_int64(ignore_index):
    loss = nn.CrossEntropyLoss(ignore_index=ignore_index)
    label = LABEL.to(torch.uint8)
    got = feed(loss, intake_of(loss), LOGITS, label, {})
    assert got.item() == loss(LOGITS, LABEL).item()


def test_labels_beyond_a_byte_are_no_class_of_its_rest():
    logits = torch.zeros(1, 300, 2)
    label = torch.tensor([[299, 44]], dtype=torch.int16)  # 299 is 43 in a byte
    loss = nn.CrossEntropyLoss()
    assert feed(loss, intake_of(loss), logits, label, {}) == CrossEntropyLoss()(logits, label)
    small = torch.tensor([[100, 44]], dtype=torch.int8)
    assert feed(loss, intake_of(loss), logits, small, {}) == loss(logits, small.long())


@pytest.mark.parametrize("n_classes", [127, 128, 129, 255, 256, 257])
def test_any_number_of_classes_counts_alike(n_classes):
    label = torch.arange(n_classes).view(1, n_classes)
    logits = torch.randn(1, n_classes, n_classes, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(label, dtype=torch.bool)
    mask[0, :3] = False  # the slot of pixels that do not count is n_classes
    for loss in (CrossEntropyLoss(), DiceLoss(), RegionLoss()):
        narrow = label.to(torch.int16) if n_classes > 256 else label.to(torch.uint8)
        assert loss(logits, narrow, mask=mask).item() == loss(logits, label, mask=mask).item()
    scores = SegmentationScores(n_classes, n_bins=10)
    scores.update(logits, label, mask=mask)
    assert int(scores.confusion.sum()) == n_classes - 3


def test_region_of_values_range_loss_and_balance_ignore_alike():
    label = torch.tensor([[[0, 156, 1, 2]]], dtype=torch.uint8)  # (1, 1, 4)
    prediction, target = torch.ones(1, 1, 4), torch.zeros(1, 1, 4)
    for ignore_index in (-100, 256):
        options = {"partition": "labels", "n_classes": 160, "ignore_index": ignore_index}
        made = BalancedRegressionLoss(**options)
        values = [made(prediction, target, label=one) for one in (label, label.long())]
        assert values[0] == values[1]
        features = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
        spread = RangeLoss(ignore_index=ignore_index)
        classes = torch.tensor([0, 0, 156, 156], dtype=torch.uint8)
        assert spread(features, classes) == spread(features, classes.long())
        means = [
            balanced_mean(prediction[0], one[0], 160, balance=Balance(), ignore_index=ignore_index)
            for one in (label, label.long())
        ]
        assert means[0] == means[1]


@pytest.mark.parametrize("ignore_index", [-100, 256])
def test_counts_and_scores_of_bytes_equal_those_of_int64(ignore_index):
    counted, scored = [], []
    for label in (LABEL, LABEL.to(torch.uint8)):
        statistics = ClassStatistics(N_CLASSES, ignore_index=ignore_index)
        statistics.update(label)
        counted.append(statistics.class_counts)
        scores = SegmentationScores(N_CLASSES, ignore_index=ignore_index, n_bins=10)
        scores.update(LOGITS, label)
        scored.append(scores.confusion.sum().item())
    assert list(counted[0]) == list(counted[1])
    assert scored == [LABEL.numel()] * 2


@pytest.mark.parametrize("ignore_index", [-100, 256])
def test_mixing_masks_and_instances_ignore_no_other_label(ignore_index):
    label = torch.tensor([[0, 156]], dtype=torch.uint8)
    _, is_known = mix_labels(label, label, [0.5], 157, ignore_index)
    assert bool(is_known.all())
    mask = np.array([[0, 156]], np.uint8)
    assert LabelMap((0, 156), ignore_index, True)(mask, "mask").tolist() == [[0, 1]]
    assert label_instances(mask, ignore_index).tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="instance"):
        check_instances([[7, 7]], np.array([[1, 156]], np.uint8), ignore_index)


def test_more_classes_than_the_ignored_label_are_refused():
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 256))
    with pytest.raises(ValueError, match="up to 255 classes with a `feature_loss`, got 256"):
        FeatureTerm(network, RangeLoss(), [1] * 256)
