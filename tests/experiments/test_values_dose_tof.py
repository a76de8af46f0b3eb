"""The comparisons of losses on doses and on time-of-flight frames, at a tiny size."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("scipy")
h5py = pytest.importorskip("h5py")

FOLDER = Path(__file__).parents[2] / "experiments" / "values"
MODULES = ("dose", "tof", "paired_runs")
STRUCTURES = (
    "possible_dose_mask", "Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Esophagus",
    "Larynx", "Mandible", "PTV56", "PTV63", "PTV70",
)  # fmt: skip


@pytest.fixture
def values(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import dose
    import paired_runs
    import tof

    training = dict.fromkeys(tof.NETWORKS, tof.Training(2, 2, 0.01))
    yield SimpleNamespace(
        dose=dose,
        tof=tof,
        runs=paired_runs,
        size=dose.Size((4, 8), (8, 8, 8), 2, 4),
        frames=tof.Size(32, 22, 20, 12, 6, 6, 2, (4, 8), training),
    )
    for name in MODULES:
        sys.modules.pop(name)


@pytest.fixture
def patients(tmp_path):
    """Write patients whose structures overlap, some of them empty."""
    rng = np.random.default_rng(0)
    for part, n in (("train", 3), ("validation", 4)):
        with h5py.File(tmp_path / f"{part}.h5", "w") as file:
            file.attrs["structures"] = list(STRUCTURES)
            for k in range(n):
                field = np.zeros((16, 16, 16), np.uint16)
                field[3:13, 4:12, 2:13] = 1
                for bit in range(1, 11):
                    a, b, c = rng.integers(4, 8, 3)
                    if bit != 5 or k:
                        field[a : a + 3, b : b + 3, c : c + 3] |= 1 << bit
                group = file.create_group(f"pt_{k}")
                group["structures"] = field
                group["dose"] = (70 * rng.uniform(size=field.shape) * (field & 1)).astype("f2")
                group["ct"] = rng.integers(0, 2000, field.shape).astype(np.uint16)
                group.attrs["voxel_mm"] = [4.0, 4.0, 3.0]
    return tmp_path


def test_every_loss_of_doses_has_a_row(values, patients, capsys, monkeypatch):
    out = patients / "out"
    arguments = [str(out), "--data", str(patients), "--seeds", "0", "1"]
    values.dose.main(arguments, values.size)
    text = (out / "tables.md").read_text()
    assert text.strip() in capsys.readouterr().out
    tried = [name for name in values.dose.TRIED if f"\n| {name} (2) |" in text]
    assert 1 <= len(tried) <= 3  # other weights have the first seed alone
    for name in (*values.dose.RIVALS, *values.dose.CONTESTANTS):
        assert f"\n| {name} (2) |" in text
    for name in ("blank", "mean of training", *STRUCTURES[1:]):
        assert f"\n| {name} |" in text
    assert "nan" not in text
    assert len(list(out.glob("*-[01].json"))) == 2 * len(values.dose.LOSSES) - 3 + len(tried)
    monkeypatch.setattr(values.dose, "train", None)  # a run that is trained again fails
    values.dose.main(arguments, values.size)
    values.dose.main([str(out), "--tables"])
    assert (out / "tables.md").read_text() == text


def test_every_loss_of_frames_has_a_row(values, tmp_path, capsys, monkeypatch):
    arguments = [str(tmp_path), "--seeds", "0", "1"]
    values.tof.main(arguments, values.frames)
    text = (tmp_path / "tables.md").read_text()
    assert text.strip() in capsys.readouterr().out
    for name in ("MSE", "MAE", *values.tof.CONTESTANTS):
        assert text.count(f"\n| {name} (2) |") == 2  # one for each network
    for name in ("blank", "mean of training", "input"):
        assert text.count(f"\n| {name} |") == 2
    monkeypatch.setattr(values.tof, "train", None)
    values.tof.main(arguments, values.frames)
    assert (tmp_path / "tables.md").read_text() == text


def test_runs_repeat(values, patients):
    rows = []
    for out in ("one", "two"):
        common = ["--seeds", "0", "--losses"]
        values.dose.main(
            [str(patients / out), "--data", str(patients), *common, "cover L1"], values.size
        )
        values.tof.main(
            [str(patients / out / "tof"), "--networks", "U-Net", *common, "ACB-MSE"],
            values.frames,
        )
        for path in ("cover-L1-0.json", "tof/U-Net/ACB-MSE-0.json"):
            rows.append(json.loads((patients / out / path).read_text()))
            rows[-1].pop("train_seconds")
    assert rows[:2] == rows[2:]


def test_patients_are_cut_to_the_voxels_that_can_get_dose(values, patients):
    made, names = values.dose.read_patients(patients / "train.h5", values.size)
    assert names == STRUCTURES
    for one in made:
        assert one.dose.shape == one.ct.shape == one.field.shape == (10, 8, 11)
        assert int((one.field & 1).sum()) == 10 * 8 * 11
        assert float((one.dose * (1 - (one.field & 1))).abs().max()) == 0
        assert one.image().shape == (12, 10, 8, 11)
        assert torch.equal(one.image()[2], (one.field >> 1 & 1).float())


def test_windows_cover_a_volume(values, patients):
    made, _ = values.dose.read_patients(patients / "train.h5", values.size)
    n = torch.zeros(20, 8, 11)
    for part in values.dose._windows(n.shape, (8, 8, 8)):
        assert n[part].shape == (8, 8, 8)
        n[part] += 1
    assert n.min() == 1
    assert n.max() == 4
    network = torch.nn.Conv3d(12, 1, 1)
    (dose,) = values.dose.predicted(network, made[:1], values.size)
    whole = network(made[0].image()[None])[0, 0]
    torch.testing.assert_close(dose, whole.detach())


def test_losses_of_doses_by_hand(values):
    prediction = torch.tensor([1.0, 4.0, 2.0, 9.0]).view(1, 1, 4, 1, 1)
    dose = torch.tensor([3.0, 1.0, 2.0, 5.0]).view(1, 1, 4, 1, 1)
    field = torch.tensor([3, 3, 1, 0], dtype=torch.int32).view(1, 4, 1, 1)  # bit 1: two voxels
    arguments = (prediction, dose, field, (field & 1).bool())
    losses = values.dose.LOSSES
    assert float(losses["MAE"](*arguments)) == pytest.approx(5 / 3)
    assert float(losses["MSE"](*arguments)) == pytest.approx(13 / 3)
    assert float(losses["weighted MAE 3"](*arguments)) == pytest.approx((6 + 9) / 7)
    assert float(losses["cover L1"](*arguments)) == pytest.approx((5 / 3 + 5 / 2) / 2)
    # sorted: 1, 4 against 1, 3
    assert float(values.dose.dvh_loss(*arguments)) == pytest.approx(1 / 2)
    assert float(losses["MAE + DVH"](*arguments)) == pytest.approx(5 / 3 + 1 / 2)
    for name, loss in losses.items():
        free = prediction.clone().requires_grad_()
        loss(free, *arguments[1:]).backward()
        assert free.grad is not None, name
        assert float(free.grad[0, 0, 3]) == 0, name  # no dose is possible there


def test_scores_of_doses_are_in_gray(values, patients):
    made, names = values.dose.read_patients(patients / "validation.h5", values.size)
    scores = values.dose.scored([one.dose + 2 / 70 for one in made], made, names)
    for name in ("dose_score", "dvh_score", "structure_mae", "bias"):
        assert scores[name] == pytest.approx(2, abs=1e-4)
    read_out = values.dose.fitted([2 * one.dose for one in made], made)
    after = [read_out.apply(2 * one.dose) for one in made]
    assert values.dose.scored(after, made, names)["dose_score"] < 0.5


def test_frames_show_a_part_of_their_pattern(values):
    frames = values.tof.Frames.simulated(values.frames, 5, 3)
    shown, target = frames.batch(np.arange(3))
    assert shown.shape == target.shape == (3, 1, 32, 22)
    is_both = (shown > 0) & (shown == target)
    assert int(is_both.flatten(1).sum(1).min()) >= 15
    assert set(target.unique().tolist()) >= {0.0}
    assert float(target[target > 0].min()) > values.tof.THRESHOLD
    again, _ = values.tof.Frames.simulated(values.frames, 4, 3).batch(np.array([1, 2]))
    assert torch.equal(again, shown[:2])  # an event is the same in every set
    assert not torch.equal(frames.batch(np.arange(3), epoch=1)[0], shown)


def test_scores_of_frames_by_hand(values):
    target = torch.tensor([0.0, 0.0, 0.75, 0.75]).repeat(50).view(1, 1, 10, 20)
    output = torch.tensor([0.1, 0.3, 0.4, 0.2]).repeat(50).view(1, 1, 10, 20)
    threshold = values.tof.best_threshold(output, target)
    assert threshold == pytest.approx(0.2)
    settings = (threshold, *values.tof.read_outs(output, target))
    scores = values.tof.scored(output, target, *settings)
    assert scores["F1"] == pytest.approx(4 / 5)
    assert (scores["recovered"], scores["false"]) == (1, 0.5)
    assert scores["raw lit"] == 1
    assert scores["raw time_error"] == 500
    assert scores["time_error"] == scores["time_error_found"] == pytest.approx(0, abs=0.1)
    assert scores["rmse"] < scores["raw rmse"]
    tied = torch.zeros_like(target)
    assert values.tof.best_threshold(tied, target) == 0
    high = values.tof.scored(tied, target, 1.0, *settings[1:])
    assert high["F1"] == 0
    assert high["time_error_found"] is None


def test_gains_are_paired_by_seed_and_corrected(values):
    def runs(**by_loss):
        return {
            name: {
                seed: {"scores": {"error": x}, "chosen": {"error": y}, "train_seconds": 1}
                for seed, (x, y) in enumerate(zip(*pair, strict=True))
            }
            for name, pair in by_loss.items()
        }

    error = values.runs.Score("error", False)
    own = runs(MSE=([3, 4, 5], [9, 9, 9]), MAE=([7, 8, 9], [1, 1, 1]), ours=([5, 6.1, 7], [0] * 3))
    assert values.runs.best(own, ("MSE", "MAE"), error) == "MAE"  # never by the test's scores
    text = values.runs.gains(own, ["ours"], ["MSE", "MAE"], [error])
    assert "| MAE: error |" in text
    assert "| ours | -1.967, p < 0.001, better |" in text
    assert values.runs.tuned(own, ("MSE", "MAE"), [error]) == ["MAE"]
    assert values.runs.tuned(own, ("MSE", "other"), [error]) == []
    gain, p = values.runs.difference([1.0, 2.0, 3.0], [0.0, 1.0, 2.0])
    assert gain == 1
    assert math.isnan(p)
