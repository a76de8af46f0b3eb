"""The comparisons of losses on crosses and on heat maps of key points, at a tiny size."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("scipy")
Image = pytest.importorskip("PIL.Image")

FOLDER = Path(__file__).parents[2] / "experiments" / "values"
MODULES = (
    "collapse", "collapse_figure", "contest", "crosses", "key_points", "mouse", "paired_runs",
)  # fmt: skip
NAMES = ("snout", "leftear", "rightear", "tailbase")


@pytest.fixture
def values(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import collapse
    import collapse_figure
    import contest
    import crosses
    import key_points
    import mouse

    sizes = {
        "crosses": contest.Size((1, 2), 1, 8, 3, 4),
        "mouse": contest.Size((1, 2), 1, 8, 0, 0),
    }
    yield SimpleNamespace(
        collapse=collapse, figure=collapse_figure, contest=contest, crosses=crosses,
        key_points=key_points, mouse=mouse, sizes=sizes,
    )  # fmt: skip
    for name in MODULES:
        sys.modules.pop(name)


@pytest.fixture
def data(tmp_path):
    """Write a video of ten frames of 64 x 56 pixels, whose points move to the right."""
    folder = tmp_path / "data" / "mouse_keypoints"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    heads = ["image", *(f"{name}_{axis}" for name in NAMES for axis in "xy")]
    lines = [",".join(heads)]
    for k in range(10):
        pixels = rng.integers(0, 255, (56, 64), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{k}.png")
        places = [f"{10 + 3 * k + 5 * n},{12 + 8 * n}" for n in range(4)]
        lines.append(",".join([f"{k}.png", *places]))
    (folder / "keypoints.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_every_loss_has_a_row_and_a_line(values, data, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    arguments = [str(out), "--data", str(data.parent), "--seeds", "0", "1"]
    arguments += ["--tasks", "crosses-0.08", "mouse-2"]
    values.collapse.main(arguments, values.sizes)
    text = (out / "collapse.md").read_text()
    assert text.strip() in capsys.readouterr().out
    rows = [line.split(" | ")[:2] for line in text.splitlines() if "(2)" in line]
    for steps in ("| 1", "| 2"):
        losses = [name.removesuffix(" (2)") for first, name in rows if first == steps]
        assert losses.count("MSE") == losses.count("Balanced MSE") == 2
        assert losses.count("value bins") == 1  # of heat maps alone
        assert sum(name in values.contest.TRIED for name in losses) == 2  # one tuned weight each
    stored = json.loads((out / "collapse.json").read_text())
    assert set(stored) == {"crosses-0.08", "mouse-2"}
    for task in stored.values():
        assert set(task["losses"]) <= set(values.figure.STYLES)
        assert all(
            len(point["lit"]) == 2 for one in task["losses"].values() for point in one.values()
        )
    assert (out / "collapse.png").stat().st_size > 10_000
    monkeypatch.setattr(values.contest, "train", None)  # a run that is trained again fails
    values.collapse.main(arguments, values.sizes)
    assert (out / "collapse.md").read_text() == text
    # key points take the same runs
    values.key_points.main([*arguments[:-2], "mouse-2"], values.sizes)
    text = (out / "key_points.md").read_text()
    assert "| steps | loss | error | median error | PCK at 4 pixels | blank |" in text
    assert "crosses" not in text


def test_runs_repeat(values):
    task = values.crosses.crosses("0.3", values.sizes["crosses"])
    rows = [
        values.contest.run(task, "Balanced MSE", values.sizes["crosses"], seed)
        for seed in (0, 0, 1)
    ]
    for row in rows:
        row.pop("train_seconds")
    assert rows[0] == rows[1]
    assert rows[0]["points"] != rows[2]["points"]


@pytest.mark.parametrize(("share", "n"), [("0.03", 5), ("0.08", 13), ("0.3", 52), ("9.6", 1573)])
def test_crosses_fill_their_share(values, share, n):
    size = values.sizes["crosses"]
    task = values.crosses.crosses(share, size)
    image, target = task.validation.image, task.validation.target
    assert (target > 0).sum((1, 2, 3)).tolist() == [n] * size.n_validation
    assert 100 * task.share == pytest.approx(float(share), rel=0.06)
    for one, wanted in zip(image, target, strict=True):
        is_shown = (one == wanted) & (one > 0)
        assert int(is_shown.sum()) == min(n, values.crosses.N_SHOWN)
        assert int((one > 0).sum()) <= int(is_shown.sum()) + values.crosses.N_NOISE
    assert not torch.equal(target[0], task.test.target[0])
    value = target.flatten(1).amax(1).sort().values  # one from each third of 0.5 to 1
    assert ((value - 0.5) * 6).floor().tolist() == [0, 1, 2]


def test_a_mirror_swaps_the_ears(values, data):
    task = values.mouse.mouse(2.0, values.sizes["mouse"], data, 1)
    rng, seen = np.random.default_rng(0), set()
    for _ in range(20):
        _, target = task.batch(rng, 1)
        x = [int(one.flatten().argmax()) % target.shape[3] for one in target[0]]
        y = [int(one.flatten().argmax()) // target.shape[3] for one in target[0]]
        mirrored = (x[0] > x[3], y[0] > y[3])
        seen.add(mirrored)
        # from snout to tail: snout, left, right, tail; a mirror makes the left ear the right one
        ahead = abs(x[1] - x[0]) < abs(x[2] - x[0])
        assert ahead == (sum(mirrored) != 1)
    assert len(seen) == 4


def test_frames_are_divided_by_time(values, data):
    task = values.mouse.mouse(2.0, values.sizes["mouse"], data, 2)
    # snouts at x = 10 + 3 k of the frames, halved; the centre of the first pixel is 0
    assert task.validation.points[:, 0, 0].tolist() == [13.75, 15.25]
    assert task.test.points[:, 0, 0].tolist() == [16.75, 18.25]
    peaks = task.extra(task.test.target, task.test)
    assert peaks["error"] < 0.01
    assert peaks["pck_4"] == 1


def test_lit_pixels_by_hand(values):
    target = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]).view(2, 1, 2, 2)
    output = torch.tensor([[0.0, 0.3, 0.0, 0.0], [0.8, 0.9, 0.6, 0.0]]).view(2, 1, 2, 2)
    scores = values.contest.lit_scores(output, target, 0.5, 0.5)
    assert scores["blank"] == 0.5
    assert scores["lit"] == 1
    assert scores["F1"] == pytest.approx(4 / 6)
    assert scores["rmse"] == pytest.approx((1.5 / 3) ** 0.5)


def test_the_weight_is_tuned_on_validation_maps(values):
    task = values.crosses.crosses("0.3", values.sizes["crosses"])
    runs = {}
    for k, name in enumerate(values.contest.TRIED):
        points = {
            steps: {"chosen": {"F1": [0.2, 0.6, 0.3][k]}, "scores": {"F1": [0.9, 0.1, 0.2][k]}}
            for steps in ("1", "2")
        }
        runs[name] = {0: {"loss": name, "seed": 0, "points": points}}
    assert values.contest.tuned(task, runs) == values.contest.TRIED[1]
    runs.pop(values.contest.TRIED[0])
    assert values.contest.tuned(task, runs) is None


def test_losses_by_hand(values):
    prediction, target = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.0])
    losses = values.contest.LOSSES
    for weight in values.contest.WEIGHTS:
        loss = losses[f"{values.contest.TUNED} {weight}"]((0.1,))
        assert float(loss(prediction, target)) == pytest.approx((0.25 * (1 + weight / 2) + 1) / 2)
    for name, make in losses.items():
        free = prediction.clone().requires_grad_()
        make((0.1, 0.5))(free, target).backward()
        assert bool(free.grad.isfinite().all()), name


def test_the_figure_shows_the_stored_means(values):
    by_x = {3.0: {"lit": [1.0, None]}, 1.0: {"lit": [2.0, 4.0]}, 2.0: {"lit": [None, None]}}
    assert values.figure._means(by_x, "lit") == ([1.0, 3.0], [3.0, 1.0])
