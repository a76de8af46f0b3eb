"""Source of a report on whole images with a label each."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from dense_imb.base.refusals import Refused
from dense_imb.data.labels.classified import ClassifiedImages
from dense_imb.hits.masking import Progress
from dense_imb.metrics import class_groups
from dense_imb.report.facts import number
from dense_imb.report.labels import figures
from dense_imb.report.labels.measures import LabelMeasures, measure_labels
from dense_imb.report.page import Drawing, Section, Table
from dense_imb.report.source import ReportSource, joined, quoted, sample_limit
from dense_imb.tasks.labels.evaluate import ALL, LabelsTable
from dense_imb.tasks.labels.recipe import (
    open_cifar_test,
    open_classified,
    open_test_table,
    validation_share,
)
from dense_imb.tasks.labels.task import LabelsReading
from dense_imb.tasks.labels.trained import Commonest

_COLUMNS = {
    "accuracy": "accuracy",
    "balanced": "balanced_accuracy",
    "head": "head_accuracy",
    "middle": "middle_accuracy",
    "tail": "tail_accuracy",
    "macro F1": "macro_f1",
    "AUC": "auc",
    "kappa": "quadratic_kappa",
    "Matthews": "matthews",
    "calibration error": "calibration_error",
}
_CLASS_COLUMNS = ("accuracy", "precision", "f1", "auc")


@dataclass
class LabelsSource(ReportSource):
    """Report of a classifier of whole images.

    Args:
        images: folder of the images that a CSV file of `test` names; None for that of the run.
        measured: measurements; None if the network or the images are missing.
        where: description of the measured images.
        class_names: names of the classes; () if unknown.
        groups: classes of the head, the middle and the tail; empty if unknown.

    Example:
        >>> from dense_imb.report.labels import Source
        >>> Source.figure_names[:3], Source.most  # images that are measured
        (('class_accuracy', 'confusion', 'worst'), 10000)
        >>> sorted(Source.options)  # arguments of `write_report` for runs on whole images
        ['images']
    """

    images: str | None = None
    measured: LabelMeasures | None = None
    where: str = ""
    class_names: tuple[str, ...] = ()
    groups: dict[str, tuple[int, ...]] = field(default_factory=dict)

    kind: ClassVar[str] = "labels"
    unit: ClassVar[str] = "image"
    options: ClassVar[frozenset[str]] = frozenset({"images"})
    most: ClassVar[int] = 10_000  # CIFAR's test images
    figure_names: ClassVar[tuple[str, ...]] = ("class_accuracy", "confusion", "worst", "training")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.test) > 1:
            raise Refused("one CSV file, or one archive of CIFAR, to test on", len(self.test))
        if self.images is None:
            return
        if self._is_cifar:
            raise Refused("no `images` with CIFAR", self.images, argument="images")
        if not self.test:
            raise Refused(
                f"a CSV file beside `images` {self.images}", "none", "name it with {test=CSV}"
            )

    @property
    def _is_cifar(self) -> bool:
        return not self.run.config.labels.is_table

    @property
    def table(self) -> LabelsTable | None:
        return None if self.measured is None else self.measured.table

    def measure(self, progress: Callable[[int], Progress]) -> None:
        try:
            network = self.run.trained()
        except (ValueError, OSError, KeyError) as problem:
            self.note("No scores: the network can't be loaded", problem)
            return
        reading = network.reading
        self.class_names = reading.class_names
        self.groups = class_groups(reading.train_counts, reading.many, reading.few)
        images = self._open_images(reading)
        if images is None:
            return
        if len(images) > self.n_samples:
            self.notes.append(
                f"{self.n_samples:,} of {len(images):,} images were measured, evenly spaced."
            )
            # files are often sorted by class
            places = np.linspace(0, len(images) - 1, self.n_samples).round().astype(int)
            images = images.subset(places.tolist())
        self.note_overlap(images)
        self.where = f"{len(images)} {self.where}"
        self.measured = measure_labels(network, images, progress)
        self.name = network.name

    def _open_images(self, reading: LabelsReading) -> ClassifiedImages | None:
        """Open the images asked for, else CIFAR's held-out ones, else the validation images."""
        labels = self.run.config.labels
        if self.test:
            self.where = "test images"
            # asked for by name: an error in them ends the report
            if self._is_cifar:
                return open_cifar_test(labels, self.test[0])
            folder = self.images or labels.images
            return open_test_table(labels, self.test[0], folder, reading.class_names)
        is_held_out = self._is_cifar and validation_share(labels) > 0
        self.where = "test images" if is_held_out else "validation images"
        try:
            return open_cifar_test(labels) if is_held_out else open_classified(labels)[1]
        except (ValueError, OSError, ImportError) as problem:
            cure = "Bring them back, or report on others with --test CSV and --images FOLDER."
            if self._is_cifar:
                cure = "Bring the archive back, or name it with --test ARCHIVE."
            self.note(f"The {self.where} can't be read", problem, cure)
            return None

    def headline(self) -> str:
        if self.table is None:
            best = (self.metrics.get("best") or {}).get("balanced_accuracy")
            return (
                "No scores yet." if best is None else f"Balanced accuracy {best:.2f} (validation)."
            )
        own, rule = self.table[self.name], self.table[Commonest.name]
        groups = [
            f"{name} {number(own[f'{name}_accuracy'], '.2f')}"
            for name in ("head", "middle", "tail")
            if own[f"{name}_accuracy"] == own[f"{name}_accuracy"]
        ]
        return (
            f"Balanced accuracy {number(own['balanced_accuracy'], '.2f')} ({', '.join(groups)}), "
            f"accuracy {number(own['accuracy'], '.2f')} on {self.where}; always answering the "
            f"commonest class has {number(rule['balanced_accuracy'], '.2f')} and "
            f"{number(rule['accuracy'], '.2f')}."
        )

    def sections(self) -> list[Section]:
        names = self.class_names or self._numbered_classes()
        training = self.training_section(
            lambda rows, to, second: figures.draw_label_training(
                rows, names, self.groups, to, second
            ),
            "Loss, accuracies, gradient shares and learning rate against the step.",
            "A marker for each validation. Head, middle and tail are classes with many, some and "
            "few training images.",
        )
        if self.measured is None:
            return [training]
        return [*self._measured_sections(self.measured), training]

    def _numbered_classes(self) -> tuple[str, ...]:
        last = self.history[-1] if self.history else {}
        n_classes = sum(name.startswith("gradient_share_class_") for name in last)
        return tuple(f"class {k}" for k in range(n_classes))

    def _measured_sections(self, measured: LabelMeasures) -> list[Section]:
        n_classes = len(self.class_names)
        accuracy = Drawing(
            "class_accuracy",
            lambda to: figures.draw_class_accuracy(measured, to),
            (9.5, 5.4),
            "Accuracy of each class, and its number of training images.",
            "Classes from the commonest to the rarest in training. Black lines are the means of "
            "head, middle and tail. The dashed line is the mean over the classes of always "
            "answering the commonest one.",
        )
        confusion = Drawing(
            "confusion",
            lambda to: figures.draw_confusion(measured, to),
            (7.2, 6.2),
            "Confusion matrix: predicted classes against true classes.",
            "Each row shows the predictions for the images of a true class, as shares of the row"
            + ("; the numbers are images." if n_classes <= figures.MOST_COUNTED else "."),
        )
        worst = Drawing(
            "worst",
            lambda to: figures.draw_worst(measured.worst, to),
            figures.worst_layout(len(measured.worst))[2],
            "Wrongly classified images with their true and predicted classes.",
            "The wrongly classified images of which the network is most confident, with the "
            "probability of the predicted class. The JSON file of the report names them.",
        )
        classes = self._class_table() if n_classes <= figures.MOST_NAMED else None
        return [
            Section("Scores", [self._score_table()], [self._conditions()], [accuracy]),
            Section("Classes", [] if classes is None else [classes]),
            Section("Errors", drawings=[confusion, *([worst] if measured.worst else [])]),
        ]

    def _score_table(self) -> Table:
        assert self.table is not None
        rows = [
            [str(row["scorer"]), *(number(row[key]) for key in _COLUMNS.values())]
            for row in self.table.rows
            if row["class"] == ALL
        ]
        return Table(["", *_COLUMNS], rows, own=self.name)

    def _class_table(self) -> Table:
        assert self.measured is not None
        rows = []
        group_of = {k: name for name, group in self.groups.items() for k in group}
        own = [row for row in self.measured.table.rows if row["scorer"] == self.name][1:]
        for k, row in enumerate(own):
            counts = (f"{float(row[key]):,.0f}" for key in ("n_trained_on", "n_images"))
            scores = (number(row[key]) for key in _CLASS_COLUMNS)
            rows.append([str(row["class"]), group_of[k], *counts, *scores])
        header = ["class", "group", "training images", "images here"]
        return Table([*header, "accuracy", "precision", "F1", "AUC"], rows)

    def _conditions(self) -> str:
        """Describe what was measured, and how."""
        assert self.table is not None
        origin = f"Measured on {self.where}"
        if self.test:
            origin += f" of {self.test[0]}."
        elif self.where.endswith("validation images"):
            origin += (
                ", which also chose the best weights: expect slightly lower scores on new images."
            )
        else:
            origin += ", which neither training nor choice used."
        return (
            f"{origin} Balanced accuracy is the mean over the classes; head, middle and tail are "
            f"means over classes with more than {self.table.many:g} training images, between, and "
            f"fewer than {self.table.few:g}. Kappa has quadratic weights, and is meaningful for "
            "ordered classes only. Commonest: every image is called the commonest training class."
        )

    def numbers(self) -> dict[str, Any]:
        known: dict[str, Any] = {"images": self.images}
        if self.measured is None:
            return known
        return known | {
            "measured_on": self.where,
            "groups": {name: list(group) for name, group in self.groups.items()},
            "worst": [
                {
                    "image": one.name,
                    "true": one.truth,
                    "predicted": one.predicted,
                    "probability": one.probability,
                }
                for one in self.measured.worst
            ],
        }

    def uses(self) -> list[tuple[str, str]]:
        folder = shlex.quote(str(self.run.folder))
        placeholder = "" if self._is_cifar else "test.csv"
        return [
            (
                "compare its scores with the commonest class",
                joined("dense-imb evaluate", folder, self._test_paths(placeholder)),
            ),
            (
                "use it without dense-imb",
                f"dense-imb export {folder} network.pt2",
            ),
        ]

    def _test_paths(self, placeholder: str) -> str:
        images = f"--images {shlex.quote(self.images)}" if self.images else ""
        return joined(quoted(self.test, placeholder), images)

    def report_options(self) -> str:
        test = f"--test {self._test_paths('')}" if self.test else ""
        return joined(test, sample_limit(self.n_samples, self.most))
