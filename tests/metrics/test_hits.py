"""Scores of hits against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dense_imb.metrics import HitScores

from .processes import POINT, state
from .samples import generator


def hits(n_events=60, seed=0):
    """Events with and without signal, noise and hits at all; a fifth of the hits occluded."""
    rng = generator(seed)
    size = torch.randint(0, 40, (n_events,), generator=rng)
    event = torch.arange(n_events).repeat_interleave(size)
    n = len(event)
    is_signal = (torch.rand(n, generator=rng) < 0.3) & (event % 4 != 0)
    true_time = torch.randint(1, 1000, (n,), generator=rng).float()
    is_exact = torch.rand(n, generator=rng) < 0.6
    time = torch.where(is_exact, true_time, true_time + torch.randn(n, generator=rng) * 5)
    return {
        "score": (torch.randn(n, generator=rng) + 2 * is_signal).sigmoid(),
        "label": is_signal * torch.randint(1, 4, (n,), generator=rng),
        "event": event,
        "time": time,
        "true_time": true_time,
        "is_visible": torch.rand(n, generator=rng) < 0.8,
    }


def plain_hit_scores(hits, n_events, threshold):
    """Everything once more, one hit after the other: hidden hits count as all others do."""
    rows = [
        dict(zip(hits, values, strict=True))
        for values in zip(*(tensor.tolist() for tensor in hits.values()), strict=True)
    ]
    for row in rows:
        row["kept"] = row["score"] >= threshold
        row["signal"] = row["label"] > 0
    signal = [row for row in rows if row["signal"]]
    noise = [row for row in rows if not row["signal"]]
    kept_signal = [row for row in signal if row["kept"]]
    kept_noise = [row for row in noise if row["kept"]]
    visible_signal = [row for row in signal if row["is_visible"]]
    visible_noise = [row for row in noise if row["is_visible"]]
    kept_visible = [row for row in visible_signal if row["kept"]]
    recovered = [row for row in kept_visible if row["time"] == row["true_time"]]
    residual = [row["time"] - row["true_time"] for row in kept_visible]
    per_event = {"retention": [], "removal": []}
    noise_only = []
    for e in range(n_events):
        own = [row for row in signal if row["event"] == e]
        if own:
            per_event["retention"].append(sum(row["kept"] for row in own) / len(own))
        other = [row for row in noise if row["event"] == e]
        if other:
            per_event["removal"].append(sum(not row["kept"] for row in other) / len(other))
        if other and not own:
            noise_only.append(sum(row["kept"] for row in other))
    occluded = 1 - len(visible_signal) / len(signal)
    return per_event, {
        "n_events": n_events,
        "n_signal": len(signal),
        "n_noise": len(noise),
        "retention": len(kept_signal) / len(signal),
        "removal": 1 - len(kept_noise) / len(noise),
        "visible_retention": len(kept_visible) / len(visible_signal),
        "visible_removal": sum(not row["kept"] for row in visible_noise) / len(visible_noise),
        "purity": len(kept_signal) / (len(kept_signal) + len(kept_noise)),
        "false_alarm_hits_per_event": sum(noise_only) / len(noise_only),
        "false_alarm_event_share": sum(n > 0 for n in noise_only) / len(noise_only),
        "occluded_share": occluded,
        "time_recovery": len(recovered) / len(signal),
        "time_recovery_ceiling": len(kept_visible) / len(signal),
        "time_residual_mean": sum(residual) / len(residual),
        "time_residual_mean_absolute": sum(map(abs, residual)) / len(residual),
        "time_residual_rms": math.sqrt(sum(r * r for r in residual) / len(residual)),
    }


def test_hit_scores_are_the_plain_loops():
    events = hits()
    per_event, expected = plain_hit_scores(events, 62, POINT.threshold)
    scores = HitScores(POINT)
    # in two calls, of whole events; the last two are empty
    early = events["event"] < 31
    scores.update(**{name: tensor[early] for name, tensor in events.items()}, n_events=31)
    late = {name: tensor[~early] for name, tensor in events.items()}
    late["event"] = late["event"] - 31
    order = torch.randperm(len(late["event"]), generator=generator(5))  # in any order
    scores.update(**{name: tensor[order] for name, tensor in late.items()}, n_events=31)
    actual = scores.scores()
    assert {name: actual[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert actual["time_recovery"] < actual["time_recovery_ceiling"] < actual["retention"]
    for name, values in per_event.items():
        for q in (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0):
            exact = np.quantile(values, q, method="inverted_cdf")
            assert scores.event_quantile(name, q) == pytest.approx(exact, abs=5e-4)
    assert actual["event_retention_q05"] == scores.event_quantile("retention", 0.05)
    assert actual["removal_at_97"] == scores.histogram.removal_at(0.97)
    assert actual["auc"] == scores.histogram.auc()
    assert scores.histogram.n_signal == expected["n_signal"]


def test_masking_reaches_its_ceiling_exactly():
    events = hits()
    scores = HitScores(POINT)
    scores.update(**{**events, "time": events["true_time"]})
    actual = scores.scores()
    assert actual["time_recovery"] == pytest.approx(actual["time_recovery_ceiling"], abs=1e-15)
    assert 0 < actual["occluded_share"] < 1
    assert actual["time_residual_rms"] == 0.0


def test_without_flags_every_hit_is_visible():
    events = hits()
    scores = HitScores(POINT)
    scores.update(events["score"], events["label"], events["event"])
    actual = scores.scores()
    assert actual["occluded_share"] == 0.0
    assert actual["time_recovery_ceiling"] == actual["retention"]
    assert actual["visible_retention"] == actual["retention"]
    assert actual["visible_removal"] == actual["removal"]
    assert math.isnan(actual["time_recovery"])
    assert math.isnan(actual["time_residual_rms"])
    assert math.isnan(actual["ghost_rate"])
    assert math.isnan(HitScores(POINT).event_quantile("retention", 0.5))


def test_the_scores_of_hidden_hits_count_in_every_score():
    """A hidden hit has the score of its pixel: kept signal and kept noise like any other."""
    scores = HitScores(POINT)
    scores.update(
        score=torch.tensor([0.9, 0.9, 0.1, 0.9, 0.1]),
        label=torch.tensor([1, 1, 1, 0, 0]),
        event=torch.zeros(5, dtype=torch.int64),
        is_visible=torch.tensor([True, False, False, False, True]),
    )
    actual = scores.scores()
    assert (actual["retention"], actual["visible_retention"]) == (2 / 3, 1.0)
    assert (actual["removal"], actual["visible_removal"]) == (0.5, 1.0)
    assert actual["purity"] == 2 / 3
    assert (actual["n_signal"], actual["n_noise"]) == (3, 2)
    assert scores.event_quantile("retention", 0.5) == pytest.approx(2 / 3, abs=5e-4)
    assert actual["time_recovery_ceiling"] == pytest.approx(1 / 3)


def test_an_event_whose_signal_is_all_hidden_is_not_noise_only():
    """Events of noise only are those without signal, seen or hidden; hidden noise counts, too."""
    scores = HitScores(POINT)
    scores.update(
        torch.tensor([0.9, 0.9, 0.9, 0.1, 0.9]),
        torch.tensor([1, 0, 0, 0, 0]),
        torch.tensor([0, 0, 1, 2, 4]),  # the fourth event is empty, and no event of noise either
        n_events=6,
        is_visible=torch.tensor([False, True, True, True, False]),
    )
    actual = scores.scores()
    assert actual["n_events"] == 6
    alarms = (actual["false_alarm_hits_per_event"], actual["false_alarm_event_share"])
    assert alarms == (2 / 3, 2 / 3)
    assert scores.histogram.n_noise_only == 3
    assert scores.histogram.at(POINT.threshold).fakes == actual["false_alarm_hits_per_event"]
    assert actual["retention"] == 1.0
    assert math.isnan(actual["visible_retention"])
    assert actual["occluded_share"] == 1.0


def test_ghosts_are_lit_pixels_without_a_hit():
    scores = HitScores(POINT)
    is_lit = torch.tensor([[[1, 1, 0, 1]], [[0, 1, 0, 1]]]).bool()
    is_hit = torch.tensor([[[1, 0, 1, 0]], [[0, 0, 0, 1]]]).bool()
    scores.update_output(is_lit, is_hit)
    actual = scores.scores()
    assert (actual["ghost_rate"], actual["ghosts_per_frame"]) == (3 / 5, 3 / 2)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"event": [0, -1]}, "`event` between 0 and 1, got -1"),
        ({"event": [0, -1], "n_events": None}, "`event` at least 0, got -1"),
        ({"n_events": 1}, "`event` between 0 and 0, got 1"),
        ({"label": [1, -1]}, "`label` of at least 0, got -1"),
        ({"score": [0.5, math.nan]}, "without NaN"),
        ({"time": None}, "`time` and `true_time` together"),
        ({"true_time": [math.nan, 1.0]}, "`time` and `true_time` of kept signal without NaN"),
        ({"is_visible": [True]}, "`is_visible` in the shape of `score`"),
    ],
)
def test_bad_hits_are_refused_and_not_counted(change, sentence):
    arguments = {
        "score": [0.9, 0.8], "label": [1, 0], "event": [0, 1], "n_events": 2,
        "time": [1.0, math.nan], "true_time": [1.0, 2.0], "is_visible": [True, True],
    }  # fmt: skip

    def tensors(values):
        return {k: torch.tensor(v) if isinstance(v, list) else v for k, v in values.items()}

    HitScores(POINT).update(**tensors(arguments))  # a NaN time of noise is no one's
    scores = HitScores(POINT)
    with pytest.raises(ValueError, match=sentence):
        scores.update(**tensors({**arguments, **change}))
    assert state(scores).sum() == 0
