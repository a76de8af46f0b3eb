"""Source of a report on images with maps of values."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dense_imb.base.refusals import Refused
from dense_imb.data.values.pairs import ValueImages, open_values
from dense_imb.hits.masking import Progress
from dense_imb.report.blocks import blocks_text
from dense_imb.report.facts import number
from dense_imb.report.page import Drawing, Section, Table
from dense_imb.report.source import ReportSource, joined, quoted, sample_limit
from dense_imb.report.values import figures
from dense_imb.report.values.measures import (
    MOST_CHANNELS,
    ValueMeasures,
    ValueSample,
    measure_values,
)
from dense_imb.tasks.values.evaluate import ValuesTable
from dense_imb.tasks.values.recipe import (
    HDF5,
    default_places,
    open_test_images,
    open_validation_images,
)
from dense_imb.tasks.values.task import ValuesReading

_COLUMNS = (
    ("balanced MAE", "balanced_mae"),
    ("skill", "skill"),
    ("MAE", "mae"),
    ("RMSE", "rmse"),
    ("bias", "bias"),
    ("lit / target", "lit_ratio"),
    ("F1", "f1"),
)


@dataclass
class ValuesSource(ReportSource):
    """Report of a network of values.

    Args:
        targets: folder of the maps of the test images, or name of their data set.
        cells: folder of the cells of the test images, or name of their data set.
        counted: folder of the maps of counted pixels, or name of their data set.
        measured: measurements; None if the network or the images are missing.
        where: description of the measured images.
        names: names of the channels, if known.

    Example:
        >>> from dense_imb.report.values import Source
        >>> Source.figure_names[:3]
        ('by_value', 'cells', 'bins')
        >>> sorted(Source.options)  # arguments of `write_report` for runs on maps of values
        ['cells', 'counted', 'targets']
    """

    targets: str | None = None
    cells: str | None = None
    counted: str | None = None
    measured: ValueMeasures | None = None
    where: str = ""
    names: tuple[str, ...] | None = None

    kind: ClassVar[str] = "values"
    unit: ClassVar[str] = "image"
    options: ClassVar[frozenset[str]] = frozenset({"targets", "cells", "counted"})
    figure_names: ClassVar[tuple[str, ...]] = (
        "by_value", "cells", "bins", "training", "sample_1", "sample_2", "sample_3",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.test) > 1:
            raise Refused("one folder of images, or one HDF5 file, to test on", len(self.test))
        for name in ("targets", "cells", "counted"):
            if getattr(self, name) is not None and not self.test:
                raise Refused(
                    f"images to test on beside `{name}` {getattr(self, name)}",
                    "none",
                    "name their folder with {test=FOLDER}",
                )

    @property
    def table(self) -> ValuesTable | None:
        return None if self.measured is None else self.measured.table

    def measure(self, progress: Callable[[int], Progress]) -> None:
        try:
            network = self.run.trained()
        except (ValueError, OSError, KeyError) as problem:
            self.note("No scores: the network can't be loaded", problem)
            return
        self.names = network.reading.names
        images = self._open_images(network.reading)
        if images is None:
            return
        if len(images) > self.n_samples:
            self.notes.append(
                f"The first {self.n_samples:,} of {len(images):,} images were measured."
            )
            images = images.subset(range(self.n_samples))
        self.note_overlap(images)
        self.where = f"{len(images)} {self.where}"
        self.measured = measure_values(network, images, progress)
        self.notes += self.measured.table.notes
        self.name = network.name

    def _open_images(self, reading: ValuesReading) -> ValueImages | None:
        """Open the images asked for, else the run's test images, else its validation images."""
        values = self.run.config.values
        if self.test:
            self.where = "test images"
            places = default_places(values, self.test[0])
            cells = self.cells or places.cells
            # asked for by name: an error in them ends the report
            return open_values(
                self.test[0],
                self.targets or places.targets,
                cells=cells,
                counted=self.counted or places.counted,
                cell_kind=reading.cell_kind,
                cell_names=None if cells is None else reading.cell_names,
                spatial_dims=len(reading.patch),
            )
        self.where = "test images" if values.test_share else "validation images"
        try:
            if values.test_share:
                return open_test_images(values)
            return open_validation_images(values, reading.cell_names)
        except (ValueError, OSError, ImportError) as problem:
            cure = "Bring them back, or report on others with --test FOLDER and --targets FOLDER."
            self.note(f"The {self.where} can't be read", problem, cure)
            return None

    def headline(self) -> str:
        measured = self.measured
        if measured is None:
            best = (self.metrics.get("best") or {}).get("balanced_mae")
            if best is None:
                return "No scores yet."
            return f"Balanced mean absolute error {best:.3g} (validation)."
        table = measured.table
        parts = [f"Mean absolute error {_two_errors(table[self.name])} on {self.where}"]
        if (raw := f"{self.name} as trained") in measured.joint:
            parts.append(f"as trained, without the read-out, {_two_errors(table[raw])}")
        parts.append(f"a blank map has {_two_errors(table['blank'])}")
        return f"{'; '.join(parts)}."

    def sections(self) -> list[Section]:
        training = self.training_section(
            figures.draw_values_training,
            "Loss, skill, errors, gradient shares, lit pixels and learning rate against the step.",
            "A marker for each validation, of predictions as trained.",
        )
        measured = self.measured
        if measured is None:
            return [training]
        samples = [self._sample(k, one) for k, one in enumerate(measured.samples, 1)]
        return [
            Section("Scores", [self._score_table()], [self._conditions()], [self._by_value()]),
            Section("Sample images", drawings=samples),
            Section("Errors", drawings=[*self._parts("cell"), *self._parts("bin")]),
            training,
        ]

    def _score_table(self) -> Table:
        table = self.table
        assert table is not None
        rows = [
            [str(row["scorer"]), *(number(row[key], ".4g") for _, key in _COLUMNS)]
            for row in table.rows
            if row["kind"] == "all"
        ]
        return Table(["", *(title for title, _ in _COLUMNS)], rows, own=self.name)

    def _conditions(self) -> str:
        """Describe what was measured, and how."""
        table = self.table
        assert table is not None
        if self.test:
            origin = f" of {self.test[0]}."
        elif self.run.config.values.test_share:
            origin = " that the run held out (test_share): no training or choice used them."
        else:
            origin = (
                ", which also chose the best weights and the read-out: expect slightly larger "
                "errors on new images."
            )
        over = "cells" if table.has_cells else f"pixels below and above {table.level:.3g}"
        read_out = self.run.read_out
        lines = [] if read_out is None else read_out.read_out.describe(self.names).splitlines()
        how = "".join(f" {line[0].upper()}{line[1:]}." for line in lines)
        return (
            f"Measured on {self.where}{origin} Balanced MAE is the mean over {over}; skill is 1 "
            f"for a perfect map and 0 for a blank one. {self._levels()}{how}"
        )

    def _levels(self) -> str:
        """Describe the levels above which targets and predictions of the table are lit."""
        table, read_out = self.table, self.run.read_out
        assert table is not None
        text = f"Lit / target of the table: pixels predicted above the level {table.level:.3g}"
        if read_out is not None and f"{self.name} as trained" in self._scorers():
            levels = ", ".join(f"{one.matched_level:.3g}" for one in read_out.read_out.effect)
            text += f", with the read-out above {levels} (the matched level, see below),"
        return f"{text} for each pixel with a target above {table.level:.3g}."

    def _scorers(self) -> set[str]:
        return set() if self.table is None else {str(row["scorer"]) for row in self.table.rows}

    def _by_value(self) -> Drawing:
        measured = self.measured
        assert measured is not None
        return Drawing(
            "by_value",
            partial(figures.draw_by_value, measured),
            (5.2 * len(measured.joint), 4.6),
            "Predictions against targets, with the mean prediction at each target.",
            "Darker where more values lie, on a logarithmic scale. On the diagonal predictions "
            "are right; values beyond an edge are drawn on it.",
        )

    def _parts(self, kind: str) -> list[Drawing]:
        table = self.table
        assert table is not None
        rows = [row for row in table.rows if row["kind"] == kind]
        if not rows:
            return []
        what = {"cell": "cell", "bin": "bin of target values"}[kind]
        n_parts = len({row["part"] for row in rows})
        cut = f" The first {figures.MOST_PARTS} of {n_parts}." * (n_parts > figures.MOST_PARTS)
        return [
            Drawing(
                f"{kind}s",
                partial(figures.draw_parts, rows, self.name),
                (9.5, 1.6 + 0.7 * min(n_parts, figures.MOST_PARTS)),
                f"Mean absolute error of each {what}, of network and baselines.",
                f"Mean absolute error of each {what}.{cut}",
            )
        ]

    def _sample(self, k: int, sample: ValueSample) -> Drawing:
        where = f"{sample.name}, {sample.part}" if sample.part else sample.name
        is_first = len(sample.target) == MOST_CHANNELS
        part = f" The first {MOST_CHANNELS} channels with lit pixels at most." * is_first
        has_grey = bool(np.isnan(sample.prediction).any())
        part += blocks_text(sample.block, "its largest value")
        part += " Grey pixels do not count: they were left out of loss and scores." * has_grey
        return Drawing(
            f"sample_{k}",
            partial(figures.draw_value_sample, sample),
            figures.size_of_sample(sample),
            f"{where}: image, target, prediction and their difference.",
            f"{sample.title}: {where}. Mean absolute error of the image {sample.error:.3g}.{part}",
        )

    def numbers(self) -> dict[str, Any]:
        measured = self.measured
        if measured is None:
            return {"targets": self.targets, "cells": self.cells, "counted": self.counted}
        return {
            "targets": self.targets,
            "cells": self.cells,
            "counted": self.counted,
            "measured_on": self.where,
            "joint": {name: counts.tolist() for name, counts in measured.joint.items()},
            "edges": measured.edges.tolist(),
            "images": measured.images,
            "samples": [
                {"image": one.name, "title": one.title, "part": one.part}
                for one in measured.samples
            ],
        }

    def uses(self) -> list[tuple[str, str]]:
        folder = shlex.quote(str(self.run.folder))
        held_out = not self.test and self.run.config.values.test_share > 0
        data = "" if held_out else self._test_paths()
        return [
            ("measure its errors beside baselines", joined("dense-imb evaluate", folder, data)),
            (
                "predict the values of your own images",
                f"dense-imb predict {folder} {self._images()} predicted",
            ),
        ]

    def _images(self) -> str:
        """Return the paths of test images as typed, or a placeholder of the form of the run's."""
        return quoted(self.test, "images" if self._is_of_folders else "images.h5")

    @property
    def _is_of_folders(self) -> bool:
        return Path(self.run.config.values.train or "").suffix not in HDF5

    def _test_paths(self) -> str:
        """Return the words for test images, with folders of the maps that the run was trained on.

        The data sets of an HDF5 file have the names of the training file by default.
        """
        trained_on, words = self.run.config.values, [self._images()]
        for name in ("targets", "cells", "counted"):
            value = getattr(self, name)
            if not self.test and self._is_of_folders and getattr(trained_on, name) is not None:
                value = name  # a placeholder
            if value is not None:
                words += [f"--{name}", shlex.quote(value)]
        return " ".join(words)

    def report_options(self) -> str:
        test = f"--test {self._test_paths()}" if self.test else ""
        return joined(test, sample_limit(self.n_samples, self.most))


def _two_errors(row: Mapping[str, str | float]) -> str:
    return f"{number(row['mae'], '.3g')}, balanced {number(row['balanced_mae'], '.3g')}"
