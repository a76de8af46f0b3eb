"""Scores of radiotherapy doses, as in the OpenKBP challenge: dose score and DVH score.

DVH is the dose-volume histogram. A dose is in Gy, a structure is a mask of voxels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dense_imb.base.checks import check_floating, check_integral, check_same_shape, readable
from dense_imb.base.tabular import Rows, TabularBars
from dense_imb.metrics._counts import StreamingCounts, in_float64, ratio

ORGAN_VALUES = ("D_0.1cc", "mean")
TARGET_VALUES = ("D1", "D95", "D99")
_PERCENT = re.compile(r"D(\d+(?:\.\d+)?)")
_CC = re.compile(r"D_(\d+(?:\.\d+)?)cc")
Voxel = Sequence[float] | Tensor


def dose_score(prediction: Tensor, dose: Tensor, possible: Tensor) -> float:
    """Return the mean absolute error where dose is possible, in Gy.

    Equals the challenge's score for a prediction that is 0 elsewhere.

    Args:
        prediction: predicted dose.
        dose: true dose, same shape.
        possible: mask of the voxels that can get dose, same shape.

    Example:
        >>> mask = torch.tensor([True, True, False])
        >>> dose_score(torch.tensor([1.0, 4.0, 9.0]), torch.tensor([2.0, 1.0, 0.0]), mask)
        2.0
    """
    prediction, dose = _checked(prediction, dose)
    (possible,) = readable(possible=possible)
    check_same_shape("possible", possible, "dose", dose)
    return _mean((prediction - dose).abs()[possible.bool().cpu()])


def dose_volume(
    dose: Tensor,
    structure: Tensor,
    voxel_mm: Voxel,
    values: Sequence[str] = (*ORGAN_VALUES, *TARGET_VALUES),
) -> dict[str, float]:
    """Return dose-volume values of a structure in Gy; NaN for an empty structure.

        D_0.1cc    smallest dose of the hottest 0.1 cm3: percentile 100 (1 - n / N), with N voxels
                   in the structure and n = max(1, round(100 mm3 / voxel))
        mean       mean dose
        D95        dose that 95 % of the structure exceed: percentile 5; D1 is percentile 99

    Percentiles are interpolated linearly, as NumPy's. Other numbers, as in D50 and D_2cc, work
    the same.

    Args:
        dose: dose of every voxel.
        structure: mask of the structure, same shape.
        voxel_mm: sides of a voxel in mm.
        values: names of the values.

    Example:
        >>> dose = torch.arange(101.0)
        >>> dose_volume(dose, dose > -1, (3.0, 3.0, 3.0))
        {'D_0.1cc': 96.03..., 'mean': 50.0, 'D1': 99.0, 'D95': 5.0, 'D99': 1.0}
    """
    for name in values:
        _check_value(name)
    inside = _rising_doses(dose, structure)
    return _volume_values(inside, _voxel_volume(voxel_mm), values)


def _rising_doses(dose: Tensor, structure: Tensor) -> Tensor:
    """Return the doses inside a structure, in float64 on the CPU, the smallest first."""
    dose, structure = readable(dose=dose, structure=structure)
    check_floating("dose", dose)
    check_same_shape("structure", structure, "dose", dose)
    inside = in_float64(dose).cpu()[structure.bool().cpu()]
    _check_finite("dose", inside)
    return inside.sort().values


def dvh_score(
    prediction: Tensor,
    dose: Tensor,
    structures: Mapping[str, Tensor],
    voxel_mm: Voxel,
    *,
    targets: Sequence[str] | None = None,
) -> float:
    """Return the mean absolute error of all dose-volume values of one patient, in Gy.

    Organs count with D_0.1cc and the mean, targets with D1, D95 and D99. Empty structures are left
    out.

    Args:
        prediction: predicted dose.
        dose: true dose, same shape.
        structures: mask of each organ and target by name, same shape.
        voxel_mm: sides of a voxel in mm.
        targets: names of the targets; by default those that begin with "PTV".

    Example:
        >>> dose = torch.rand(4, 4, 4)
        >>> round(dvh_score(dose + 2.0, dose, {"Larynx": dose > 0.5}, (5.0, 5.0, 5.0)), 3)
        2.0
    """
    prediction, dose = _checked(prediction, dose)
    targets = _targets(targets, tuple(structures))
    errors: list[float] = []
    for name, structure in structures.items():
        check_same_shape(f"structures[{name!r}]", structure, "dose", dose)
        values = TARGET_VALUES if name in targets else ORGAN_VALUES
        true = dose_volume(dose, structure, voxel_mm, values)
        predicted = dose_volume(prediction, structure, voxel_mm, values)
        errors += [abs(predicted[value] - true[value]) for value in values]
    errors = [error for error in errors if not math.isnan(error)]
    return ratio(math.fsum(errors), len(errors))


def dose_volume_curve(dose: Tensor, structure: Tensor, at: Tensor) -> Tensor:
    """Return the fraction of a structure that gets at least each dose; NaN for an empty one.

    Args:
        dose: dose of every voxel.
        structure: mask of the structure, same shape.
        at: doses (n,).

    Example:
        >>> dose = torch.tensor([0.0, 10.0, 20.0, 70.0])
        >>> dose_volume_curve(dose, dose > 0, torch.tensor([5.0, 20.0, 60.0, 71.0])).tolist()
        [1.0, 0.6666666666666666, 0.3333333333333333, 0.0]
    """
    inside = _rising_doses(dose, structure)
    (at,) = readable(at=at)
    below = torch.searchsorted(inside, in_float64(at).cpu())
    return (len(inside) - below).double() / len(inside)


class DoseScores(StreamingCounts, TabularBars):
    """Dose score, DVH score and errors of each structure, over patients.

        dose score = mean over patients of the mean absolute error where dose is possible
        DVH score  = mean over all patients, structures and values of |predicted - true value|

    The values are those of `dose_volume`: D_0.1cc and the mean of organs, D1, D95 and D99 of
    targets. A structure that a patient lacks is left out for this patient, and counted.

    Args:
        structures: names of the structures; they may overlap.
        possible: the structure in which dose is possible; it has no dose-volume values.
        targets: names of the targets; by default those that begin with "PTV".

    Example:
        >>> scores = DoseScores(["possible_dose_mask", "Larynx", "PTV70"])
        >>> dose = 70 * torch.rand(1, 1, 4, 4, 4)
        >>> masks = torch.cat([dose > -1, dose > 50, dose > 99], 1)
        >>> scores.update(dose + 2.0, dose, masks, voxel_mm=(5.0, 5.0, 5.0))
        >>> round(scores.scores()["dose_score"], 3), scores.rows()["PTV70"]["n_left_out"]
        (2.0, 1.0)
    """

    def __init__(
        self,
        structures: Sequence[str],
        *,
        possible: str = "possible_dose_mask",
        targets: Sequence[str] | None = None,
    ) -> None:
        self.structures = tuple(structures)
        if isinstance(structures, str) or len(set(structures)) < len(self.structures):
            raise ValueError(f"Expected `structures` with different names, got {structures!r}.")
        if possible not in self.structures:
            raise ValueError(
                f"Expected `possible` to be one of {', '.join(self.structures)}, got {possible!r}."
            )
        self.possible = possible
        self.targets = _targets(targets, self.structures)
        n = len(self.structures)
        self._n = torch.zeros(n, 2, dtype=torch.int64)  # patients with the structure, without it
        # of the mean absolute error: sum and sum of squares; sums of bias and share of the voxels
        self._sums = torch.zeros(n, 4, dtype=torch.float64)
        self._volume = torch.zeros(n, len(TARGET_VALUES), dtype=torch.float64)  # absolute errors

    def _settings(self) -> dict[str, Any]:
        return {
            "structures": list(self.structures),
            "possible": self.possible,
            "targets": list(self.targets),
        }

    def _tensors(self) -> tuple[Tensor, ...]:
        return self._n, self._sums, self._volume

    def update(
        self, prediction: Tensor, dose: Tensor, structures: Tensor, *, voxel_mm: Voxel
    ) -> None:
        """Add a batch of patients.

        Args:
            prediction: predicted dose (B, 1, *spatial) or (B, *spatial), in Gy.
            dose: true dose, same shape.
            structures: masks (B, n_structures, *spatial), or a bit field (B, *spatial) or
                (B, 1, *spatial) of integers with bit k for structure k.
            voxel_mm: sides of a voxel in mm, of all patients or (B, 3).
        """
        prediction, dose = _checked(prediction, dose)
        masks = self._masks(structures, dose)
        volume = torch.as_tensor(voxel_mm, dtype=torch.float64)
        if volume.dim() < 2:
            volume = volume.expand(len(dose), -1)
        if len(volume) != len(dose):
            raise ValueError(
                f"Expected `voxel_mm` with a row for each of the {len(dose)} patients, got "
                f"{len(volume)}."
            )
        for i in range(len(dose)):
            voxel = _voxel_volume(volume[i])
            for k in range(len(self.structures)):
                mask = masks[i, k]
                inside, true = (one[i].reshape(mask.shape)[mask] for one in (prediction, dose))
                self._add(k, inside, true, voxel, mask.numel())

    def _add(self, k: int, prediction: Tensor, dose: Tensor, voxel: float, n_voxels: int) -> None:
        """Add structure k of one patient, from the doses inside it."""
        self._n[k, 0 if len(dose) else 1] += 1
        if not len(dose):
            return
        error = prediction - dose
        mean = _mean(error.abs())
        share = len(dose) / n_voxels
        self._sums[k] += torch.tensor([mean, mean**2, _mean(error), share], dtype=torch.float64)
        values = self._values(k)
        true = _volume_values(dose.sort().values, voxel, values)
        predicted = _volume_values(prediction.sort().values, voxel, values)
        for j, value in enumerate(values):
            self._volume[k, j] += abs(predicted[value] - true[value])

    def _values(self, k: int) -> tuple[str, ...]:
        """Return the names of the dose-volume values of structure k."""
        name = self.structures[k]
        if name == self.possible:
            return ()
        return TARGET_VALUES if name in self.targets else ORGAN_VALUES

    def _masks(self, structures: Tensor, dose: Tensor) -> Tensor:
        """Return masks (B, n_structures, *spatial), from masks or from a bit field."""
        (structures,) = readable(structures=structures)
        structures, n = structures.detach().cpu(), len(self.structures)
        spatial = dose.shape[2:] if dose.dim() > 3 and dose.shape[1] == 1 else dose.shape[1:]
        if structures.shape == (len(dose), n, *spatial) and (
            n > 1 or structures.dtype == torch.bool
        ):
            return structures.bool()
        if structures.shape not in ((len(dose), *spatial), (len(dose), 1, *spatial)):
            raise ValueError(
                f"Expected `structures` ({len(dose)}, {n}, {', '.join(map(str, spatial))}), or a "
                f"bit field without the {n}, for doses of {tuple(dose.shape)}, got "
                f"{tuple(structures.shape)}."
            )
        check_integral("structures", structures)
        field = structures.reshape(len(dose), 1, *spatial).long()
        undeclared = int((field >> n != 0).sum())
        if undeclared:
            raise ValueError(
                f"Expected `structures` with bits 0 to {n - 1} for {n} structures, got higher bits "
                f"in {undeclared} voxels; name their structures too."
            )
        return torch.cat([field >> k & 1 for k in range(n)], 1).bool()

    def rows(self) -> dict[str, dict[str, float]]:
        """Return the scores of each structure by its name, in Gy; NaN if no patient has it.

        `mae` and `mae_spread` are the mean and the standard deviation over patients of the mean
        absolute error, `bias` is the mean of prediction - dose, `share` the fraction of the voxels.
        The dose-volume values are mean absolute errors over patients.
        """
        rows = {}
        for k, name in enumerate(self.structures):
            n, n_left_out = self._n[k].tolist()
            error, square, bias, share = self._sums[k].tolist()
            variance = ratio(square - error * ratio(error, n), n - 1)
            rows[name] = {
                "n_patients": float(n),
                "n_left_out": float(n_left_out),
                "share": ratio(share, n),
                "mae": ratio(error, n),
                "mae_spread": math.sqrt(max(variance, 0.0)),
                "bias": ratio(bias, n),
                **{value: ratio(self._volume[k, j], n) for j, value in enumerate(self._values(k))},
            }
        return rows

    def table_rows(self) -> Rows:
        """Return the scores of each structure as a row, see `rows`."""
        return [{"structure": name, **row} for name, row in self.rows().items()]

    def bar_column(self) -> str:
        """Return the mean absolute error."""
        return "mae"

    def scores(self) -> dict[str, float]:
        """Return `dose_score`, its spread over patients, and `dvh_score`, in Gy."""
        n_values = sum(int(self._n[k, 0]) * len(self._values(k)) for k in range(len(self._n)))
        possible = self.rows()[self.possible]
        return {
            "dose_score": possible["mae"],
            "dose_score_spread": possible["mae_spread"],
            "dvh_score": ratio(self._volume.sum(), n_values),
            "n_patients": possible["n_patients"] + possible["n_left_out"],
        }

    def _summary(self) -> tuple[Mapping[str, int], Mapping[str, float]]:
        scores = self.scores()
        counts = {"patients": int(scores["n_patients"]), "structures": len(self.structures)}
        return counts, {"dose score": scores["dose_score"], "DVH score": scores["dvh_score"]}


def _checked(prediction: Tensor, dose: Tensor) -> tuple[Tensor, Tensor]:
    """Return both doses in float64 on the CPU; refuse other shapes, NaN and infinity."""
    prediction, dose = readable(prediction=prediction, dose=dose)
    for name, value in (("prediction", prediction), ("dose", dose)):
        check_floating(name, value)
        _check_finite(name, value)
    check_same_shape("prediction", prediction, "dose", dose)
    return in_float64(prediction).cpu(), in_float64(dose).cpu()


def _check_finite(name: str, value: Tensor) -> None:
    n_broken = int((~value.isfinite()).sum())
    if n_broken:
        raise ValueError(
            f"Expected `{name}` of finite numbers, got {n_broken} NaN or infinite voxels."
        )


def _targets(targets: Sequence[str] | None, structures: tuple[str, ...]) -> tuple[str, ...]:
    if targets is None:
        return tuple(name for name in structures if name.startswith("PTV"))
    unknown = [name for name in targets if name not in structures]
    if unknown:
        raise ValueError(
            f"Expected `targets` among {', '.join(structures)}, got {', '.join(unknown)}."
        )
    return tuple(targets)


def _voxel_volume(voxel_mm: Voxel) -> float:
    """Return the volume of a voxel in cubic millimetres."""
    sides = torch.as_tensor(voxel_mm, dtype=torch.float64)
    if sides.shape != (3,) or not bool((sides > 0).all() & sides.isfinite().all()):
        raise ValueError(
            f"Expected `voxel_mm` with three sides above 0, in mm, got {sides.tolist()}."
        )
    return float(sides.prod())


def _check_value(name: str) -> None:
    percent = _PERCENT.fullmatch(name)
    cc = _CC.fullmatch(name)
    is_known = name == "mean" or (percent and float(percent[1]) <= 100) or (cc and float(cc[1]) > 0)
    if not is_known:
        raise ValueError(f"Expected values like D95, D_0.1cc or mean, got {name!r}.")


def _volume_values(ordered: Tensor, voxel: float, names: Sequence[str]) -> dict[str, float]:
    """Return dose-volume values of rising doses; NaN without doses."""
    return {name: _volume_value(ordered, voxel, name) for name in names}


def _volume_value(ordered: Tensor, voxel: float, name: str) -> float:
    n = len(ordered)
    if n == 0:
        return math.nan
    if name == "mean":
        return _mean(ordered)
    percent, cc = _PERCENT.fullmatch(name), _CC.fullmatch(name)
    if percent:
        return _percentile(ordered, 100 - float(percent[1]))
    assert cc is not None  # checked names only
    # at least one voxel, at most all
    n_hottest = min(max(1, round(1000 * float(cc[1]) / voxel)), n)
    return _percentile(ordered, 100 - 100 * n_hottest / n)


def _percentile(ordered: Tensor, percent: float) -> float:
    """Return the percentile of rising numbers, interpolated linearly."""
    place = percent * (len(ordered) - 1) / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else math.nan
