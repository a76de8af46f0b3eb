"""The report on maps of values as text for a terminal."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from dense_imb.config import IN_3D
from dense_imb.inspection.formats import counted, number, percent, sparkline
from dense_imb.losses.foreign.recommended import MOSTLY_EMPTY

_ANY = "a value in any channel "


def value_sections(numbers: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the sections of the report, a list of lines each."""
    looked = numbers["inspected_images"]
    part = "" if looked == numbers["files"] else f", {looked:,} of them inspected"
    targets, channels = numbers["targets"], numbers["channels"]
    yield [
        f"{numbers['images']} with {f'maps of values in {targets}' if targets else 'its maps'}",
        f"  {numbers['files']:,} images{part}",
        f"  sizes: {counted(numbers['sizes'])}",
        f"  images of {counted(numbers['pixels'])}; maps of {channels} "
        f"channel{'s' * (channels > 1)}",
    ]
    if numbers["warnings"]:
        yield ["Warnings", *(f"  - {line}" for line in numbers["warnings"])]
    yield ["What to do", *(f"  - {line}" for line in _advice(numbers))]
    yield _histogram_lines(numbers)
    yield _cell_lines(numbers)
    yield _loss_lines(numbers)
    if numbers["nonzero_share"] > 0:
        yield ["To train on them", f"  {train_command(numbers)}"]
        yield [
            "Next: compare losses on these data, for 20 minutes (--minutes N), and choose one",
            f"  {compare_command(numbers)}",
        ]


def train_command(numbers: Mapping[str, Any]) -> str:
    """Return the command that trains on the inspected images."""
    words = ["dense-imb", "train", "values", "--out", "RUN", "--values.train", numbers["images"]]
    words += _words_of(numbers, "--values.")
    if numbers["spatial_dims"] == 3:
        words += ["--model.name", IN_3D]
    if (loss := numbers["loss_over_cells"]) is not None:
        words += ["--loss", loss]
    return shlex.join(words)


def compare_command(numbers: Mapping[str, Any]) -> str:
    """Return the command that compares losses on the inspected images."""
    words = ["dense-imb", "compare", numbers["images"], *_words_of(numbers, "--")]
    if numbers["spatial_dims"] == 3:
        words += ["--model", IN_3D]
    return shlex.join(words)


def _words_of(numbers: Mapping[str, Any], prefix: str) -> list[str]:
    """Return the options that name maps and cells, each with a prefix."""
    words = []
    for name in ("targets", "cells", "counted"):
        if numbers[name] is not None:
            words += [f"{prefix}{name}", numbers[name]]
    if numbers["cell_kind"] == "bits":
        words += [f"{prefix}cell_kind", "bits"]
    return words


def _advice(numbers: Mapping[str, Any]) -> list[str]:
    share, loss = numbers["nonzero_share"], numbers["recommended_loss"]["loss"]
    if share == 0:
        return ["nothing to train on: all values are 0"]
    if (over_cells := numbers["loss_over_cells"]) is not None:
        shares = [one["share"] for one in numbers["classes"].values() if one["share"] > 0]
        return [
            f"the largest cell is {max(shares) / min(shares):,.0f} times the smallest, and the "
            "best network is the one with the smallest mean error over cells: begin with a loss in "
            f"which they count alike, --loss {shlex.quote(over_cells)}. It predicts small cells "
            f"better and the rest worse than the default, {loss}"
        ]
    lines = []
    if share < MOSTLY_EMPTY:
        lines.append(
            f"{percent(share)} of the values are not 0: judge by the error of lit pixels, or of "
            "each cell, not by a mean over all pixels, which rewards a blank map"
        )
        lines.append(
            f"begin with {loss}, the default of `dense-imb train values` here: on heat maps and "
            "rare crosses as good as a weight that was tuned, where MSE was blank for long; its "
            "read-out takes back the lit pixels that it adds. From 0.3 % of lit pixels on, try "
            "torch.nn:MSELoss too, which is often better once it is not blank"
        )
    else:
        lines.append(
            f"{percent(share)} of the values are not 0: begin with {loss}, the default of "
            "`dense-imb train values` here"
        )
    return lines


def _histogram_lines(numbers: Mapping[str, Any]) -> list[str]:
    values, nonzero = numbers["values"], numbers["nonzero"]
    edges, counts = numbers["histogram"]["edges"], numbers["histogram"]["counts"]
    columns = ("min", "q05", "median", "q95", "max")
    names = ("min", "5 %", "median", "95 %", "max")
    every = "".join(f"{number(values[name]):>10}" for name in columns)
    others = "".join(f"{number(nonzero[name]) if name in nonzero else '':>10}" for name in columns)
    logs = [round(100 * math.log1p(count)) for count in counts]
    return [
        f"{'Values':18}" + "".join(f"{name:>10}" for name in names),
        f"  {'all values':16}{every}",
        f"  {'those not 0':16}{others}",
        f"  {sparkline(logs)}",
        f"  {len(counts)} bins from {edges[0]:.4g} to {edges[-1]:.4g} of the values that are not "
        "0, heights logarithmic",
        f"  mean {values['mean']:.5g}; {percent(numbers['nonzero_share'])} are not 0; "
        f"{percent(numbers['lit_share'])} of the pixels are lit "
        f"({'' if numbers['channels'] == 1 else _ANY}above {numbers['level']:.4g})",
    ]


def _cell_lines(numbers: Mapping[str, Any]) -> list[str]:
    width = max(14, *map(len, numbers["classes"]))
    lines = ["Cells" if numbers["cells"] is not None else "Empty and lit pixels"]
    for name, one in numbers["classes"].items():
        lines.append(
            f"  {name:{width}} {percent(one['share']):>9}  {one['pixels']:>15,} pixels  in "
            f"{one['images']:,} images, mean value {number(one['mean'])}"
        )
    if numbers["outside_share"] > 0:
        lines.append(f"  {'in no cell':{width}} {percent(numbers['outside_share']):>9}")
    return lines


def _loss_lines(numbers: Mapping[str, Any]) -> list[str]:
    rows = numbers["losses"]["constant"]
    width = max(len(row["loss"]) for row in rows)
    columns = ("blank", "mean", "median", "best")
    lines = [
        "Losses of maps that are the same everywhere",
        "  (blank: 0; mean, median: of all values; best: the value that has the smallest loss)",
        f"  {'':{width}} " + " ".join(f"{name:>10}" for name in columns),
    ]
    for row in rows:
        cells = " ".join(f"{row[name]:10.4g}" for name in columns)
        lines.append(
            f"  {row['loss']:{width}} {cells}   {row['verdict']}; best: {row['best_value']:.4g}"
        )
    return lines
