"""`evaluate` for runs that were trained on images with a label each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

if TYPE_CHECKING:  # --help must not wait for torch
    from dense_imb.data.labels.classified import ClassifiedImages
    from dense_imb.runs import Run
    from dense_imb.tasks import LabelsReading
    from dense_imb.tasks.labels.evaluate import LabelsTable

_OF_OTHERS = ("validation", "noise", "signal", "baseline", "events", "masks")


def evaluate_classes(
    options: Namespace, runs: list[Run], others: list[str], outputs: list[Path]
) -> LabelsTable:
    """Do what the options say."""
    from tqdm.auto import tqdm

    from dense_imb.cli._script import folder_for_outputs
    from dense_imb.tasks.labels.evaluate import Classifies, evaluate_labels
    from dense_imb.tasks.labels.task import Commonest

    for name in _OF_OTHERS:
        if getattr(options, name):
            raise ValueError(f"Expected no `--{name}` with a classifier of whole images, got it.")
    if len(others) > 1:
        raise ValueError(
            "Expected RUN ... TEST.csv, or of CIFAR RUN ... alone or with an archive, got "
            f"{' '.join(options.paths)}."
        )
    trained = [run.trained() for run in runs]
    first = trained[0].reading
    for one in trained:
        if (one.reading.class_names, one.reading.size) != (first.class_names, first.size):
            raise ValueError(
                f"Expected runs with the same classes and the same size of image, got others in "
                f"{one.name} than in {trained[0].name}; evaluate them one by one."
            )
    images = _test_images(runs[0], first, others, options.images)
    classifiers: list[Classifies] = list(trained)
    if options.baselines:
        classifiers.append(Commonest(first.train_counts))
    if outputs:
        folder_for_outputs(outputs[0].parent)
    with tqdm(total=len(images) * len(classifiers), desc="evaluate", unit="image") as bar:
        return evaluate_labels(classifiers, images, first, progress=bar.update)


def _test_images(
    run: Run, reading: LabelsReading, others: list[str], folder: str | None
) -> ClassifiedImages:
    from dense_imb.tasks.labels.recipe import open_cifar_test, open_test_table

    config = run.config
    if config.labels.train is None:
        if folder is not None:
            raise ValueError(f"Expected no `--images` with CIFAR, got {folder}.")
        return open_cifar_test(config, others[0] if others else None)
    if not others:
        raise ValueError(f"Expected a CSV file to test {run.folder} on, behind the runs, got none.")
    return open_test_table(config, others[0], folder or config.labels.images, reading.class_names)
