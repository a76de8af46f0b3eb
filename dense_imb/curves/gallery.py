"""All figures: the three published ones, and every scenario for the losses of this library."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

import dense_imb.losses
from dense_imb.base.checks import check_choice
from dense_imb.base.files import write_whole
from dense_imb.base.refusals import RefusedFile
from dense_imb.curves.figure import save_figure
from dense_imb.curves.scenarios import (
    SCENARIOS,
    Probability,
    Recovery,
    Scenario,
    SignalSize,
)
from dense_imb.curves.subjects import Subject, as_subjects, parse_losses
from dense_imb.curves.sweep import survey, sweep, warn
from dense_imb.curves.table import Table
from dense_imb.losses.core.balance import Balance
from dense_imb.losses.core.cover import Cover
from dense_imb.losses.foreign.catalogue import OUR_INPUTS
from dense_imb.losses.foreign.feeding import wants_instances

FIGURE_FORMATS = ("png", "svg", "pdf", "json")
PUBLISHED = "published"


def published_signal_size() -> Table:
    """ACB-MSE stays at 5000 while the mean errors follow the size of the signal class."""
    table = sweep(SignalSize(frame=(10, 10)), _regression())
    return replace(table, title="Loss Curves Compared Varying Signal Class Size")


def published_recovery() -> Table:
    """All three losses are lowest at the perfect answer, 1/3; ACB-MSE is steepest there."""
    table = sweep(Recovery(frame=(20, 30), points=121), _regression())
    return replace(table, title="Loss Curves Compared in Signal Recovery and Overshoot")


def published_positive_label() -> Table:
    """Hard mining ignores pixels that are hopelessly wrong."""
    hard = "Hard mining (gamma 1, delta 110)"
    table = sweep(
        Probability(),
        {
            "Cross-entropy": _ours("CrossEntropyLoss"),
            "Focal (gamma 1)": _ours("FocalLoss", gamma=1.0),
            hard: _ours("HardMiningLoss", gamma=1.0, delta=110.0),
        },
    )
    return positive_label_view(table, hard)


def positive_label_view(table: Table, hard: str) -> Table:
    """Mark the outlier, informative and easy regions of the hard mining curve called `hard`."""
    peak = table.axis.values[table[hard].index(max(table[hard]))]
    regions = (("outlier", 0.0, peak), ("informative", peak, 0.5), ("easy", 0.5, 1.0))
    return replace(
        table,
        title="Loss for positive label",
        caption=(
            f"{table.caption} Outlier: p below the peak of the hard mining loss, {peak:.3g}; "
            "informative: up to 1/2; easy: above, where the pixel is classified correctly. The "
            "cross-entropy rises to 16.1 at the left end."
        ),
        view=replace(
            table.view, y_scale="linear", y_range=(0, 8), regions=regions, zoom=(1e-5, 0.2)
        ),
    )


_PUBLISHED: Mapping[str, Callable[[], Table]] = {
    "published-signal-size": published_signal_size,
    "published-recovery": published_recovery,
    "published-positive-label": published_positive_label,
}


def _regression() -> dict[str, nn.Module]:
    return {"ACB-MSE": _ours("ACBMSELoss"), "MSE": nn.MSELoss(), "MAE": nn.L1Loss()}


def _ours(name: str, **options: Any) -> nn.Module:
    loss: nn.Module = getattr(dense_imb.losses, name)(**options)
    return loss


def write_figures(
    out: str | Path,
    *,
    losses: Mapping[str, nn.Module] | Iterable[nn.Module] = (),
    scenarios: Sequence[str] = (),
    formats: Sequence[str] = ("png", "svg"),
    overwrite: bool = False,
    report: Callable[[Path], object] = lambda path: None,
    frame: tuple[int, int] | None = None,
    value: float | None = None,
    points: int | None = None,
) -> list[Path]:
    """Write figures, with a CSV file of the numbers and a caption beside each.

    A loss that a scenario cannot show is omitted from its figure, with a `CurveWarning`. A loss
    that is in no figure is refused after all figures are written; one that no scenario can feed,
    before.

    Args:
        out: folder of the figures; created where it is missing.
        losses: losses as for `sweep`; by default the losses of this library, torch's MSE and L1,
            a balanced cross-entropy, and Dice with cross-entropy.
        scenarios: names in `SCENARIOS`, or "published". By default all scenarios, and the
            published figures unless `losses` is given.
        formats: file formats: "png", "svg", "pdf", and "json" for the whole table.
        overwrite: replace existing results; by default they are refused before any work.
        report: called with each file written.
        frame, value, points: settings of the scenarios that have them; those of the published
            figures are fixed.

    Returns:
        The files written.

    Example:
        >>> import tempfile
        >>> from dense_imb.curves import write_figures
        >>> from dense_imb.losses import ACBMSELoss
        >>> files = write_figures(tempfile.mkdtemp(), losses={"ACB-MSE": ACBMSELoss()},
        ...                       scenarios=["signal-size"], formats=["svg"], points=9)
        >>> sorted(file.name for file in files)
        ['signal-size.csv', 'signal-size.svg', 'signal-size.txt']
    """
    for name in scenarios:
        check_choice("scenario", name, (*SCENARIOS, PUBLISHED))
    for form in formats:
        check_choice("format", form, FIGURE_FORMATS)
    subjects = as_subjects(losses)
    _refuse_unfed(subjects)
    unseen = {one.name: f"it takes {one.feeds_on}" for one in subjects}

    settings = {"frame": frame, "value": value, "points": points}
    tables: dict[str, Callable[[], Table | None]] = {}
    if not subjects and (not scenarios or PUBLISHED in scenarios):
        tables.update(_PUBLISHED)
    for name in scenarios or SCENARIOS:
        if name != PUBLISHED:
            scenario = _with(SCENARIOS[name], settings)
            fitting = [one for one in subjects if one.feeds_on == scenario.feeds_on]
            if fitting or not subjects:
                tables[name] = partial(_table, scenario, fitting, unseen)
    _report_kinds(subjects, scenarios or tuple(SCENARIOS))

    out = _folder(out)
    suffixes = tuple(dict.fromkeys((*formats, "csv", "txt")))
    for existing in (out / f"{name}.{suffix}" for name in tables for suffix in suffixes):
        if existing.exists() and not overwrite:
            raise RefusedFile(f"no file {existing}", "one", "{overwrite} replaces it")
    written = []
    for name, make in tables.items():
        table = make()
        if table is None:
            continue
        for suffix in suffixes:
            path = out / f"{name}.{suffix}"
            _write(table, path)
            report(path)
            written.append(path)
    if unseen:
        name, reason = next(iter(unseen.items()))
        raise ValueError(f"{name} is in no figure: {reason}.")
    return written


def _with(scenario: Scenario, settings: Mapping[str, Any]) -> Scenario:
    """Return a scenario with those of the given settings that it has."""
    known = {field.name for field in fields(scenario)}
    given = {name: value for name, value in settings.items() if value is not None and name in known}
    return replace(scenario, **given)


def _refuse_unfed(subjects: Sequence[Subject]) -> None:
    """Refuse losses whose input no scenario has."""
    fed = {scenario.feeds_on for scenario in SCENARIOS.values()}
    for subject in subjects:
        if wants_instances(subject.loss):
            raise ValueError(
                f"{subject.name} is in no figure: it needs an instance map, which no scenario has; "
                'drop per="instance".'
            )
        if subject.feeds_on not in fed:
            raise ValueError(f"{subject.name} is in no figure: it takes {subject.feeds_on}.")


def _report_kinds(subjects: Sequence[Subject], scenarios: Sequence[str]) -> None:
    """Warn of each loss that takes another kind of input than some scenarios have."""
    for subject in subjects:
        other = [
            name
            for name in scenarios
            if name in SCENARIOS and SCENARIOS[name].feeds_on != subject.feeds_on
        ]
        if other:
            warn(f"skipped {subject.name} in {', '.join(other)}: it takes {subject.feeds_on}")


def _table(scenario: Scenario, subjects: Sequence[Subject], unseen: dict[str, str]) -> Table | None:
    """Return the table of a scenario; losses in it leave `unseen`, None if there are none."""
    table, refusals = survey(scenario, subjects or _family(scenario))
    for name, refusal in refusals.items():
        warn(f"skipped {name} in {scenario.name}: {refusal}")
        if name in unseen:
            unseen[name] = str(refusal)
    for name in {curve.name for curve in table.curves}:
        unseen.pop(name, None)
    return table if table.curves else None


def _family(scenario: Scenario) -> list[Subject]:
    """Return our losses with their defaults, and with the class counts of a sparse frame."""
    n_common = scenario.n_classes - 1
    class_counts = [11_234 // n_common] * n_common + [30]
    members: dict[str, nn.Module] = {}
    for name, feeds_on in OUR_INPUTS.items():
        # a sum of others, the Dice loss, and a loss of samples, whose curve is noise
        if feeds_on != scenario.feeds_on or name in (
            "CompoundLoss", "RegionLoss", "BalancedMSELoss",
        ):  # fmt: skip
            continue
        options = inspect.signature(getattr(dense_imb.losses, name)).parameters.values()
        required = [
            option.name
            for option in options
            if option.default is option.empty
            and option.kind not in (option.VAR_POSITIONAL, option.VAR_KEYWORD)
        ]
        if set(required) <= {"class_counts"}:
            members[name] = _ours(name, **dict.fromkeys(required, class_counts))
        else:
            warn(f"skipped {name} in {scenario.name}: it needs {', '.join(required)}")
    if scenario.feeds_on == "values":
        members |= {"MSELoss": nn.MSELoss(), "L1Loss": nn.L1Loss()}
        root = Balance(count_power=0.5)
        members["Power 1/2"] = _ours("BalancedRegressionLoss", balance=root)
        if scenario.n_cells:
            cover = Cover(scenario.n_cells, rest="cell")
            members["Cover"] = _ours("BalancedRegressionLoss", partition=cover)
            members["Cover, power 1/2"] = _ours(
                "BalancedRegressionLoss", partition=cover, balance=root
            )
    else:
        members |= parse_losses(["CrossEntropyLoss(balance={})", "DiceLoss + CrossEntropyLoss"])
    return as_subjects(members)


def _folder(out: str | Path) -> Path:
    try:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as problem:
        raise ValueError(
            f"Expected a folder that can be written in `out`, got {out}: {problem.strerror}."
        ) from problem


def _write(table: Table, path: Path) -> None:
    if path.suffix in (".csv", ".json"):
        table.write(path)
    elif path.suffix == ".txt":
        text = "\n\n".join((table.title, table.caption, *table.losses)) + "\n"
        write_whole(path, lambda to: to.write_text(text, encoding="utf-8"))
    else:
        save_figure(table, path)
