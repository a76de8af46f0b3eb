"""Scores of whole images, against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dense_imb.metrics import ClassificationScores, ScoreHistogram, class_groups

oracle = pytest.importorskip("sklearn.metrics")


def sample(n_classes: int, n: int = 300, seed: int = 0):
    """Long-tailed labels, and logits that know something; each on the edge of a bin."""
    rng = np.random.default_rng(seed)
    share = 0.6 ** np.arange(n_classes)
    label = rng.choice(n_classes, n, p=share / share.sum())
    logits = rng.normal(0, 1.5, (n, n_classes))
    logits[np.arange(n), label] += 1.5
    return torch.from_numpy(logits), torch.from_numpy(label)


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_every_score_is_that_of_scikit_learn(n_classes):
    logits, label = sample(n_classes)
    scores = ClassificationScores(n_classes)
    for part in range(0, 300, 77):
        scores.update(logits[part : part + 77], label[part : part + 77])
    called, probability = logits.argmax(1), logits.softmax(1)
    wanted = {
        "accuracy": oracle.accuracy_score(label, called),
        "balanced_accuracy": oracle.balanced_accuracy_score(label, called),
        "macro_f1": oracle.f1_score(label, called, average="macro"),
        "quadratic_kappa": oracle.cohen_kappa_score(label, called, weights="quadratic"),
        "matthews": oracle.matthews_corrcoef(label, called),
    }
    actual = scores.scores()
    for name, value in wanted.items():
        assert actual[name] == pytest.approx(value, abs=1e-12), name
    assert scores.confusion.tolist() == oracle.confusion_matrix(label, called).tolist()
    of_class = [oracle.roc_auc_score(label == k, probability[:, k]) for k in range(n_classes)]
    # scores in one of the histogram's 1000 bins are ties
    assert actual["auc"] == pytest.approx(np.mean(of_class), abs=2e-3)
    if n_classes > 2:
        macro = oracle.roc_auc_score(label, probability, multi_class="ovr")
        assert np.mean(of_class) == pytest.approx(macro)


def test_the_calibration_error_is_the_sum_over_bins():
    logits, label = sample(4)
    scores = ClassificationScores(4)
    scores.update(logits, label)
    confidence, called = logits.softmax(1).max(1)
    right = (called == label).double()
    total = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            gap = (right[inside].mean() - confidence[inside].mean()).abs()
            total += float(inside.double().mean() * gap)
    assert scores.calibration_error() == pytest.approx(total, abs=1e-12)


def test_groups_follow_the_training_counts():
    counts = (500, 101, 100, 20, 19, 1)
    groups = class_groups(counts)
    assert groups == {"head": (0, 1), "middle": (2, 3), "tail": (4, 5)}
    assert class_groups(counts, many=499, few=2)["tail"] == (5,)
    with pytest.raises(ValueError, match="`few` up to `many`"):
        class_groups(counts, many=5, few=6)
    logits, label = sample(6)
    scores = ClassificationScores(6, train_counts=counts)
    scores.update(logits, label)
    recall = scores.recall()
    for name, members in groups.items():
        assert scores.group_accuracy()[name] == pytest.approx(np.mean([recall[k] for k in members]))
        assert scores.scores()[f"{name}_accuracy"] == scores.group_accuracy()[name]


def test_one_class_for_all_is_worth_nothing():
    scores = ClassificationScores(3)
    logits = torch.tensor([[5.0, 0, 0]]).expand(9, 3)
    scores.update(logits, torch.tensor([0] * 7 + [1, 2]))
    actual = scores.scores()
    assert actual["accuracy"] == pytest.approx(7 / 9)
    assert actual["balanced_accuracy"] == pytest.approx(1 / 3)
    assert (actual["matthews"], actual["quadratic_kappa"], actual["most_called"]) == (0, 0, 1)
    assert actual["auc"] == 0.5


def test_without_data_the_score_is_nan():
    scores = ClassificationScores(3, train_counts=(500, 500, 500))
    assert all(math.isnan(value) for value in scores.scores().values())
    scores.update(torch.eye(3)[:2] * 4, torch.tensor([0, 1]))
    assert scores.balanced_accuracy() == 1
    assert math.isnan(scores.recall()[2])
    assert math.isnan(scores.group_accuracy()["tail"])


def test_the_quadratic_kappa_minds_the_distance():
    near, far = ClassificationScores(5), ClassificationScores(5)
    label = torch.arange(5).repeat(4)
    for scores, wrong in ((near, 1), (far, 4)):
        called = label.clone()
        called[0] = wrong
        scores.update(torch.eye(5)[called] * 9, label)
    assert near.accuracy() == far.accuracy()
    assert near.quadratic_kappa() > far.quadratic_kappa()


@pytest.mark.parametrize(
    ("logits", "label", "sentence"),
    [
        (torch.zeros(2, 3, 1), torch.zeros(2).long(), r"\(B, n_classes\)"),
        (torch.zeros(2, 3), torch.zeros(3).long(), r"`label` \(B,\)"),
        (torch.zeros(2, 4), torch.zeros(2).long(), "of 3 classes, got 4"),
        (torch.full((1, 3), torch.nan), torch.zeros(1).long(), "without NaN"),
        (torch.zeros(1, 3), torch.tensor([3]), "between 0 and 2"),
    ],
)
def test_wrong_shapes_and_values_are_refused(logits, label, sentence):
    with pytest.raises(ValueError, match=sentence):
        ClassificationScores(3).update(logits, label)


def test_parts_of_other_head_and_tail_do_not_add_up():
    with pytest.raises(ValueError, match="Expected `other`"):
        ClassificationScores(2, train_counts=(9, 1)).merge(ClassificationScores(2))


def test_a_file_of_another_score_is_refused(tmp_path):
    ScoreHistogram().save(tmp_path / "scores.json")
    with pytest.raises(ValueError, match="ClassificationScores"):
        ClassificationScores.load(tmp_path / "scores.json")
