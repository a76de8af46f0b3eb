"""Source of a report on images with masks."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from dense_imb.base.refusals import Refused
from dense_imb.data.images.labelled import LabelledImages, numbered_classes, open_labelled
from dense_imb.hits.masking import Progress
from dense_imb.report.blocks import blocks_text
from dense_imb.report.facts import number, percent
from dense_imb.report.images import figures
from dense_imb.report.images.measures import ImageMeasures, ImageSample, measure_images
from dense_imb.report.page import Drawing, Section, Table
from dense_imb.report.source import ReportSource, joined, quoted, sample_limit
from dense_imb.tasks.images.evaluate import MEAN, Blank, ImagesTable, chosen_thresholds
from dense_imb.tasks.images.recipe import open_test_images, open_validation_images
from dense_imb.tasks.images.segment import as_probability
from dense_imb.tasks.images.task import ImagesReading


@dataclass
class ImagesSource(ReportSource):
    """Report of a segmenter.

    Args:
        masks: folder of the masks of the test images.
        measured: measurements; None if the network or the images are missing.
        where: description of the measured images.
        class_names: names of all classes; None if unknown.

    Example:
        >>> from dense_imb.report.images import Source
        >>> Source.figure_names[:3]
        ('precision_recall', 'calibration', 'training')
        >>> sorted(Source.options)  # arguments of `write_report` for runs on images with masks
        ['masks']
    """

    masks: str | None = None
    measured: ImageMeasures | None = None
    where: str = ""
    class_names: tuple[str, ...] | None = None

    kind: ClassVar[str] = "images"
    unit: ClassVar[str] = "image"
    options: ClassVar[frozenset[str]] = frozenset({"masks"})
    figure_names: ClassVar[tuple[str, ...]] = (
        "precision_recall", "calibration", "training", "sample_1", "sample_2", "sample_3", "images",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.test) > 1:
            raise Refused("one folder of images, or one HDF5 file, to test on", len(self.test))
        if self.masks is not None and not self.test:
            raise Refused(
                f"images to test on beside `masks` {self.masks}",
                "none",
                "name their folder with {test=FOLDER}",
            )

    @property
    def table(self) -> ImagesTable | None:
        return None if self.measured is None else self.measured.table

    def measure(self, progress: Callable[[int], Progress]) -> None:
        try:
            network = self.run.trained()
        except (ValueError, OSError, KeyError) as problem:
            self.note("No scores: the network can't be loaded", problem)
            return
        self.class_names = network.reading.names
        images = self._open_images(network.reading)
        if images is None:
            return
        thresholds: tuple[float, ...] = (0.0,) * network.reading.n_classes
        try:
            thresholds = chosen_thresholds(self.run.scores())
        except (ValueError, OSError) as problem:
            sentence = "The threshold is 1/2: the counts of the validation can't be read"
            self.note(sentence, problem)
        if len(images) > self.n_samples:
            self.notes.append(
                f"The first {self.n_samples:,} of {len(images):,} images were measured."
            )
            images = images.subset(range(self.n_samples))
        if images.has_class_names:
            self.class_names = images.class_names
        self.note_overlap(images)
        self.where = f"{len(images)} {self.where}"
        self.measured = measure_images(network, images, thresholds, progress)
        self.name = network.name

    def _open_images(self, reading: ImagesReading) -> LabelledImages | None:
        """Open the images asked for, else the run's test images, else its validation images."""
        config = self.run.config.images
        if self.test:
            self.where = "test images"
            # asked for by name: an error in them ends the report
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
        open_own = open_test_images if config.test_share else open_validation_images
        try:
            return open_own(config, reading.n_classes)
        except (ValueError, OSError, ImportError) as problem:
            cure = "Bring them back, or report on others with --test FOLDER and --masks FOLDER."
            self.note(f"The {self.where} can't be read", problem, cure)
            return None

    def headline(self) -> str:
        measured = self.measured
        if measured is None:
            best = (self.metrics.get("best") or {}).get("average_precision")
            return (
                "No scores yet." if best is None else f"Average precision {best:.2f} (validation)."
            )
        own, blank = measured.table[self.name], measured.table[Blank.name]
        names = self._foreground_names()
        mean = f", the mean of {len(names)} classes," if len(names) > 1 else ""
        return (
            f"Average precision {number(own['average_precision'], '.2f')}{mean} on {self.where}, "
            f"F1 {number(own['f1'], '.2f')} at the chosen threshold; a blank answer has "
            f"{number(blank['average_precision'], '.2g')}."
        )

    def _foreground_names(self) -> list[str]:
        """Return the names of the foreground classes; numbers if they have none."""
        assert self.measured is not None
        if self.class_names is not None:
            return list(self.class_names[1:])
        n_classes, labels = self.measured.scores.n_classes, self.run.config.images.labels
        if n_classes == 2:
            return [*numbered_classes(2)[1:]]
        return [
            f"class {k}" + ("" if labels is None or labels[k] == k else f" (value {labels[k]})")
            for k in range(1, n_classes)
        ]

    def sections(self) -> list[Section]:
        training = self._training_section()
        if self.measured is None:
            return [training]
        return [*self._measured_sections(self.measured), training]

    def _training_section(self) -> Section:
        last = self.history[-1] if self.history else {}
        n_classes = sum(name.startswith("gradient_share_class_") for name in last)
        names = list((self.class_names or numbered_classes(max(n_classes, 2)))[1:])
        return self.training_section(
            lambda rows, to, second: figures.draw_image_training(rows, names, to, second),
            "Loss, average precision, Dice, IoU, gradient shares and learning rate against the "
            "step.",
            "A marker for each validation, with probabilities as trained"
            + ("; means are over the foreground classes." if len(names) > 1 else "."),
        )

    def _measured_sections(self, measured: ImageMeasures) -> list[Section]:
        names, most = self._foreground_names(), figures.MOST_CLASSES
        is_probability = self.is_probability
        cut = f" The first {most} of {len(names)} classes." if len(names) > most else ""
        precision_recall = Drawing(
            "precision_recall",
            lambda to: figures.draw_precision_recall(measured, names, to),
            (7.2, 5.2),
            "Precision against recall, with the chosen threshold and the blank answer.",
            "Precision for each recall, over the pixels of all images. Dots mark the threshold "
            "that the validation chose. Dotted lines are the precision of calling every pixel "
            f"foreground: the average precision of a blank answer.{cut}",
        )
        calibration = Drawing(
            "calibration",
            lambda to: figures.draw_calibration(measured, names, to, is_probability=is_probability),
            (9.5, 5.2),
            "Share of a class against the predicted probability, and histogram of probabilities.",
            "Logit scales show rare and common classes alike. "
            + ("Below the diagonal the network is overconfident. " if is_probability else "")
            + f"Open markers at an edge: no pixel of that {self._output_name()} was of the "
            "class, or all were. Bins with fewer than 100 pixels are not drawn; the outermost bars "
            f"on the right hold all pixels beyond.{cut}",
        )
        paragraphs = [self._conditions(), *self.describe_probabilities()]
        return [
            Section("Scores", [self._score_table(names)], paragraphs, [precision_recall]),
            Section("Sample images", drawings=self._samples(measured, names)),
            Section("Errors", drawings=[calibration, self._single_images(measured, names)]),
        ]

    def _score_table(self, names: list[str]) -> Table:
        table = self.table
        assert table is not None
        columns = [("share of the pixels", "share"), *table.headers()]
        header = ["", *(["class"] if len(names) > 1 else []), *(title for title, _ in columns)]
        rows = []
        for row in table.rows:
            if len(names) == 1 and row["class"] != MEAN:
                continue
            class_name = MEAN if row["class"] == MEAN else names[int(row["class"]) - 1]
            cells = [str(row["scorer"]), *([class_name] if len(names) > 1 else [])]
            for _, key in columns:
                cells.append(percent(row[key]) if key == "share" else number(row[key]))
            rows.append(cells)
        return Table(header, rows, own=self.name)

    def _conditions(self) -> str:
        """Describe what was measured, and how."""
        assert self.measured is not None
        if self.test:
            origin = f" of {self.test[0]}."
        elif self.run.config.images.test_share:
            origin = " that the run held out (test_share): no training or choice used them."
        else:
            origin = (
                ", which also chose the best weights and the threshold: expect slightly lower "
                "scores on new images."
            )
        return (
            f"Measured on {self.where}{origin} F1 best: at the best threshold of these images. F1: "
            f"at the threshold with the best F1 on the run's validation images, "
            f"{self._threshold_text()}. F1 within {self.measured.table.tolerance:g} px: pixels "
            "that near to a right one count as right. Compare the calibration error with the "
            "share. Precision, recall and IoU are at the thresholds of F1; likeliest: each pixel "
            "has its likeliest class. A blank answer calls nothing foreground."
        )

    def _threshold_text(self) -> str:
        assert self.measured is not None
        names = self._foreground_names()
        values = [f"{as_probability(t):.3g}" for t in self.measured.thresholds[1:]]
        if len(names) == 1:
            return f"a {self._output_name()} of {values[0]}"
        listed = ", ".join(f"{n}: {v}" for n, v in zip(names, values, strict=True))
        return f"a {self._output_name()} for each class ({listed})"

    def _output_name(self) -> str:
        return "probability" if self.is_probability else "score"

    def _samples(self, measured: ImageMeasures, names: list[str]) -> list[Drawing]:
        threshold = as_probability(measured.thresholds[1]) if len(names) == 1 else None

        def drawing(k: int, sample: ImageSample) -> Drawing:
            row = sample.row
            where = f"{sample.name}, {sample.part}" if sample.part else sample.name
            scores = f"F1 {number(row['f1'], '.2f')}, AP {number(row['average_precision'], '.2f')}"
            whole = " of the whole volume" if sample.part else ""
            mark = "" if threshold is None else " The red mark on the scale is the threshold."
            mark += blocks_text(sample.block, "an error if it holds any")
            return Drawing(
                f"sample_{k}",
                lambda to: figures.draw_sample(
                    sample, names, threshold, to, is_probability=self.is_probability
                ),
                figures.sample_layout(sample.truth.shape)[2],
                f"{where}: image, truth, {self._output_name()} and errors.",
                f"{sample.title} by F1: {where}. {scores}{whole}.{mark}",
            )

        return [drawing(k, sample) for k, sample in enumerate(measured.samples, 1)]

    def _single_images(self, measured: ImageMeasures, names: list[str]) -> Drawing:
        empty = [row for row in measured.images if row["share"] == 0]
        n_clean = sum(row["false_alarms"] == 0 for row in empty)
        means = (
            ", means over their classes, of masks as `dense-imb segment` writes them."
            if len(names) > 1
            else " at the chosen threshold."
        )
        left_out = (
            f" {len(empty)} images have no foreground; {n_clean} of them have no false alarm and "
            "are left out, the others count as 0 on the left."
        )
        return Drawing(
            "images",
            lambda to: figures.draw_images(measured, to),
            (9.5, 4),
            "Histogram of the F1 of single images, and F1 against the share of foreground.",
            f"F1 of single images{means}{left_out if empty else ''}",
        )

    def numbers(self) -> dict[str, Any]:
        measured = self.measured
        if measured is None:
            return {"masks": self.masks}
        curves, calibration = {}, {}
        for k in range(1, measured.scores.n_classes):
            histogram = measured.scores.histograms[k]
            recall, precision = figures.precision_recall(histogram)
            curves[str(k)] = {"recall": recall.tolist(), "precision": precision.tolist()}
            bins = figures.reliability(histogram)
            calibration[str(k)] = {name: values.tolist() for name, values in bins.items()}
        return {
            "masks": self.masks,
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

    def uses(self) -> list[tuple[str, str]]:
        folder = shlex.quote(str(self.run.folder))
        held_out = not self.test and self.run.config.images.test_share > 0
        data = "" if held_out else self._test_paths()
        return [
            (
                "compare its scores with a blank answer",
                joined("dense-imb evaluate", folder, data),
            ),
            (
                "segment your own images",
                f"dense-imb segment {folder} {quoted(self.test, 'images')} segmented",
            ),
        ]

    def _test_paths(self) -> str:
        images = quoted(self.test, "images")
        if self.test and self.masks is None:
            return images
        return f"{images} --masks {shlex.quote(self.masks or 'masks')}"

    def report_options(self) -> str:
        test = f"--test {self._test_paths()}" if self.test else ""
        return joined(test, sample_limit(self.n_samples, self.most))
