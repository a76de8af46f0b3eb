"""Scores of key points against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dense_imb.metrics import KeyPointScores

from .samples import generator

NAMES = ("snout", "ear", "tail")


def sample(n=200, seed=0):
    rng = generator(seed)
    target = 100 * torch.rand(n, 3, 2, generator=rng, dtype=torch.float64)
    prediction = target + 4 * torch.randn(n, 3, 2, generator=rng).double()
    target[torch.rand(n, 3, generator=rng) < 0.3] = math.nan
    prediction[torch.rand(n, 3, generator=rng) < 0.2] = math.nan
    prediction[:5] = math.nan
    return prediction, target


def plain(prediction, target, called, points, distance):
    """Loop over frames and points."""
    errors, near, right, n_true = [], 0, 0, 0
    for i in range(len(target)):
        for k in points:
            is_true = not bool(target[i, k].isnan().any())
            right += is_true == bool(called[i, k])
            n_true += is_true
            if is_true and not bool(prediction[i, k].isnan().any()):
                error = math.dist(prediction[i, k].tolist(), target[i, k].tolist())
                errors.append(error)
                near += error <= distance
    return {
        "n_points": n_true,
        "error": np.mean(errors),
        "median_error": np.median(errors),
        f"pck_{distance:g}": near / n_true,
        "position": len(errors) / n_true,
        "visibility": right / (len(target) * len(points)),
    }


@pytest.mark.parametrize("with_verdicts", [False, True])
def test_scores_are_the_plain_loops(with_verdicts):
    prediction, target = sample()
    verdict = torch.rand(200, 3, generator=generator(5)) < 0.4 if with_verdicts else None
    called = ~prediction.isnan().any(-1) if verdict is None else verdict
    scores = KeyPointScores(NAMES, distances=(4.0, 2.5))
    for part in (slice(0, 7), slice(7, 200)):
        scores.update(
            prediction[part], target[part], is_visible=None if verdict is None else verdict[part]
        )
    for distance in (4.0, 2.5):
        for k, name in enumerate(NAMES):
            expected = plain(prediction, target, called, [k], distance)
            actual = {key: scores.rows()[name][key] for key in expected}
            assert actual == pytest.approx(expected, rel=0.01)
            del expected["median_error"], actual["median_error"]
            assert actual == pytest.approx(expected, rel=1e-12)
        total = plain(prediction, target, called, [0, 1, 2], distance)
        assert {key: scores.scores()[key] for key in total} == pytest.approx(total, rel=0.01)
        assert scores.pck(distance) == scores.scores()[f"pck_{distance:g}"]
        rows = [row[f"pck_{distance:g}"] for row in scores.rows().values()]
        assert scores.scores()[f"mean_pck_{distance:g}"] == pytest.approx(np.mean(rows))
    with_point = (~target.isnan().any(-1)).any(1)
    blank = (with_point & ~called.any(1)).sum() / with_point.sum()
    assert scores.scores()["blank_rate"] == pytest.approx(float(blank))


def test_perfect_and_blank_predictions():
    _, target = sample()
    perfect, blank = KeyPointScores(NAMES), KeyPointScores(NAMES)
    perfect.update(target, target)
    blank.update(torch.full_like(target, math.nan), target)
    values = perfect.scores()
    assert values["error"] == 0
    assert values["median_error"] < 0.01
    assert (values["pck_4"], values["visibility"], values["blank_rate"]) == (1.0, 1.0, 0.0)
    values = blank.scores()
    assert math.isnan(values["error"])
    assert math.isnan(values["median_error"])
    assert (values["pck_4"], values["position"], values["blank_rate"]) == (0.0, 0.0, 1.0)


def test_frames_without_a_true_point_are_not_blank():
    scores = KeyPointScores(["snout"])
    scores.update(torch.full((3, 1, 2), math.nan), torch.full((3, 1, 2), math.nan))
    assert math.isnan(scores.scores()["blank_rate"])
    assert scores.scores()["n_frames"] == 3
    assert scores.scores()["visibility"] == 1.0


def test_huge_errors_are_counted():
    scores = KeyPointScores(["snout"])
    scores.update(torch.full((3, 1, 2), 1e6), torch.zeros(3, 1, 2))
    assert scores.scores()["error"] == pytest.approx(1e6 * math.sqrt(2))
    assert scores.scores()["median_error"] >= 1e4


def test_bad_input_is_one_sentence():
    prediction, target = sample(4)
    with pytest.raises(ValueError, match=r"`target` \(B, 2, 2\) for the key points a, b, got"):
        KeyPointScores(["a", "b"]).update(prediction, target)
    scores = KeyPointScores(NAMES)
    with pytest.raises(ValueError, match="`prediction` in the shape of `target`"):
        scores.update(prediction[:2], target)
    with pytest.raises(ValueError, match="`is_visible` in the shape"):
        scores.update(prediction, target, is_visible=torch.ones(4, 2))
    with pytest.raises(ValueError, match="without infinity"):
        scores.update(target / 0, target)
    with pytest.raises(TypeError, match="floating point"):
        scores.update(prediction.nan_to_num().long(), target)
    with pytest.raises(ValueError, match="a different name for each key point"):
        KeyPointScores(["a", "a"])
    with pytest.raises(ValueError, match="`distances` of at least 0"):
        KeyPointScores(["a"], distances=[-1])
    with pytest.raises(ValueError, match="one of 4, got 7; name it in `distances`"):
        scores.pck(7)
    assert scores.scores()["n_frames"] == 0
