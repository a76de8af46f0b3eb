"""The report of a run that was trained on images."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from dense_imb.data.images.labelled import LabelledImages, open_labelled
from dense_imb.hits.masking import Progress
from dense_imb.report import image_figures, page
from dense_imb.report.drawing import Drawing
from dense_imb.report.found import N_EVENTS, TRAINING, Found, said
from dense_imb.report.segmented import Measured, measure_images
from dense_imb.report.text import ERRORS, SCORES, number, percent
from dense_imb.tasks.images.evaluate import MEAN, Blank, ImagesTable, chosen_thresholds
from dense_imb.tasks.images.recipe import open_test_images, open_validation_images
from dense_imb.tasks.images.segment import as_probability
from dense_imb.tasks.images.task import ImagesReading

_SAMPLES = "Images and what became of them"


@dataclass
class OfImages(Found):
    """What there is to report of a segmenter.

    Args:
        masks: of the images of `test`.
        measured: None where the network or the images are missing.
        where: which images were measured on, in words.
        class_names: of all classes, where they are known.
    """

    masks: str | None = None
    measured: Measured | None = None
    where: str = ""
    class_names: tuple[str, ...] | None = None

    unit: ClassVar[str] = "image"
    sections: ClassVar[tuple[str, ...]] = (SCORES, _SAMPLES, ERRORS, TRAINING)
    figure_names: ClassVar[tuple[str, ...]] = (
        "precision_recall", "calibration", "training", "sample_1", "sample_2", "sample_3", "images",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if len(self.test) > 1:
            raise ValueError(
                f"Expected one folder of images, or one HDF5 file, to test on, got "
                f"{len(self.test)}."
            )
        if self.masks is not None and not self.test:
            raise ValueError(
                f"Expected images to test on beside `masks` {self.masks}, got none; give them "
                "with --test."
            )

    @property
    def table(self) -> ImagesTable | None:
        return None if self.measured is None else self.measured.table

    def measure(self, progress: Callable[[int], Progress]) -> None:
        try:
            network = self.run.trained()
        except (ValueError, OSError, KeyError) as problem:
            self.notes.append(f"No scores: the network can't be loaded ({said(problem)}).")
            return
        self.class_names = network.reading.names
        images = self._images(network.reading)
        if images is None:
            return
        thresholds: tuple[float, ...] = (0.0,) * network.reading.n_classes
        try:
            thresholds = chosen_thresholds(self.run.scores())
        except (ValueError, OSError) as problem:
            self.notes.append(
                "The threshold is a probability of 1/2: the counts of the validation can't be read "
                f"({said(problem)})."
            )
        if len(images) > self.n_events:
            self.notes.append(
                f"The first {self.n_events:,} of {len(images):,} images were measured."
            )
            images = images.subset(range(self.n_events))
        if images.has_class_names:
            self.class_names = images.class_names
        self.where = f"{len(images)} {self.where}"
        self.measured = measure_images(network, images, thresholds, progress)
        self.name = network.name

    def _images(self, reading: ImagesReading) -> LabelledImages | None:
        """Those asked for, those that no run has seen, or those of the validation."""
        config = self.run.config.images
        if self.test:
            self.where = "test images"
            # asked for by name: what is wrong with them ends the report
            return open_labelled(
                self.test[0],
                self.masks,
                labels=config.labels,
                above=config.above,
                ignore_index=config.ignore_index,
                n_classes=reading.n_classes,
                names=reading.names,
            )
        self.where = "test images" if config.test_share else "validation images"
        try:
            if config.test_share:
                return open_test_images(config, reading.n_classes)
            return open_validation_images(config, reading.n_classes)
        except (ValueError, OSError, ImportError) as problem:
            self.notes.append(
                f"The {self.where} can't be read ({said(problem)}). Bring them back, or give "
                "others with --test and --masks."
            )
            return None

    def headline(self) -> str:
        measured = self.measured
        if measured is None:
            best = (self.metrics.get("best") or {}).get("average_precision")
            return (
                "No scores yet." if best is None else f"Average precision {best:.2f} (validation)."
            )
        own, blank = measured.table[self.name], measured.table[Blank.name]
        names = self._names()
        what = f", the mean of {len(names)} classes," if len(names) > 1 else ""
        return (
            f"Average precision {number(own['average_precision'], '.2f')}{what} on {self.where}, "
            f"F1 {number(own['f1'], '.2f')} at the chosen threshold; a blank answer has "
            f"{number(blank['average_precision'], '.2g')}."
        )

    def _names(self) -> list[str]:
        """What to call the foreground classes."""
        assert self.measured is not None
        if self.class_names is not None:
            return list(self.class_names[1:])
        n_classes, labels = self.measured.scores.n_classes, self.run.config.images.labels
        if n_classes == 2:
            return ["foreground"]
        return [
            f"class {k}" + ("" if labels is None or labels[k] == k else f" (value {labels[k]})")
            for k in range(1, n_classes)
        ]

    def tables(self) -> dict[str, list[str]]:
        if self.table is None:
            return {}
        table, names = self.table, self._names()
        columns = [("share of the pixels", "share"), *table.headers()]
        header = ["", *(["class"] if len(names) > 1 else []), *(title for title, _ in columns)]
        rows = []
        for row in table.rows:
            if len(names) == 1 and row["class"] != MEAN:
                continue
            of_class = MEAN if row["class"] == MEAN else names[int(row["class"]) - 1]
            cells = [str(row["scorer"]), *([of_class] if len(names) > 1 else [])]
            for _, key in columns:
                cells.append(percent(row[key]) if key == "share" else number(row[key]))
            rows.append(cells)
        return {SCORES: [page.table(header, rows, own=self.name), page.paragraph(self._seen())]}

    def _seen(self) -> str:
        """What a reader should know of the table."""
        assert self.measured is not None
        table = self.measured.table
        words = [f"Measured on {self.where}"]
        if self.test:
            words.append(f" of {self.test[0]}.")
        elif self.run.config.images.test_share:
            words.append(" that the run held out (test_share): no training or choice saw them.")
        else:
            words.append(
                ", which also served to choose the best weights and the threshold: expect a little "
                "less of new images."
            )
        words.append(
            " F1 best: at the best threshold of these very images. F1: at the one with the best "
            f"F1 on the run's validation images, {self._said_thresholds()}. A pixel within "
            f"{table.tolerance:g} px is right in the F1 of that name. The calibration error is to "
            "be compared with the share. Precision, recall and IoU are at the thresholds of F1; "
            "likeliest: each pixel called its likeliest class. A blank answer calls nothing "
            "foreground."
        )
        return "".join(words)

    def _said_thresholds(self) -> str:
        assert self.measured is not None
        names, thresholds = self._names(), self.measured.thresholds[1:]
        said_of = [f"{as_probability(t):.3g}" for t in thresholds]
        if len(names) == 1:
            return f"a probability of {said_of[0]}"
        listed = ", ".join(f"{n}: {t}" for n, t in zip(names, said_of, strict=True))
        return f"a probability each ({listed})"

    def drawings(self) -> list[Drawing]:
        drawn = [] if self.measured is None else self._of_scores(self.measured)
        if self.history:
            n_classes = sum(name.startswith("gradient_share_class_") for name in self.history[-1])
            numbered = (
                [f"class {k}" for k in range(1, n_classes)] if n_classes > 2 else ["foreground"]
            )
            names = list(self.class_names[1:]) if self.class_names else numbered
            drawn.append(
                self.drawing_of_training(
                    lambda rows, second, to: image_figures.draw_image_training(
                        rows, names, to, second
                    ),
                    "Loss, average precision, Dice, IoU, gradient shares and learning rate against "
                    "the step.",
                    "A mark for each validation; means are over the foreground classes.",
                )
            )
        return drawn

    def _of_scores(self, measured: Measured) -> list[Drawing]:
        names = self._names()
        most = image_figures.MOST_CLASSES
        left_out = f" The first {most} of {len(names)} classes." if len(names) > most else ""
        drawn = [
            Drawing(
                "precision_recall",
                SCORES,
                lambda to: image_figures.draw_precision_recall(measured, names, to),
                (7.2, 5.2),
                "Precision against recall, with the chosen threshold and the blank answer.",
                "Precision for each recall, over all pixels together. The dots are the threshold "
                "that the validation chose; the dotted lines the precision of calling every pixel "
                f"so, which is the average precision of a blank answer.{left_out}",
            ),
            Drawing(
                "calibration",
                ERRORS,
                lambda to: image_figures.draw_calibration(measured, names, to),
                (9.5, 5.2),
                "Share of a class against the probability said, and how often each is said.",
                "On logit scales, where rare and common are seen alike. Below the diagonal the "
                "network says too much. Open marks at an edge: pixels of that probability were "
                f"never of the class, or always. Bins of under 100 pixels are "
                f"left out; the outermost bars on the right hold all beyond.{left_out}",
            ),
        ]
        threshold = as_probability(measured.thresholds[1]) if len(names) == 1 else None
        for k, sample in enumerate(measured.samples):
            row = sample.row
            where = f"{sample.name}, {sample.part}" if sample.part else sample.name
            scores = f"F1 {number(row['f1'], '.2f')}, AP {number(row['average_precision'], '.2f')}"
            mark = "" if threshold is None else " The red mark on the scale is the threshold."
            drawn.append(
                Drawing(
                    f"sample_{k + 1}",
                    _SAMPLES,
                    lambda to, one=sample: image_figures.draw_picture(one, names, threshold, to),  # type: ignore[misc]
                    image_figures.sample_layout(sample.truth.shape)[2],
                    f"{where}: image, truth, probability and errors.",
                    f"{sample.title} by F1: {where}. {scores}"
                    f"{' of the whole volume' if sample.part else ''}.{mark}",
                )
            )
        without = sum(row["share"] == 0 for row in measured.images)
        clean = sum(row["share"] == 0 and row["false_alarms"] == 0 for row in measured.images)
        drawn.append(
            Drawing(
                "images",
                ERRORS,
                lambda to: image_figures.draw_images(measured, to),
                (9.5, 4),
                "Histogram of the F1 of single images, and F1 against the share of foreground.",
                "F1 of single images"
                + (
                    ", means over their classes, each pixel of its likeliest."
                    if len(names) > 1
                    else " at the chosen threshold."
                )
                + (
                    f" {without} images have no foreground; {clean} of them have no false alarm "
                    "and are left out, the others count 0 on the left."
                    if without
                    else ""
                ),
            )
        )
        return drawn

    def numbers(self) -> dict[str, Any]:
        found: dict[str, Any] = {"masks": self.masks}
        measured = self.measured
        if measured is None:
            return found
        curves, calibration = {}, {}
        for k in range(1, measured.scores.n_classes):
            histogram = measured.scores.histograms[k]
            recall, precision = image_figures.precision_recall(histogram)
            curves[str(k)] = {"recall": recall.tolist(), "precision": precision.tolist()}
            bins = image_figures.reliability(histogram)
            calibration[str(k)] = {name: values.tolist() for name, values in bins.items()}
        return found | {
            "measured_on": self.where,
            "class_names": self.class_names,
            "threshold_logits": list(measured.thresholds[1:]),
            "curves": curves,
            "calibration": calibration,
            "confusion": measured.scores.confusion.tolist(),
            "images": measured.images,
            "samples": [
                {"image": one.name, "title": one.title, "part": one.part}
                for one in measured.samples
            ],
        }

    def commands(self) -> str:
        run = self.run
        folder = shlex.quote(str(run.folder))
        images = shlex.quote(self.test[0] if self.test else "images")
        masks = "" if self.test and self.masks is None else shlex.quote(self.masks or "masks")
        given = f"{images}{masks and ' --masks ' + masks}"
        test = f" --test {given}" if self.test else ""
        most = "" if self.n_events == N_EVENTS else f" --events {self.n_events}"  # of any kind
        held_out = not self.test and run.config.images.test_share > 0
        lines = [
            "# the same network again, in a new folder",
            f"dense-imb train --config {shlex.quote(str(run.folder / 'config.yaml'))} --out again",
            "# scores beside a blank answer",
            f"dense-imb evaluate {folder}{'' if held_out else ' ' + given}",
            "# a mask for each image of a folder of yours",
            f"dense-imb segment {folder} {images} segmented",
            "# this page",
            f"dense-imb report {folder}{test}{most}",
        ]
        return "\n".join(lines)
