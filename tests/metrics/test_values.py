"""Scores of value maps against plain loops."""

from __future__ import annotations

import json
import math
import statistics

import pytest
import torch

from dense_imb.metrics import ValueScores
from dense_imb.metrics.values import sums

from .samples import generator

NAMES = ("a", "b", "c")


def maps(seed=0, shape=(4, 2, 3, 5)):
    rng = generator(seed)
    target = torch.rand(shape, generator=rng) ** 3
    prediction = target + 0.3 * torch.randn(shape, generator=rng)
    field = torch.randint(0, 4, (shape[0], *shape[2:]), generator=rng)  # nobody in "c"
    return prediction, target, field


def errors_of(pairs):
    e = [p - t for p, t in pairs]
    return (
        statistics.fmean(map(abs, e)),
        math.sqrt(statistics.fmean(one * one for one in e)),
        statistics.fmean(e),
    )


def test_every_row_is_the_plain_loops():
    prediction, target, _ = maps()
    mean, given = (0.1, 0.4), target.flip(-1)
    scores = ValueScores(2, level=0.5, mean=mean, with_input=True)
    scores.update(prediction[:1], target[:1], input=given[:1])
    scores.update(prediction[1:], target[1:], input=given[1:])
    constant = torch.tensor(mean).view(1, 2, 1, 1).expand_as(target)
    expected = {
        "prediction": prediction, "blank": torch.zeros_like(target),
        "mean of training": constant, "input": given,
    }  # fmt: skip
    rows = {(row["scorer"], row["channel"]): row for row in scores.rows()}
    assert len(rows) == 4 * 3
    for name, image in expected.items():
        for channel, part in (("all", slice(None)), ("0", 0), ("1", 1)):
            p, t = (one[:, part].double().flatten().tolist() for one in (image, target))
            row = rows[name, channel]
            actual = (row["mae"], row["rmse"], row["bias"])
            assert actual == pytest.approx(errors_of(zip(p, t, strict=True)))
            n_lit, n_target = sum(one > 0.5 for one in p), sum(one > 0.5 for one in t)
            n_both = sum(a > 0.5 and b > 0.5 for a, b in zip(p, t, strict=True))
            assert row["lit_ratio"] == pytest.approx(n_lit / n_target)
            assert row["f1"] == pytest.approx(2 * n_both / (n_lit + n_target))
            assert row["n"] == len(p)


def forms_of(field):
    masks = torch.stack([(field >> g) & 1 == 1 for g in range(3)], 1)
    return {"bit field": field, "with a channel": field.unsqueeze(1).int(), "masks": masks}


@pytest.mark.parametrize("form", ["bit field", "with a channel", "masks"])
def test_cells_are_the_plain_loops(form):
    prediction, target, field = maps()
    scores = ValueScores(2, cells=NAMES, rest=True)
    cells = forms_of(field)[form]
    for part in (slice(0, 3), slice(3, 4)):
        scores.update(prediction[part], target[part], cells[part])
    rows = {row["cell"]: row for row in scores.cell_rows() if row["scorer"] == "prediction"}
    assert list(rows) == [*NAMES, "rest"]
    for number, name in enumerate(("a", "b")):
        check_cell(rows[name], prediction, target, (field >> number) & 1 == 1)
    check_cell(rows["rest"], prediction, target, field == 0)


def check_cell(row, prediction, target, is_in):
    pairs, of_images = [], []
    for p, t, inside in zip(prediction.double(), target.double(), is_in, strict=True):
        kept = list(
            zip(p[:, inside].flatten().tolist(), t[:, inside].flatten().tolist(), strict=True)
        )
        pairs += kept
        of_images.append(errors_of(kept)[0])
    assert row["n"] == len(pairs)
    assert row["n_images"] == len(of_images)
    assert row["share"] == pytest.approx(len(pairs) / target.numel())
    assert (row["mae"], row["rmse"], row["bias"]) == pytest.approx(errors_of(pairs))
    assert row["image_mae"] == pytest.approx(statistics.fmean(of_images))
    assert row["image_spread"] == pytest.approx(statistics.stdev(of_images))


def test_a_label_map_equals_its_masks():
    prediction, target, field = maps()
    label = field % 3
    by_label = ValueScores(2, cells=NAMES, labels=True)
    by_label.update(prediction, target, label)
    by_mask = ValueScores(2, cells=NAMES)
    by_mask.update(prediction, target, torch.stack([label == g for g in range(3)], 1))
    assert by_label.cell_rows() == by_mask.cell_rows()


def test_value_bins_are_the_plain_loops():
    prediction, target, _ = maps()
    target[0, 0, 0, 0] = 0.5  # an edge belongs to the bin above it
    scores = ValueScores(2, value_edges=[0.01, 0.5])
    scores.update(prediction, target)
    rows = [row for row in scores.bin_rows() if row["scorer"] == "prediction"]
    assert [row["bin"] for row in rows] == ["below 0.01", "0.01 to 0.5", "from 0.5"]
    pairs = list(
        zip(prediction.double().flatten().tolist(), target.double().flatten().tolist(), strict=True)
    )
    bounds = ((-math.inf, 0.01), (0.01, 0.5), (0.5, math.inf))
    for row, (low, high) in zip(rows, bounds, strict=True):
        inside = [(p, t) for p, t in pairs if low <= t < high]
        assert row["n"] == len(inside)
        assert (row["mae"], row["rmse"], row["bias"]) == pytest.approx(errors_of(inside))


def test_large_images_count_in_blocks(monkeypatch):
    prediction, target, field = maps(shape=(3, 2, 7, 5))
    mask = torch.rand(prediction.shape, generator=generator(1)) < 0.8
    options = {
        "level": 0.5, "value_edges": (0.2, 0.6), "mean": (0.1, 0.4),
        "with_input": True, "rest": True,
    }  # fmt: skip
    found = []
    for at_once in (1 << 21, 25, 1):  # all pixels, four of each image, one
        monkeypatch.setattr(sums, "_AT_ONCE", at_once)
        for cells, labels in (
            (field, False),
            (field, True),
            (torch.stack([field > k for k in range(4)], 1), False),
        ):
            scores = ValueScores(2, cells=["a", "b", "c", "d"], labels=labels, **options)
            scores.update(prediction, target, cells, input=target.flip(-1), mask=mask)
            found.append([*scores.rows(), *scores.cell_rows(), *scores.bin_rows()])
    for k in range(3):
        for row, blocks, single in zip(found[k], found[3 + k], found[6 + k], strict=True):
            assert blocks == pytest.approx(row, nan_ok=True)
            assert single == pytest.approx(row, nan_ok=True)


def test_masked_pixels_count_nowhere():
    prediction, target, field = maps()
    mask = torch.rand(4, 3, 5, generator=generator(1)) < 0.5
    options = {"level": 0.5, "value_edges": [0.2], "cells": NAMES, "rest": True}
    masked = ValueScores(2, **options)
    hole = target.where(mask.unsqueeze(1), math.nan)
    masked.update(prediction, hole, field.where(mask, -1), mask=mask)
    plain = ValueScores(2, **options)
    for i in range(4):  # one pixel after the other would be other images
        kept = mask[i]
        plain.update(
            prediction[i : i + 1, :, kept], target[i : i + 1, :, kept], field[i, kept][None]
        )
    for mine, other in zip(masked._tensors(), plain._tensors(), strict=True):
        torch.testing.assert_close(mine, other)


def test_missing_data_are_none_and_in_the_notes(tmp_path):
    prediction, target, field = maps()
    scores = ValueScores(2, level=5.0, value_edges=[0.5, 7.0], cells=NAMES)
    scores.update(prediction, target, field)
    n_outside = 2 * int((field == 0).sum())
    assert scores.notes() == [
        "No image has a pixel of these cells: c.",
        f"{n_outside} pixels ({100 * n_outside / target.numel():.3g} %) are in no cell.",
        "No pixel has a target in these value bins: from 7.",
        "No pixel has a target above the level 5.",
    ]
    stored = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    cell = next(row for row in stored["cells"] if row["cell"] == "c")
    assert (cell["n"], cell["n_images"], cell["mae"], cell["image_spread"]) == (0, 0, None, None)
    bin_row = next(row for row in stored["bins"] if row["bin"] == "from 7")
    assert (bin_row["n"], bin_row["mae"], bin_row["bias"]) == (0, None, None)
    assert stored["rows"][0]["lit_ratio"] is None
    assert stored["notes"] == scores.notes()
    assert math.isnan(scores.scores()["mae_c"])
    assert not math.isnan(scores.scores()["mean_cell_mae"])
    text = scores.text()
    assert all(note in text for note in scores.notes())
    assert "nan" not in text


def test_one_image_has_no_spread():
    scores = ValueScores(cells=["a"])
    scores.update(torch.ones(1, 1, 4), torch.zeros(1, 1, 4), torch.ones(1, 4, dtype=torch.int64))
    row = scores.cell_rows()[0]
    assert row["image_mae"] == 1.0
    assert math.isnan(row["image_spread"])


def test_a_level_of_its_own_for_predictions():
    prediction, target = torch.tensor([[[0.3, 0.3, 0.0]]]), torch.tensor([[[1.0, 0.0, 0.0]]])
    for lit_level, expected in ((None, 0.0), (0.2, 2.0), ([0.2], 2.0)):
        scores = ValueScores(level=0.5, lit_level=lit_level)
        scores.update(prediction, target)
        assert [row["lit_ratio"] for row in scores.rows()] == [expected, 0.0]


def test_maps_without_pixels_and_vectors():
    empty = ValueScores(cells=["a"], level=0.5, value_edges=[1.0])
    empty.update(torch.zeros(0, 1, 4), torch.zeros(0, 1, 4), torch.zeros(0, 4, dtype=torch.int64))
    assert math.isnan(empty.scores()["mae"])
    vector = ValueScores(3)
    vector.update(torch.ones(2, 3), torch.zeros(2, 3))
    assert vector.scores()["mae"] == 1.0


def bad_updates():
    p, t, field = maps()
    nan = t.clone()
    nan[0, 0, 0, :2] = math.nan
    cells = ValueScores(2, cells=NAMES)
    labels = ValueScores(2, cells=NAMES, labels=True)
    plain = ValueScores(2)
    yield (
        lambda: plain.update(p, nan),
        "`target` without NaN or infinity, got 2 in 120 pixels; leave",
    )
    yield lambda: plain.update(nan, t), "`prediction` without NaN.*look for it in the network"
    yield lambda: plain.update(p, t[:, :1]), "`target` in the shape of `prediction`"
    yield lambda: plain.update(p[:, :1], t[:, :1]), r"`prediction` \(B, 2, \*spatial\), got \(4, 1"
    yield lambda: plain.update(p, t, field), "no `cells`, got some; name them"
    yield lambda: plain.update(p, t, input=t), "no `input`, got one; .*with_input=True"
    yield lambda: ValueScores(2, with_input=True).update(p, t), "`input` in each update"
    yield lambda: cells.update(p, t), "`cells` of a, b, c, got none"
    yield lambda: cells.update(p, t, field + 8), "bits 0 to 2 of a, b, c, got the bit 3 in 120"
    yield lambda: cells.update(p, t, field - 8), "got a negative number in"
    yield lambda: labels.update(p, t, field + 1), "labels 0 to 2 of a, b, c, got . in"
    yield lambda: cells.update(p, t, field[..., 1:]), r"in the shape \(4, 3, 5\), got \(4, 3, 4\)"
    yield lambda: cells.update(p, t, forms_of(field)["masks"][:, 1:]), r"\(4, 3, 3, 5\), got \(4, 2"
    yield lambda: ValueScores(0), "`n_channels`"
    yield lambda: ValueScores(value_edges=[1.0, 1.0]), "`value_edges` to rise, got 1 before 1"
    yield lambda: ValueScores(cells=["a", "a"]), "different names, got 'a' twice"
    yield lambda: ValueScores(cells=[str(g) for g in range(63)]), "at most 62 `cells`"
    yield lambda: ValueScores(2, mean=[1.0]), "`mean` with one number for each of the 2 channels"
    yield lambda: ValueScores(lit_level=0.2), "`level`, that of the targets, beside `lit_level`"


@pytest.mark.parametrize("bad", list(bad_updates()))
def test_bad_input_is_refused(bad):
    call, sentence = bad
    with pytest.raises(ValueError, match=sentence):
        call()


def test_types_are_refused():
    p, t, field = maps()
    with pytest.raises(TypeError, match="masks of bool or integers, got torch.float32"):
        ValueScores(2, cells=NAMES).update(p, t, field.float())
    with pytest.raises(TypeError, match=r"list of names, got 'heart'; write \[\"heart\"\]"):
        ValueScores(cells="heart")
    with pytest.raises(TypeError, match="`prediction` to be floating point"):
        ValueScores(2).update(t.long(), t)
