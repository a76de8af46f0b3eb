"""`dense-imb evaluate` for runs on images with masks."""

from __future__ import annotations

from pathlib import Path

from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused, refusal
from dense_imb.cli._device import chosen_device
from dense_imb.cli._parser import Namespace, quoted
from dense_imb.cli._script import folder_for_outputs
from dense_imb.cli.evaluating.overlap import warn_of_overlap
from dense_imb.data.images.labelled import open_labelled
from dense_imb.runs import Run
from dense_imb.tasks.images.evaluate import (
    Blank,
    ImagesTable,
    Segments,
    chosen_thresholds,
    evaluate_images,
)
from dense_imb.tasks.images.recipe import open_test_images

_OF_HITS = ("validation", "noise", "signal", "baseline", "events")


def evaluate(
    options: Namespace, runs: list[Run], others: list[str], outputs: list[Path]
) -> ImagesTable:
    """Measure runs on images with masks.

    Args:
        options: options of the command.
        runs: runs to measure.
        others: paths that are no runs.
        outputs: files to write later; their folder is made before the work.
    """
    for name in _OF_HITS:
        if getattr(options, name):
            raise refusal(f"{{{name}}} is an option for hits, but the runs are on images; drop it.")
    if runs and not others and all(run.config.images.test_share == 0 for run in runs):
        folders = quoted([str(run.folder) for run in runs])
        raise Refused(
            "test images",
            f"none: {folders} held out none",
            f"name them, dense-imb evaluate {folders} IMAGES --masks MASKS, or train with "
            "--images.test_share 0.2",
        )
    if not runs or len(others) > 1 or not (others or _hold_out_the_same(runs)):
        raise Refused(
            "RUN ... IMAGES, folders of runs and one of images (with {masks=FOLDER}) or one HDF5 "
            "file, or RUN ... alone if all hold out the same images (images.test_share)",
            " ".join(options.paths),
        )
    device = chosen_device(options)
    trained = [run.trained(device=device) for run in runs]
    first = runs[0].config.images
    classes = {one.reading.n_classes for one in trained}
    n_classes = min(classes)
    if len(classes) > 1:
        raise ValueError(
            f"Expected runs with the same classes, got {sorted(classes)} classes; evaluate them "
            "one by one."
        )
    images = (
        open_labelled(
            others[0],
            options.masks,
            labels=first.labels,
            above=first.above,
            ignore_index=first.ignore_index,
            n_classes=n_classes,
            names=trained[0].reading.names,
            show_progress=not options.quiet,
        )
        if others
        else open_test_images(first, n_classes)
    )
    for one in trained:
        reading = one.reading
        wanted = f"{reading.in_channels} channels in {len(reading.patch)}-D"
        got = f"{images.n_channels} channels in {images.spatial_dims}-D"
        if wanted != got:
            raise ValueError(
                f"Expected images of {wanted}, as {one.name} was trained on, got {got} in "
                f"{others[0] if others else 'the test images'}."
            )
    warn_of_overlap(options, runs, images)
    segmenters: list[Segments] = list(trained)
    thresholds = [chosen_thresholds(run.scores()) for run in runs]
    if options.baselines:
        segmenters.append(Blank(images.n_classes))
        thresholds.append((0.0,) * images.n_classes)
    if outputs:
        folder_for_outputs(outputs[0].parent)
    total = len(images) * len(segmenters)
    with tqdm(total=total, desc="evaluate", unit="image", disable=options.quiet) as bar:
        return evaluate_images(
            segmenters,
            images,
            thresholds=thresholds,
            tolerance=options.tolerance,
            precision=options.precision,
            progress=bar.update,
        )


def _hold_out_the_same(runs: list[Run]) -> bool:
    """Tell whether all runs hold out the test images of the first; there are some."""
    held_out = {(one.train, one.masks, one.test_share) for one in (r.config.images for r in runs)}
    return len(held_out) == 1 and runs[0].config.images.test_share > 0
