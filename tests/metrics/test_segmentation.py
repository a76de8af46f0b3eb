"""Scores of pixels and objects against scikit-learn and plain loops."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from dense_imb.metrics import ObjectScores, SegmentationScores, segmentation

from .processes import state
from .samples import generator


@pytest.mark.parametrize("n_channels", [1, 3])
def test_segmentation_is_scikit_learns(n_channels):
    metrics = pytest.importorskip("sklearn.metrics")
    n_classes = max(n_channels, 2)
    rng = generator(2)
    logits = torch.randn(4, n_channels, 9, 8, generator=rng) * 2
    target = torch.randint(0, n_classes, (4, 9, 8), generator=rng)
    target[0, 0] = 255
    mask = torch.rand(4, 9, 8, generator=rng) < 0.9
    scores = SegmentationScores(n_classes, ignore_index=255)
    scores.update(logits[:1], target[:1], mask=mask[:1])
    scores.update(logits[1:], target[1:].unsqueeze(1), mask=mask[1:])  # MONAI's shape
    valid = mask & (target != 255)
    truth = target[valid].numpy()
    both = torch.cat([torch.zeros_like(logits), logits], 1) if n_channels == 1 else logits
    probability = both.double().softmax(1).movedim(1, -1)[valid]
    called = probability.argmax(-1).numpy()
    labels = list(range(n_classes))
    expected = metrics.confusion_matrix(truth, called, labels=labels)
    np.testing.assert_array_equal(scores.confusion.numpy(), expected)
    assert scores.iou() == pytest.approx(metrics.jaccard_score(truth, called, average=None))
    assert scores.dice() == pytest.approx(metrics.f1_score(truth, called, average=None))
    for k, actual in enumerate(scores.average_precision()):
        exact = metrics.average_precision_score(truth == k, probability[:, k])
        assert actual == pytest.approx(exact, abs=0.02)
        tied = torch.bucketize(probability[:, k].logit(), scores.histograms[k]._edges, right=True)
        exact = metrics.average_precision_score(truth == k, tied)
        assert actual == pytest.approx(exact, abs=1e-12)
    named = scores.scores()
    assert named["mean_iou"] == pytest.approx(np.mean(scores.iou()))
    assert named["ap_1"] == scores.average_precision()[1]


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("is_masked", [False, True])
def test_large_images_are_counted_in_blocks(monkeypatch, n_channels, is_masked):
    rng = generator()
    logits = torch.randn(2, n_channels, 5, 7, generator=rng)
    target = torch.randint(0, max(n_channels, 2), (2, 5, 7), generator=rng)
    mask = torch.rand(2, 5, 7, generator=rng) < 0.7 if is_masked else None
    whole, blocks = (SegmentationScores(max(n_channels, 2)) for _ in range(2))
    whole.update(logits, target, mask=mask)
    monkeypatch.setattr(segmentation, "_AT_ONCE", 13)
    blocks.update(logits, target, mask=mask)
    assert torch.equal(state(blocks), state(whole))
    logits[1, 0, 4, 6] = torch.nan  # in the last block: nothing is counted
    with pytest.raises(ValueError, match="Expected `logits` without NaN"):
        blocks.update(logits, target)
    assert torch.equal(state(blocks), state(whole))


def test_a_class_never_seen_has_no_score():
    scores = SegmentationScores(3)
    scores.update(torch.tensor([[[2.0, 0.0], [0.0, 2.0], [-9.0, -9.0]]]), torch.tensor([[0, 1]]))
    assert scores.iou()[:2] == (1.0, 1.0)
    assert math.isnan(scores.iou()[2])
    assert math.isnan(scores.average_precision()[2])
    assert scores.scores()["mean_dice"] == 1.0
    assert math.isnan(SegmentationScores().scores()["mean_iou"])
    before = state(scores)
    for broken in ([math.nan] * 3, [0.0, math.inf, math.inf], [1.0, math.nan, 1.0]):
        with pytest.raises(ValueError, match="`logits` without NaN"):
            scores.update(torch.tensor(broken).reshape(1, 3, 1), torch.tensor([[0]]))
    scores.update(torch.tensor([-math.inf, 3.0, math.inf]).reshape(1, 3, 1), torch.tensor([[2]]))
    assert state(scores).sum() == before.sum() + 4  # one pixel, and one score of each class
    assert scores.average_precision()[2] == 1.0
    with pytest.raises(ValueError, match="of 3 classes, got 2"):
        scores.update(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]))
    assert int(scores.confusion.sum()) == 3


def test_every_form_of_the_target_counts_alike():
    rng = generator(8)
    logits = torch.randn(2, 3, 5, 4, generator=rng)
    target = torch.randint(0, 3, (2, 5, 4), generator=rng)
    one_hot = torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    forms = [target, target.unsqueeze(1).float(), target.to(torch.uint8), one_hot, one_hot.float()]
    binary = [target > 1, (target > 1).float().unsqueeze(1), (target > 1).long()]
    for scores_in, targets in ((logits, forms), (logits[:, :1], binary)):
        expected = SegmentationScores(max(scores_in.shape[1], 2))
        expected.update(scores_in, targets[0])
        for form in targets[1:]:
            actual = SegmentationScores(expected.n_classes)
            actual.update(scores_in, form)
            assert torch.equal(state(actual), state(expected))
    with pytest.raises(ValueError, match="SegmentationScores has no formula for soft targets"):
        SegmentationScores().update(logits[:, :1], target[:, None] / 4)


@pytest.mark.parametrize("as_on_an_accelerator", [False, True])
@pytest.mark.parametrize(("n_channels", "illegal"), [(3, 255), (3, -1), (3, 0.5), (1, 2), (1, 1.5)])
def test_illegal_labels_are_refused_on_every_device(
    monkeypatch, as_on_an_accelerator, n_channels, illegal
):
    if as_on_an_accelerator:
        monkeypatch.setattr("dense_imb.losses.core.target.values_are_readable", lambda value: False)
    target = torch.tensor([[0, 1, illegal]])
    scores = SegmentationScores(max(n_channels, 2))
    with pytest.raises(ValueError, match="Expected `target`"):
        scores.update(torch.zeros(1, n_channels, 3), target)
    assert state(scores).sum() == 0


def plain_components(image):
    """Flood fill of one 2-D image, corners included: a list of sets of pixels."""
    left = {(int(y), int(x)) for y, x in image.nonzero()}
    actual = []
    while left:
        front = [left.pop()]
        component = set(front)
        while front:
            y, x = front.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            component |= near
            front += near
        actual.append(component)
    return actual


@pytest.mark.parametrize("min_cover", [0.0, 0.5])
def test_objects_are_the_plain_loops(min_cover):
    pytest.importorskip("scipy.ndimage")
    rng = generator(4)
    true = torch.rand(5, 14, 11, generator=rng) < 0.25
    predicted = (true & (torch.rand(5, 14, 11, generator=rng) < 0.4)) | (
        torch.rand(5, 14, 11, generator=rng) < 0.05
    )
    mask = torch.rand(5, 14, 11, generator=rng) < 0.9
    scores = ObjectScores(min_cover=min_cover)
    scores.update(predicted[:2], true[:2], mask=mask[:2])
    scores.update(predicted[2:], true[2:], mask=mask[2:])
    n_true = n_detected = n_predicted = n_false = 0
    for image, truth in zip(predicted & mask, true & mask, strict=True):
        lit = {(int(y), int(x)) for y, x in image.nonzero()}
        wanted = {(int(y), int(x)) for y, x in truth.nonzero()}
        for component in plain_components(truth):
            n_true += 1
            n_detected += (
                bool(component & lit) and len(component & lit) / len(component) >= min_cover
            )
        for component in plain_components(image):
            n_predicted += 1
            n_false += not component & wanted
    assert 0 < n_detected < n_true
    assert n_false > 0
    assert scores.scores() == {
        "n_objects": n_true,
        "detection": n_detected / n_true,
        "false_alarm_share": n_false / n_predicted,
        "false_alarms_per_million_pixels": pytest.approx(1e6 * n_false / int(mask.sum())),
    }


def test_objects_touch_in_corners_but_not_across_images():
    pytest.importorskip("scipy.ndimage")
    true = torch.tensor([[[1, 0], [0, 1]], [[0, 0], [0, 1]]]).bool()
    scores = ObjectScores()
    scores.update(torch.zeros_like(true), true)
    actual = scores.scores()
    assert (actual["n_objects"], actual["detection"]) == (2, 0.0)
    assert actual["false_alarms_per_million_pixels"] == 0.0
    assert math.isnan(actual["false_alarm_share"])
    scores = ObjectScores()
    scores.update(true.unsqueeze(2), true.unsqueeze(2))  # in three dimensions too
    assert scores.scores()["detection"] == 1.0


def test_objects_say_that_scipy_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.ndimage", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        ObjectScores().update(torch.zeros(1, 2).bool(), torch.zeros(1, 2).bool())
