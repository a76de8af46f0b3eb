"""Denoising by masking: each hit gets a score and is kept or rejected, unchanged.

A denoiser that draws a new frame loses exact times, and hits that share a pixel. A mask only
selects hits, so kept hits have exactly their measured values.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least
from dense_imb.base.refusals import RefusedFile
from dense_imb.hits.baselines import Scorer
from dense_imb.hits.events import Array, Events
from dense_imb.hits.format import HitsFileError
from dense_imb.hits.frames import visible
from dense_imb.hits.geometry import Geometry, Sensors
from dense_imb.hits.reader import HitsFile, HitsFiles, _expand, open_hits, verify
from dense_imb.hits.writer import HitsWriter
from dense_imb.metrics import HitScores, OperatingPoint

_Path = str | os.PathLike[str]
Progress = Callable[[int], object]  # called with the number of events processed since last time


class Masking(NamedTuple):
    """Settings that made a denoised file; `only_kept` says that other hits were dropped."""

    scorer: str
    operating_point: OperatingPoint
    only_kept: bool

    def as_text(self) -> str:
        """Return the settings without the scorer as JSON, as a file stores them."""
        point = self.operating_point.as_json()
        return json.dumps({"operating_point": point, "only_kept": self.only_kept}, allow_nan=False)


@dataclass(frozen=True)
class MaskedFile:
    """Result of masking one file.

    Args:
        path: path of the denoised file.
        n_events: number of events in the source.
        n_hits: number of hits in the source.
        n_kept: number of kept hits.
        scores: scores of the mask; None for a source without labels, and for a skipped file.
        is_skipped: whether the file was finished before.
    """

    path: Path
    n_events: int
    n_hits: int
    n_kept: int
    scores: HitScores | None = None
    is_skipped: bool = False

    def summary(self) -> str:
        """Return counts and scores in one line."""
        share = f" ({100 * self.n_kept / self.n_hits:.1f} %)" if self.n_hits else ""
        sentence = (
            f"{self.path}: {self.n_events:,} events, {self.n_hits:,} hits, {self.n_kept:,} kept"
        )
        sentence += share + (", finished before" if self.is_skipped else "")
        if self.scores is None:
            return sentence
        values = self.scores.scores()
        names = {"retention": "of the signal kept", "removal": "of the noise removed"}
        names |= {"purity": "purity"}
        measured = [
            f"{100 * values[name]:.1f} % {text}"
            for name, text in names.items()
            if not math.isnan(values[name])
        ]
        return "; ".join([sentence, *measured])


def score_events(scorer: Scorer, events: Events) -> Tensor:
    """Return the score of each hit, (n_hits,) float32 on the CPU; refuse scores outside [0, 1]."""
    check_scorer(scorer, events.geometry)
    with torch.no_grad():
        score = scorer.score(events if events.is_torch else events.torch()).cpu()
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
    """Refuse a scorer for frames of another size, or for another kind of geometry.

    Scorers for any geometry have no attribute `geometry`, or None. Those for tables of sensors
    score other tables with as many coordinates.
    """
    check: Callable[[Geometry | Sensors], None] | None = getattr(scorer, "check", None)
    if check is not None:
        check(geometry)
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
    events: Events, score: Tensor, point: OperatingPoint, *, only_kept: bool = False
) -> Events:
    """Return the events with the columns `score` and `keep`; columns of these names are replaced.

    Args:
        events: events to mask.
        score: (n_hits,) score of each hit.
        point: operating point; hits with score >= threshold are kept.
        only_kept: drop the other hits.

    Example:
        >>> point = OperatingPoint(0.5, "probability", 1.0, 0.5, 0.5, n_signal=1, n_noise=2)
        >>> x, y, t = np.array([[0, 1, 2], [0, 0, 0], [4, 7, 5]])
        >>> events = Events(Geometry(3, 1, 9), np.array([0, 3]), x, y, t)
        >>> masked = mask_events(events, torch.tensor([0.9, 0.2, 0.6]), point)
        >>> masked.hit["keep"].tolist(), masked.t.tolist()
        ([True, False, True], [4, 7, 5])
    """
    keep = point.keep(score)
    extra: dict[str, Array] = {"score": score, "keep": keep}
    if not events.is_torch:
        extra = {name: np.asarray(column) for name, column in extra.items()}
    masked = events.with_hits(events.offset, {**events.hit_columns(), **extra})
    return masked.select(extra["keep"]) if only_kept else masked


def mask_file(
    source: _Path | Sequence[_Path],
    target: _Path,
    scorer: Scorer,
    point: OperatingPoint | float,
    *,
    only_kept: bool = False,
    overwrite: bool = False,
    batch_size: int = 256,
    locking: bool | str | None = None,
    progress: Progress | None = None,
) -> MaskedFile:
    """Copy a hits file and add the columns `score` (float32) and `keep` (bool) of hits.

    All other columns keep their exact values and types; `score` and `keep` of an earlier masking
    are replaced. The file appears under its name when it is complete. It stores its scorer and
    operating point, see `read_masking`. Memory holds one batch at a time.

    Args:
        source: path of a hits file, several paths, or a pattern; several files become one.
        target: path of the new file, different from all sources.
        scorer: baseline or trained model.
        point: operating point, or a threshold.
        only_kept: write kept hits only; events without hits remain.
        overwrite: replace an existing target.
        batch_size: events scored together.
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
    point = _as_point(point)
    with open_hits(source, locking=locking, in_memory=False) as hits:
        check_scorer(scorer, hits.geometry)
        _refuse_source(hits, Path(target))
        masking = Masking(scorer.name, point, only_kept)
        writer = HitsWriter(
            target,
            hits.geometry,
            overwrite=overwrite,
            locking=locking,
            attributes={"scorer": scorer.name, "masking": masking.as_text()},
        )
        scores = HitScores(point) if "/hit/label" in hits.columns else None
        n_kept = 0
        with writer:
            # an empty batch first, so that a file without events has all columns
            writer.append(_masked(hits[:0], scorer, point, only_kept))
            for events in hits.batches(batch_size):
                masked = _masked(events, scorer, point, False)
                n_kept += int(masked.hit["keep"].sum())
                writer.append(masked.select(masked.hit["keep"]) if only_kept else masked)
                if scores is not None:
                    count_hits(scores, events.torch(), torch.from_numpy(masked.hit["score"]))
                if progress is not None:
                    progress(len(events))
        return MaskedFile(Path(target), len(hits), hits.n_hits, n_kept, scores)


def mask_files(
    sources: _Path | Sequence[_Path],
    folder: _Path,
    scorer: Scorer,
    point: OperatingPoint | float,
    *,
    only_kept: bool = False,
    overwrite: bool = False,
    batch_size: int = 256,
    locking: bool | str | None = None,
    progress: Progress | None = None,
) -> list[MaskedFile]:
    """Mask files into a folder under their own names; finished files are skipped.

    Repeat an interrupted call to continue it. An output is finished if its content matches its
    hash, and if source, scorer and operating point are the same. Any other file under this name
    is refused, or replaced with `overwrite`, which skips nothing.

    Args:
        sources: paths or patterns of hits files.
        folder: folder of the outputs, made if missing.
        scorer, point, only_kept, batch_size, locking: see `mask_file`.
        overwrite: mask all files again.
        progress: called with the number of events processed or skipped since the last call.
    """
    point, folder = _as_point(point), Path(folder)
    targets = output_paths(sources, folder)
    folder.mkdir(parents=True, exist_ok=True)
    masking = Masking(scorer.name, point, only_kept)
    done = []
    for target, source in targets.items():
        if target.exists() and not overwrite:
            done.append(_finished(source, target, masking, locking))
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
                locking=locking,
                progress=progress,
            )
        )
    return done


def output_paths(sources: _Path | Sequence[_Path], folder: _Path) -> dict[Path, Path]:
    """Return the source of each output path of `mask_files`, with patterns expanded."""
    folder = Path(folder)
    targets: dict[Path, Path] = {}
    for source in _expand(sources):
        target = folder / source.name
        if target in targets:
            raise ValueError(
                f"Expected sources of different names, got {targets[target]} and {source}; "
                "mask them into different folders."
            )
        targets[target] = source
    return targets


def read_masking(hits: HitsFile) -> Masking | None:
    """Return the settings that made a denoised file; None for other files."""
    if not {"scorer", "masking"} <= hits.attributes.keys():
        return None
    try:
        stored = json.loads(str(hits.attributes["masking"]))
        point = OperatingPoint.from_json(stored["operating_point"])
        return Masking(str(hits.attributes["scorer"]), point, bool(stored["only_kept"]))
    except (ValueError, KeyError, TypeError) as why:
        raise HitsFileError(
            f"Expected attribute `masking` of {hits.path} to be JSON with the operating point, "
            f"got {hits.attributes['masking']!r}; denoise the file again."
        ) from why


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


def _masked(events: Events, scorer: Scorer, point: OperatingPoint, only_kept: bool) -> Events:
    return mask_events(events, score_events(scorer, events), point, only_kept=only_kept)


def _as_point(point: OperatingPoint | float) -> OperatingPoint:
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


def _refuse_source(hits: HitsFile | HitsFiles, target: Path) -> None:
    for file in hits.files if isinstance(hits, HitsFiles) else [hits]:
        if target.exists() and target.samefile(file.path):
            raise ValueError(
                f"Expected a target other than the source, got {target} for both; "
                "choose another name."
            )


def _finished(
    source: Path, target: Path, masking: Masking, locking: bool | str | None
) -> MaskedFile:
    """Return the result of an existing output; refuse it if masking the source gives another."""
    cure = "choose another folder, or pass {overwrite}"
    digests = verify(target, locking=locking)
    with (
        HitsFile(source, locking=locking, in_memory=False) as raw,
        HitsFile(target, locking=locking, in_memory=False) as masked,
    ):
        made_by = read_masking(masked)
        # compared as text, since NaN != NaN
        if made_by is None or (made_by.scorer, made_by.as_text()) != (
            masking.scorer,
            masking.as_text(),
        ):
            got = "a file of another kind"
            if made_by is not None:
                got = f"one by {made_by.scorer} at {made_by.operating_point.threshold:g}"
                got += " with kept hits only" if made_by.only_kept else ""
            raise RefusedFile(
                f"{target} to be masked by {masking.scorer} at "
                f"{masking.operating_point.threshold:g}"
                f"{' with kept hits only' * masking.only_kept}",
                got,
                cure,
            )
        stored = json.loads(str(raw.attributes.get("content_hash", "{}")))
        unchanged = {name for name in stored if name in digests and name not in _MASK_COLUMNS}
        if masking.only_kept:  # hits and offsets differ
            kept = ("/event/", "/sensor/")
            unchanged = {n for n in unchanged if n.startswith(kept) and n != "/event/offset"}
        if len(raw) != len(masked) or any(stored[name] != digests[name] for name in unchanged):
            raise RefusedFile(f"{target} to hold the hits of {source}", "others", cure)
        n_kept = sum(int(events.hit["keep"].sum()) for events in masked.batches())
        return MaskedFile(target, len(raw), raw.n_hits, n_kept, is_skipped=True)


_MASK_COLUMNS = {"/", "/hit/score", "/hit/keep"}
