"""Denoising by masking: each hit gets a score and is kept or rejected, unchanged.

A denoiser that draws a new frame loses exact times, and hits that share a pixel. A mask only
selects hits, so kept hits have exactly their measured values.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least
from dense_imb.base.files import clear_leftovers, refuse_inputs, write_whole
from dense_imb.hits.baselines import Scorer
from dense_imb.hits.drift import EventProfile, describe_drift
from dense_imb.hits.events import Array, Events
from dense_imb.hits.frames import visible
from dense_imb.hits.geometry import Geometry, Sensors
from dense_imb.hits.masked import MaskedFile, Masking, finished_file, refuse_foreign
from dense_imb.hits.reader import HitsFile, HitsFiles, expand_patterns, file_paths, open_hits
from dense_imb.hits.writer import HitsWriter
from dense_imb.metrics import HitScores, OperatingPoint

_Path = str | os.PathLike[str]
Progress = Callable[[int], object]  # called with the number of events processed since last time


def score_events(scorer: Scorer, events: Events) -> Tensor:
    """Return the score of each hit, (n_hits,) float32 on the CPU; refuse scores outside [0, 1].

    Example:
        >>> from dense_imb.hits import KeepNothing, score_events, simulate
        >>> arcs = simulate("arc", 2, seed=1)
        >>> score = score_events(KeepNothing(), arcs)
        >>> score.dtype, len(score) == arcs.n_hits
        (torch.float32, True)
    """
    check_scorer(scorer, events.geometry)
    with torch.no_grad():
        score = scorer.score(events if events.is_torch else events.torch()).cpu()
    return _checked(scorer, events, score)


def score_columns(scorer: Scorer, events: Events) -> dict[str, Tensor]:
    """Return `score` of `score_events`, and further columns that the scorer offers, on the CPU.

    A scorer may have a method `columns(events)`, which returns columns of hits by name: none, or
    the score and further ones, such as the most probable class.
    """
    offered: Callable[[Events], dict[str, Tensor]] | None = getattr(scorer, "columns", None)
    check_scorer(scorer, events.geometry)
    columns = {} if offered is None else offered(events if events.is_torch else events.torch())
    if "score" not in columns:
        return {**columns, "score": score_events(scorer, events)}
    columns = {name: column.cpu() for name, column in columns.items()}
    return {**columns, "score": _checked(scorer, events, columns["score"])}


def _checked(scorer: Scorer, events: Events, score: Tensor) -> Tensor:
    """Return scores as float32; refuse those of another shape, or outside [0, 1]."""
    if score.shape != (events.n_hits,):
        raise ValueError(
            f"Expected {scorer.name} to give one score for each of the {events.n_hits} hits, "
            f"got the shape {tuple(score.shape)}."
        )
    if score.numel():
        low, high = (float(bound) for bound in torch.aminmax(score))
        if not (low >= 0 and high <= 1):  # also True for NaN
            got = "NaN" if math.isnan(low) else f"{low if low < 0 else high:g}"
            raise ValueError(f"Expected scores of {scorer.name} between 0 and 1, got {got}.")
    return score.float()


def check_scorer(scorer: Scorer, geometry: Geometry | Sensors) -> None:
    """Refuse a scorer for events of another geometry.

    A scorer may have a method `check(geometry)` that raises, or returns a sentence. Otherwise
    frames must have the size of its attribute `geometry`, and tables of sensors as many
    coordinates. Scorers for any geometry have none, or None.
    """
    own = getattr(scorer, "check", None)
    if callable(own):
        if refusal := own(geometry):
            raise ValueError(refusal)
        return
    wanted: Geometry | Sensors | None = getattr(scorer, "geometry", None)
    if wanted is None or wanted.size == geometry.size:
        return
    is_table = isinstance(wanted, Sensors), isinstance(geometry, Sensors)
    if all(is_table) and wanted.n_axes == geometry.n_axes:
        return
    raise ValueError(
        f"Expected events of {_size_text(wanted)}, as {scorer.name} was trained on, got "
        f"{_size_text(geometry)}; train a model on such events or convert the file."
    )


def _size_text(geometry: Geometry | Sensors) -> str:
    if isinstance(geometry, Sensors):
        return geometry.size_text()
    return "{} x {} pixels and {} time steps".format(*geometry.size)


def mask_events(
    events: Events,
    score: Tensor,
    point: OperatingPoint,
    *,
    only_kept: bool = False,
    further: Mapping[str, Tensor] | None = None,
) -> Events:
    """Return the events with the columns `score` and `keep`; columns of these names are replaced.

    Args:
        events: events to mask.
        score: (n_hits,) score of each hit.
        point: operating point; hits with score >= threshold are kept.
        only_kept: drop the other hits.
        further: further columns to write, (n_hits,) each, such as `class`.

    Example:
        >>> point = OperatingPoint(0.5, "probability", 1.0, 0.5, 0.5, n_signal=1, n_noise=2)
        >>> x, y, t = np.array([[0, 1, 2], [0, 0, 0], [4, 7, 5]])
        >>> events = Events(Geometry(3, 1, 9), np.array([0, 3]), x, y, t)
        >>> masked = mask_events(events, torch.tensor([0.9, 0.2, 0.6]), point)
        >>> masked.hit["keep"].tolist(), masked.t.tolist()
        ([True, False, True], [4, 7, 5])
    """
    keep = point.keep(score)
    extra: dict[str, Array] = {**(further or {}), "score": score, "keep": keep}
    if not events.is_torch:
        extra = {name: np.asarray(column) for name, column in extra.items()}
    masked = events.with_hits(events.offset, {**events.hit_columns(), **extra})
    return masked.select(extra["keep"]) if only_kept else masked


def score_and_mask(
    scorer: Scorer, events: Events, point: OperatingPoint, *, only_kept: bool = False
) -> Events:
    """Return the events with `score`, `keep` and further columns that the scorer offers."""
    columns = score_columns(scorer, events)
    score = columns.pop("score")
    return mask_events(events, score, point, only_kept=only_kept, further=columns)


class Tally:
    """Counts of the hits that were masked, of a part of a file or of all of it.

    Args:
        point: operating point.
        is_labelled: whether hits have labels, and so scores.
    """

    def __init__(self, point: OperatingPoint, *, is_labelled: bool) -> None:
        self.n_hits = self.n_kept = 0
        self.scores = HitScores(point) if is_labelled else None
        self.profile = EventProfile()

    def update(self, masked: Events) -> None:
        """Count events with all their hits, with `score` and `keep`."""
        score = torch.as_tensor(masked.hit["score"])
        self.n_hits += masked.n_hits
        self.n_kept += int(masked.hit["keep"].sum())
        self.profile.update(masked, score)
        if self.scores is not None:
            count_hits(self.scores, masked.torch(), score)

    def merge(self, other: Tally) -> None:
        """Add the counts of another part."""
        self.n_hits, self.n_kept = self.n_hits + other.n_hits, self.n_kept + other.n_kept
        self.profile.merge(other.profile)
        if self.scores is not None and other.scores is not None:
            self.scores.merge(other.scores)

    def save(self, path: Path) -> None:
        """Write the counts beside a shard: to PATH.counts.json, PATH.profile.json and so on."""
        counts = json.dumps({"n_hits": self.n_hits, "n_kept": self.n_kept})
        write_whole(_beside(path, "counts"), lambda to: to.write_text(counts))
        self.profile.save(_beside(path, "profile"))
        if self.scores is not None:
            self.scores.save(_beside(path, "scores"))

    def add_saved(self, path: Path) -> None:
        """Add the counts that `save` wrote."""
        part = Tally.__new__(Tally)
        stored: dict[str, Any] = json.loads(_beside(path, "counts").read_text())
        part.n_hits, part.n_kept = int(stored["n_hits"]), int(stored["n_kept"])
        part.profile = EventProfile.load(_beside(path, "profile"))
        part.scores = None if self.scores is None else HitScores.load(_beside(path, "scores"))
        self.merge(part)

    def result(
        self, path: Path, validation: EventProfile | None, masking: Masking, name: str
    ) -> MaskedFile:
        """Return the result of a whole file, with a comparison with the validation events.

        Args:
            path: path of the denoised file.
            validation: profile of the validation events of the network; None if unknown.
            masking: settings of the masking.
            name: name of the source, for the sentence about differences.
        """
        drift = ""
        if validation is not None:
            threshold = masking.operating_point.threshold
            drift = describe_drift(self.profile, validation, threshold, name)
        n_events = self.profile.n_events
        return MaskedFile(path, n_events, self.n_hits, self.n_kept, self.scores, drift=drift)


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}.json")


def masked_batches(
    hits: HitsFile | HitsFiles,
    scorer: Scorer,
    point: OperatingPoint,
    batch_size: int,
    span: tuple[int, int] | None = None,
) -> Iterator[Events]:
    """Yield masked batches of the events of a span, an empty batch first.

    Batches begin at multiples of `batch_size`, counted from the first event of all. A network may
    score an event differently, in the last bits, in another batch; so shards of whole batches
    have the scores of the whole file, to the bit.

    Args:
        hits: data set.
        scorer: baseline or trained model.
        point: operating point.
        batch_size: events scored together.
        span: first event, a multiple of `batch_size`, and end; None for all events.
    """
    first, last = span or (0, len(hits))
    for start in (None, *range(first, last, batch_size)):
        # an empty batch first, so that a file without events has all columns
        part = slice(0, 0) if start is None else slice(start, min(start + batch_size, last))
        yield score_and_mask(scorer, hits[part], point)


def write_masked(
    writer: HitsWriter,
    batches: Iterator[Events],
    tally: Tally,
    *,
    only_kept: bool,
    progress: Progress | None = None,
) -> None:
    """Append masked batches to a file, and count them."""
    for masked in batches:
        tally.update(masked)
        writer.append(masked.select(masked.hit["keep"]) if only_kept else masked)
        if progress is not None:
            progress(len(masked))


def mask_file(
    source: _Path | Sequence[_Path],
    target: _Path,
    scorer: Scorer,
    point: OperatingPoint | float,
    *,
    only_kept: bool = False,
    overwrite: bool = False,
    batch_size: int = 256,
    validation: EventProfile | None = None,
    locking: bool | str | None = None,
    progress: Progress | None = None,
) -> MaskedFile:
    """Copy a hits file and add the columns `score` (float32) and `keep` (bool) of hits.

    A network of more than two classes adds `class` (uint8), the most probable one. All other
    columns keep their exact values and types; those of an earlier masking are replaced. The file
    appears under its name when it is complete. It stores its scorer and operating point, see
    `read_masking`. Memory holds one batch at a time.

    Args:
        source: path of a hits file, several paths, or a pattern; several files become one.
        target: path of the new file, different from all sources.
        scorer: baseline or trained model.
        point: operating point, or a threshold.
        only_kept: write kept hits only; events without hits remain.
        overwrite: replace an existing target.
        batch_size: events scored together.
        validation: profile of the validation events of the network; the result then says where
            the events of the file look unlike them.
        locking: h5py's file locking.
        progress: called with the number of events processed since the last call.
    Example:
        >>> import tempfile
        >>> from dense_imb.hits import Degradation, degrade, simulate
        >>> from dense_imb.hits.baselines import HitDensity
        >>> noisy = degrade(simulate("arc", 3, seed=1), Degradation(signal=30, noise=200), seed=1)
        >>> folder = Path(tempfile.mkdtemp())
        >>> with HitsWriter(folder / "raw.h5", noisy.geometry) as writer:
        ...     writer.append(noisy)
        >>> masked = mask_file(folder / "raw.h5", folder / "clean.h5", HitDensity(), 0.7)
        >>> masked.n_hits, masked.n_kept < 300, HitsFile(folder / "clean.h5")[:].n_hits
        (690, True, 690)
    """
    check_at_least("batch_size", batch_size, 1)
    point = as_point(point)
    with open_hits(source, locking=locking, in_memory=False) as hits:
        check_scorer(scorer, hits.geometry)
        refuse_inputs([target], file_paths(hits))
        if overwrite:
            refuse_foreign([target])
        masking = Masking.of(scorer, point, hits, only_kept=only_kept)
        writer = HitsWriter(
            target,
            hits.geometry,
            overwrite=overwrite,
            locking=locking,
            attributes=masking.attributes,
        )
        tally = Tally(point, is_labelled="/hit/label" in hits.columns)
        with writer:
            batches = masked_batches(hits, scorer, point, batch_size)
            write_masked(writer, batches, tally, only_kept=only_kept, progress=progress)
        return tally.result(Path(target), validation, masking, source_name(source))


def mask_files(
    sources: _Path | Sequence[_Path],
    folder: _Path,
    scorer: Scorer,
    point: OperatingPoint | float,
    *,
    only_kept: bool = False,
    overwrite: bool = False,
    batch_size: int = 256,
    validation: EventProfile | None = None,
    locking: bool | str | None = None,
    progress: Progress | None = None,
) -> list[MaskedFile]:
    """Mask files into a folder under their own names; finished files are skipped.

    Repeat an interrupted call to continue it. An output is finished if its content matches its
    hash, and if the content of the source, the scorer with its weights and the operating point
    are the same. Any other file under this name is refused, or replaced with `overwrite`, which
    skips nothing.

    Args:
        sources: paths or patterns of hits files.
        folder: folder of the outputs, made if missing.
        scorer, point, only_kept, batch_size, validation, locking: see `mask_file`.
        overwrite: mask all files again.
        progress: called with the number of events processed or skipped since the last call.

    Example:
        >>> import tempfile
        >>> from dense_imb.hits import HitDensity, HitsWriter, mask_files, simulate
        >>> folder, arcs = tempfile.mkdtemp(), simulate("arc", 3, seed=1, n_photons=40)
        >>> for run in ("run1", "run2"):
        ...     with HitsWriter(f"{folder}/{run}.h5", arcs.geometry) as writer:
        ...         writer.append(arcs)
        >>> masked = mask_files(folder + "/*.h5", folder + "/clean", HitDensity(), 0.5)
        >>> [one.path.name for one in masked], masked[0].n_events
        (['run1.h5', 'run2.h5'], 3)
    """
    point, folder = as_point(point), Path(folder)
    targets = output_paths(sources, folder)
    refuse_inputs(targets, targets.values())  # all of them, before anything is written
    if overwrite:
        refuse_foreign(targets)
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)  # also where all files are finished
    done = []
    for target, source in targets.items():
        if target.exists() and not overwrite:
            done.append(
                finished_file(source, target, scorer, point, only_kept=only_kept, locking=locking)
            )
            if progress is not None:
                progress(done[-1].n_events)
            continue
        done.append(
            mask_file(
                source,
                target,
                scorer,
                point,
                only_kept=only_kept,
                overwrite=overwrite,
                batch_size=batch_size,
                validation=validation,
                locking=locking,
                progress=progress,
            )
        )
    return done


def output_paths(sources: _Path | Sequence[_Path], folder: _Path) -> dict[Path, Path]:
    """Return the source of each output path of `mask_files`, with patterns expanded."""
    folder = Path(folder)
    targets: dict[Path, Path] = {}
    for source in expand_patterns(sources):
        target = folder / source.name
        if target in targets:
            raise ValueError(
                f"Expected sources of different names, got {targets[target]} and {source}; "
                "mask them into different folders."
            )
        targets[target] = source
    return targets


def count_hits(
    scores: HitScores, events: Events, score: Tensor, is_visible: Tensor | None = None
) -> None:
    """Update scores with labelled events and the scores of their hits.

    Args:
        scores: scores to update.
        events: labelled events as tensors.
        score: (n_hits,) score of each hit.
        is_visible: (n_hits,) bool, visibility in a frame; computed if None.
    """
    scores.update(
        score,
        events.label,  # type: ignore[arg-type]
        events.event_index(),
        n_events=len(events),
        time=events.t,
        true_time=events.t,  # a mask changes no time
        is_visible=visible(events) if is_visible is None else is_visible,
    )


def as_point(point: OperatingPoint | float) -> OperatingPoint:
    """Return an operating point of scores in [0, 1]; a number is its threshold."""
    if not isinstance(point, OperatingPoint):
        check_at_least("threshold", point, 0)
        if point > 1:
            raise ValueError(f"Expected `threshold` from 0 to 1, as scores are, got {point:g}.")
        unknown = math.nan
        point = OperatingPoint(float(point), "probability", unknown, unknown, unknown, 0, 0)
    if point.scale != "probability":
        raise ValueError(
            f'Expected an operating point of scale "probability", as scores of hits are in [0, 1], '
            f"got {point.scale!r}; choose it on such scores."
        )
    return point


def source_name(source: _Path | Sequence[_Path]) -> str:
    """Return the name of the sources in sentences."""
    paths = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    return ", ".join(os.fspath(path) for path in paths)
