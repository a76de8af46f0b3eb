"""Scores of doses against NumPy's formulas, on made and on real patients."""

from __future__ import annotations

import math
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dense_imb.metrics import (
    DoseScores,
    dose_score,
    dose_volume,
    dose_volume_curve,
    dvh_score,
)

from .samples import generator

NAMES = ("possible_dose_mask", "Cord", "Larynx", "PTV56", "PTV70")
VOXEL = (4.0, 4.0, 2.5)
_DATA = os.environ.get("DENSE_IMB_DATA")
REAL = Path(_DATA or "") / "openkbp64" / "validation.h5"


def plain_values(dose, mask, voxel_mm, is_target):
    """The challenge's definitions, with NumPy's percentiles."""
    inside = dose[mask]
    if is_target:
        return [np.percentile(inside, 99), np.percentile(inside, 5), np.percentile(inside, 1)]
    hottest = max(1, np.round(100 / np.prod(voxel_mm)))
    return [np.percentile(inside, 100 - 100 * hottest / len(inside)), inside.mean()]


def plain_scores(patients):
    """Dose score, DVH score and the mean absolute error of each structure."""
    doses, errors, by_name = [], [], {}
    for predicted, dose, masks, voxel in patients:
        for name, mask in masks.items():
            if not mask.any():
                continue
            by_name.setdefault(name, []).append(np.abs(predicted - dose)[mask].mean())
            if name == "possible_dose_mask":
                doses.append(by_name[name][-1])
                continue
            pairs = [plain_values(d, mask, voxel, name[:3] == "PTV") for d in (predicted, dose)]
            errors += np.abs(np.subtract(*pairs)).tolist()
    return np.mean(doses), np.mean(errors), {name: np.mean(e) for name, e in by_name.items()}


def made_patients(n=4, side=14):
    """Patients with nested structures; the second lacks one."""
    rng = generator(2)
    patients = []
    for i in range(n):
        dose = 70 * torch.rand(side, side, side, generator=rng, dtype=torch.float64)
        predicted = dose + 3 * torch.randn(dose.shape, generator=rng).double()
        place = torch.rand(dose.shape, generator=rng)
        masks = [place < share for share in (0.9, 0.3, 0.0 if i == 1 else 0.02, 0.2, 0.1)]
        patients.append((predicted, dose, torch.stack(masks), VOXEL))
    return patients


def as_numpy(patients):
    return [
        (p.numpy(), d.numpy(), dict(zip(NAMES, m.numpy(), strict=True)), v)
        for p, d, m, v in patients
    ]


def filled(patients, *, as_bits=False):
    scores = DoseScores(NAMES)
    predicted, dose, masks = (torch.stack([one[k] for one in patients]) for k in range(3))
    if as_bits:
        weight = 2 ** torch.arange(len(NAMES))
        masks = (masks * weight[:, None, None, None]).sum(1).to(torch.int16)
    scores.update(predicted[:1, None], dose[:1, None], masks[:1], voxel_mm=VOXEL)
    scores.update(predicted[1:], dose[1:], masks[1:], voxel_mm=[VOXEL] * (len(dose) - 1))
    return scores


@pytest.mark.parametrize("as_bits", [False, True])
def test_scores_are_numpys_formulas(as_bits):
    patients = made_patients()
    scores = filled(patients, as_bits=as_bits)
    dose, dvh, by_name = plain_scores(as_numpy(patients))
    assert scores.scores()["dose_score"] == pytest.approx(dose, rel=1e-10)
    assert scores.scores()["dvh_score"] == pytest.approx(dvh, rel=1e-10)
    rows = scores.rows()
    assert {name: row["mae"] for name, row in rows.items()} == pytest.approx(by_name, rel=1e-10)
    assert [row["n_left_out"] for row in rows.values()] == [0, 0, 1, 0, 0]
    assert rows["Larynx"]["n_patients"] == 3
    errors = [np.abs(p - d)[m["Cord"]].mean() for p, d, m, _ in as_numpy(patients)]
    assert rows["Cord"]["mae_spread"] == pytest.approx(np.std(errors, ddof=1), rel=1e-6)
    bias = [(p - d)[m["Cord"]].mean() for p, d, m, _ in as_numpy(patients)]
    assert rows["Cord"]["bias"] == pytest.approx(np.mean(bias), rel=1e-9)
    share = [m["Cord"].mean() for _, _, m, _ in as_numpy(patients)]
    assert rows["Cord"]["share"] == pytest.approx(np.mean(share))
    assert set(rows["Cord"]) - set(rows["PTV56"]) == {"D_0.1cc", "mean"}
    assert set(rows["PTV56"]) - set(rows["Cord"]) == {"D1", "D95", "D99"}


@pytest.mark.skipif(not REAL.exists(), reason="DENSE_IMB_DATA has no openkbp64")
def test_scores_of_real_patients_are_numpys_formulas():
    patients, rng = [], np.random.default_rng(0)
    with h5py.File(REAL) as file:
        names = [str(name) for name in file.attrs["structures"]]
        scores = DoseScores(names)
        for key in list(file)[:8]:
            dose = file[key]["dose"][...].astype(np.float64)
            field = file[key]["structures"][...].astype(np.int32)
            voxel = tuple(file[key].attrs["voxel_mm"].tolist())
            predicted = (0.9 * dose + rng.normal(0, 2, dose.shape)) * (field & 1)
            masks = {name: (field >> k & 1).astype(bool) for k, name in enumerate(names)}
            patients.append((predicted, dose, masks, voxel))
            one = [torch.from_numpy(array)[None] for array in (predicted, dose, field)]
            scores.update(*one, voxel_mm=voxel)
            # without the mask in the sum, as the challenge computes it
            challenge = np.abs(dose - predicted).sum() / masks["possible_dose_mask"].sum()
            possible = torch.from_numpy(masks["possible_dose_mask"])
            assert dose_score(one[0][0], one[1][0], possible) == pytest.approx(challenge)
            organs = {n: torch.from_numpy(m) for n, m in masks.items() if n != names[0]}
            _, dvh, _ = plain_scores(patients[-1:])
            assert dvh_score(one[0][0], one[1][0], organs, voxel) == pytest.approx(dvh, rel=1e-9)
    dose, dvh, by_name = plain_scores(patients)
    assert scores.scores()["dose_score"] == pytest.approx(dose, rel=1e-10)
    assert scores.scores()["dvh_score"] == pytest.approx(dvh, rel=1e-10)
    actual = {n: row["mae"] for n, row in scores.rows().items() if row["n_patients"]}
    assert actual == pytest.approx(by_name, rel=1e-10)
    assert sum(row["n_left_out"] for row in scores.rows().values()) > 0


def test_dose_volume_values():
    dose = torch.arange(1001.0).flip(0)
    whole = torch.ones(1001, dtype=torch.bool)
    assert dose_volume(dose, whole, (1.0, 1.0, 1.0), ["D50", "D_0.5cc", "D0", "D100"]) == {
        "D50": 500.0,
        "D_0.5cc": pytest.approx(np.percentile(np.arange(1001.0), 100 - 50000 / 1001)),
        "D0": 1000.0,
        "D100": 0.0,
    }
    # one voxel at least, and all at most
    few = torch.arange(1001) < 3
    assert dose_volume(dose, few, (30.0, 30.0, 30.0), ["D_0.1cc"])["D_0.1cc"] == pytest.approx(
        np.percentile([998, 999, 1000], 100 - 100 / 3)
    )
    assert dose_volume(dose, few, (1.0, 1.0, 1.0), ["D_0.1cc"]) == {"D_0.1cc": 998.0}
    empty = dose_volume(dose, ~whole, VOXEL)
    assert all(math.isnan(value) for value in empty.values())


def test_curves_fall_from_one_and_agree_with_the_values():
    dose = 70 * torch.rand(9, 9, 9, generator=generator(1))
    mask = dose > 30
    at = torch.linspace(0, 75, 200)
    curve = dose_volume_curve(dose, mask, at)
    assert (curve[0], curve[-1]) == (1.0, 0.0)
    assert (curve.diff() <= 0).all()
    d95 = dose_volume(dose, mask, VOXEL, ["D95"])["D95"]
    assert float(dose_volume_curve(dose, mask, torch.tensor([d95]))) == pytest.approx(
        0.95, abs=0.01
    )
    assert dose_volume_curve(dose, dose > 99, at).isnan().all()


def test_nothing_is_nan_and_a_perfect_dose_is_zero():
    scores = DoseScores(NAMES).scores()
    assert all(math.isnan(scores[name]) for name in ("dose_score", "dvh_score"))
    perfect = DoseScores(NAMES)
    _, dose, masks, voxel = made_patients(1)[0]
    perfect.update(dose[None], dose[None], masks[None], voxel_mm=voxel)
    assert perfect.scores()["dvh_score"] == perfect.scores()["dose_score"] == 0.0
    assert math.isnan(perfect.rows()["Cord"]["mae_spread"])
    assert math.isnan(dvh_score(dose, dose, {"Cord": dose > 99}, voxel))


def test_bad_input_is_one_sentence():
    predicted, dose, masks, _ = made_patients(1)[0]
    scores = DoseScores(NAMES)
    batch = (predicted[None], dose[None], masks[None])
    with pytest.raises(ValueError, match=r"`structures` \(1, 5, 14, 14, 14\), or a bit field with"):
        scores.update(*batch[:2], masks[None, :, :7], voxel_mm=VOXEL)
    with pytest.raises(ValueError, match="bits 0 to 4 for 5 structures, got higher bits in 2744 v"):
        scores.update(*batch[:2], torch.full((1, 14, 14, 14), 32), voxel_mm=VOXEL)
    with pytest.raises(TypeError, match="`structures` to be bool or integer"):
        scores.update(*batch[:2], dose[None], voxel_mm=VOXEL)
    with pytest.raises(ValueError, match="`prediction` of finite numbers, got 2744 NaN"):
        scores.update(predicted[None] * math.nan, *batch[1:], voxel_mm=VOXEL)
    with pytest.raises(ValueError, match="`prediction` in the shape of `dose`"):
        scores.update(predicted[None, :7], *batch[1:], voxel_mm=VOXEL)
    for voxel in ((1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, math.nan)):
        with pytest.raises(ValueError, match="three sides above 0, in mm"):
            scores.update(*batch, voxel_mm=voxel)
    with pytest.raises(ValueError, match="a row for each of the 1 patients, got 2"):
        scores.update(*batch, voxel_mm=[VOXEL] * 2)
    with pytest.raises(ValueError, match="`structure` in the shape of `dose`"):
        dose_volume(dose, masks[0, :3], VOXEL)
    with pytest.raises(ValueError, match="values like D95, D_0.1cc or mean, got 'D101'"):
        dose_volume(dose, masks[0], VOXEL, ["D101"])
    with pytest.raises(ValueError, match="`possible` to be one of Cord, got 'possible_dose_mask'"):
        DoseScores(["Cord"])
    with pytest.raises(ValueError, match="`targets` among possible_dose_mask, Cord.*, got GTV"):
        DoseScores(NAMES, targets=["GTV"])
    with pytest.raises(ValueError, match="different names"):
        DoseScores(["possible_dose_mask", "Cord", "Cord"])
    with pytest.raises(ValueError, match=r"`structures\['Cord'\]` in the shape of `dose`"):
        dvh_score(predicted, dose, {"Cord": masks[0, :3]}, VOXEL)
    assert scores.scores()["n_patients"] == 0
