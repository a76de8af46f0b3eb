"""Calibrate a finished run: fit its probabilities on its validation data, after the training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from dense_imb.base.locks import locked_folder
from dense_imb.base.refusals import Refused, refusal
from dense_imb.engine.checkpoint import digest_weights
from dense_imb.losses import CrossEntropyLoss
from dense_imb.runs.natural import (
    fit,
    foreground_scores,
    output_loss,
    save,
    validate_naturally,
)
from dense_imb.runs.read import Run, open_run


def calibrate(
    run: Run | str | os.PathLike[str],
    *,
    overwrite: bool = False,
    device: str | torch.device | None = None,
) -> Run:
    """Fit slope and bias of a run's probabilities on its validation data; return the run anew.

    The result is that of a training with `calibrate=True`, for runs of older versions too. The
    training and validation data must still be there; test data are not read. The folder `natural`
    of the run is written whole or not at all, and no other file changes.

    Args:
        run: finished run on hits or images with masks, or its folder.
        overwrite: replace natural probabilities that the run has.
        device: device to run on; by default a GPU if there is one.

    Example:
        >>> import tempfile
        >>> from dense_imb import HitsConfig, ModelConfig, TrainConfig, train
        >>> from dense_imb.hits import Geometry, HitsWriter, simulate
        >>> from dense_imb.runs import calibrate
        >>> folder, rings = tempfile.mkdtemp(), simulate("ring", 8, 1, Geometry(24, 24, 50))
        >>> with HitsWriter(folder + "/rings.h5", rings.geometry) as writer:
        ...     writer.append(rings)
        >>> hits = HitsConfig(folder + "/rings.h5", signal=20, noise=50, validation_share=0.5)
        >>> tiny = ModelConfig("hits", {"width": 8, "depth": 1, "heads": 1})
        >>> config = TrainConfig(hits, model=tiny, steps=2, validate_every=2)
        >>> run = train(config, folder + "/run", is_quiet=True)
        >>> natural = calibrate(run, overwrite=True).natural
        >>> natural.fit, natural.class_counts
        ('affine', (200, 80))
    """
    run = run if isinstance(run, Run) else open_run(run)
    _check_run(run, overwrite=overwrite)
    content = run.checkpoint()
    trained = run.trained(device=device)
    reading: Any = trained.reading
    if hasattr(reading, "read_out"):
        raise refusal(
            f"Runs on {run.kind.description} have no probabilities; their read-out is fitted at "
            "the end of the training. Drop {calibrate}."
        )
    if not hasattr(reading, "natural"):
        raise refusal(
            f"Runs on {run.kind.description} cannot be calibrated: their test sets have other "
            "class frequencies than the validation data; drop {calibrate}."
        )
    if getattr(reading, "output", "") == "value":
        raise refusal(
            "Runs with {hits.output=value} cannot be calibrated: their outputs are times, not "
            "classes; drop {calibrate}."
        )
    with locked_folder(run.folder):
        _check_run(open_run(run.folder), overwrite=overwrite)  # another call may have done it
        task = _task(run)
        description = task.describe()
        _check_same_validation(run, description, content["setup"])
        loss = _training_loss(run, task, description, content)
        task.reading = replace(reading, natural=None)
        config = replace(run.config, calibrate=True)
        before = foreground_scores(config, run.folder)
        where, step = trained.device, int(content["state"]["best_step"])
        record = fit(config, task, loss, before, trained.network, where, step, must_fit=True)
        record = replace(record, weights=digest_weights(content["network"]))
        validate_naturally(task, record, trained.network, where)
        save(config, run.folder, task, record, before)
    return open_run(run.folder)


def _check_run(run: Run, *, overwrite: bool) -> None:
    """Refuse a run that is still trained, and one that has natural probabilities."""
    metrics = run.metrics
    if not metrics.get("is_finished", bool(metrics)):  # unknown in runs of older versions
        raise Refused(
            "a finished run for {calibrate}",
            f"{run.folder}, which is not",
            "finish it first, with dense-imb train --resume",
        )
    record = run.natural
    if record is not None and record.natural is not None and not overwrite:
        raise Refused(
            "a run without natural probabilities for {calibrate}",
            f"{run.folder} ({record.summary()})",
            "replace them with {overwrite}",
        )


def _task(run: Run) -> Any:
    """Open the data of a run; a loss that cannot be built again becomes cross-entropy."""
    recipe = run.recipe.without_download()
    try:
        recipe.checked_loss  # noqa: B018  # one of the user's own needs a permission
    except (ValueError, TypeError, ImportError):
        recipe = replace(recipe, given_loss=CrossEntropyLoss())
    return recipe.labelled_task()


def _training_loss(
    run: Run, task: Any, description: Mapping[str, str], content: Mapping[str, Any]
) -> nn.Module:
    """Return the training loss of the best network; an unknown one becomes cross-entropy.

    The inverse of cross-entropy changes nothing, so that the fit begins with outputs as trained.
    """
    if description["loss"] != content["setup"].get("loss"):
        return CrossEntropyLoss()
    prefix = "" if run.config.unlabelled.loss is None else "0."  # beside that of pseudo-labels
    state = content["loss"].items()
    task.loss.load_state_dict(
        {name.removeprefix(prefix): value for name, value in state if name.startswith(prefix)}
    )
    return output_loss(task)


def _check_same_validation(run: Run, mine: Mapping[str, str], stored: Mapping[str, str]) -> None:
    """Refuse validation data that changed after the training."""
    name = "validation data"
    if name in stored and mine[name] != stored[name]:
        raise ValueError(
            f"Expected the validation data of {run.folder}, got others ({stored[name]} there, "
            f"{mine[name]} here); bring them back to where its config.yaml says."
        )
