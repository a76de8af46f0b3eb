"""`dense-imb evaluate` for runs on whole images."""

from __future__ import annotations

from pathlib import Path

from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused, refusal
from dense_imb.cli._device import chosen_device
from dense_imb.cli._parser import Namespace
from dense_imb.cli._script import folder_for_outputs
from dense_imb.cli.evaluating.overlap import warn_of_overlap
from dense_imb.data.labels.classified import ClassifiedImages
from dense_imb.runs import Run
from dense_imb.tasks.labels.evaluate import Classifies, LabelsTable, evaluate_labels
from dense_imb.tasks.labels.recipe import open_cifar_test, open_test_table
from dense_imb.tasks.labels.task import LabelsReading
from dense_imb.tasks.labels.trained import Commonest

_OF_OTHERS = ("validation", "noise", "signal", "baseline", "events", "masks")


def evaluate(
    options: Namespace, runs: list[Run], others: list[str], outputs: list[Path]
) -> LabelsTable:
    """Measure runs on labelled whole images.

    Args:
        options: options of the command.
        runs: runs to measure.
        others: paths that are no runs.
        outputs: files to write later; their folder is made before the work.
    """
    for name in _OF_OTHERS:
        if getattr(options, name):
            raise refusal(
                f"{{{name}}} is no option for whole images, which the runs are on; drop it."
            )
    if len(others) > 1:
        raise Refused(
            "RUN ... TEST.csv, or for CIFAR RUN ... alone or with an archive",
            " ".join(options.paths),
        )
    device = chosen_device(options)
    trained = [run.trained(device=device) for run in runs]
    first = trained[0].reading
    for one in trained:
        if (one.reading.class_names, one.reading.size) != (first.class_names, first.size):
            raise ValueError(
                f"Expected runs with the same classes and the same size of image, got others in "
                f"{one.name} than in {trained[0].name}; evaluate them one by one."
            )
    images = _test_images(runs[0], first, others, options.images)
    warn_of_overlap(options, runs, images)
    classifiers: list[Classifies] = list(trained)
    if options.baselines:
        classifiers.append(Commonest(first.train_counts))
    if outputs:
        folder_for_outputs(outputs[0].parent)
    total = len(images) * len(classifiers)
    with tqdm(total=total, desc="evaluate", unit="image", disable=options.quiet) as bar:
        return evaluate_labels(classifiers, images, first, progress=bar.update)


def _test_images(
    run: Run, reading: LabelsReading, others: list[str], folder: str | None
) -> ClassifiedImages:
    labels = run.config.labels
    if not labels.is_table:
        if folder is not None:
            raise refusal(f"{{images}} is no option for CIFAR, got {folder}; drop it.")
        return open_cifar_test(labels, others[0] if others else None)
    if not others:
        raise ValueError(f"Expected a CSV file to test {run.folder} on, behind the runs, got none.")
    return open_test_table(labels, others[0], folder or labels.images, reading.class_names)
