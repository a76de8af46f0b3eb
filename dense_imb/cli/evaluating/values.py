"""`dense-imb evaluate` for runs on images with maps of values."""

from __future__ import annotations

from pathlib import Path

from dense_imb.base.progress import tqdm
from dense_imb.base.refusals import Refused
from dense_imb.cli._device import chosen_device
from dense_imb.cli._parser import Namespace
from dense_imb.cli._script import folder_for_outputs
from dense_imb.cli.evaluating.overlap import warn_of_overlap
from dense_imb.data.values.pairs import ValueImages, open_values
from dense_imb.runs import Run
from dense_imb.tasks.values.evaluate import Predicts, ValuesTable, evaluate_values
from dense_imb.tasks.values.recipe import default_places, open_test_images
from dense_imb.tasks.values.trained import TrainedValues


def evaluate(
    options: Namespace, runs: list[Run], others: list[str], outputs: list[Path]
) -> ValuesTable:
    """Measure runs on images with maps of values.

    Args:
        options: options of the command.
        runs: runs to measure.
        others: paths that are no runs.
        outputs: files to write later; their folder is made before the work.
    """
    if not runs or len(others) > 1 or not (others or _hold_out_the_same(runs)):
        raise Refused(
            "RUN ... IMAGES, folders of runs and one of images (with {targets=FOLDER}) or one HDF5 "
            "file, or RUN ... alone if all hold out the same images (values.test_share)",
            " ".join(options.paths),
        )
    device = chosen_device(options)
    trained: list[TrainedValues] = [run.trained(device=device) for run in runs]
    images = _images(options, runs[0], trained[0], others)
    for one in trained:
        reading = one.reading
        wanted = f"{reading.in_channels} channels to {reading.n_targets} in {len(reading.patch)}-D"
        got = f"{images.n_channels} channels to {images.n_targets} in {images.spatial_dims}-D"
        if wanted != got:
            raise ValueError(
                f"Expected images of {wanted}, as {one.name} was trained on, got {got} in "
                f"{others[0] if others else 'the test images'}."
            )
    warn_of_overlap(options, runs, images)
    networks = [row for one in trained for row in _rows_of(one, raw=options.raw)]
    if outputs:
        folder_for_outputs(outputs[0].parent)
    total = len(images) * len(networks)
    with tqdm(total=total, desc="evaluate", unit="image", disable=options.quiet) as bar:
        return evaluate_values(networks, images, baselines=options.baselines, progress=bar.update)


def _rows_of(one: TrainedValues, *, raw: bool) -> list[Predicts]:
    """Return the rows of a network: with its read-out, and as trained."""
    if one.reading.read_out is None or raw:
        return [Predicts(one.name, one, True)]
    return [Predicts(one.name, one, False), Predicts(f"{one.name} as trained", one, True)]


def _images(options: Namespace, run: Run, trained: TrainedValues, others: list[str]) -> ValueImages:
    """Open the images to test on, with cells if there are any."""
    values, reading = run.config.values, trained.reading
    if not others:
        return open_test_images(values)
    places = default_places(values, others[0])
    cells = options.cells or places.cells
    if cells is not None and reading.cell_names is None:
        raise Refused(
            f"no {{cells}} for {run.folder}, which was trained without", cells, "drop {cells}"
        )
    return open_values(
        others[0],
        options.targets or places.targets,
        cells=cells,
        counted=options.counted or places.counted,
        cell_kind=reading.cell_kind,
        cell_names=None if cells is None else reading.cell_names,
        spatial_dims=len(reading.patch),
        show_progress=not options.quiet,
    )


def _hold_out_the_same(runs: list[Run]) -> bool:
    """Tell whether all runs hold out the test images of the first; there are some."""
    configs = (run.config.values for run in runs)
    held_out = {(one.train, one.targets, one.test_share) for one in configs}
    return len(held_out) == 1 and runs[0].config.values.test_share > 0
