"""Masking: every hit gets a score and a verdict, and keeps its own values.

A denoiser that draws a frame of its own loses exact times and hits that share a pixel. A mask
only says of each hit whether to keep it, so what is kept is what was measured, bit for bit.
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
from dense_imb.hits.baselines import Scorer
from dense_imb.hits.events import Array, Events, Geometry
from dense_imb.hits.format import HitsFileError
from dense_imb.hits.frames import visible
from dense_imb.hits.reader import HitsFile, HitsFiles, _expand, open_hits, verify
from dense_imb.hits.writer import HitsWriter
from dense_imb.metrics import HitScores, OperatingPoint

_Path = str | os.PathLike[str]
Progress = Callable[[int], object]  # called with the number of events just done


class Masking(NamedTuple):
    """What made a denoised file."""

    scorer: str
    operating_point: OperatingPoint
    only_kept: bool

    def as_text(self) -> str:
        """All but the scorer, as a file stores it."""
        point = self.operating_point.as_json()
        return json.dumps({"operating_point": point, "only_kept": self.only_kept}, allow_nan=False)


@dataclass(frozen=True)
class MaskedFile:
    """What became of one file.

    Args:
        path: the denoised file.
        n_events, n_hits: of the source.
        n_kept: hits that reach the threshold.
        scores: retention, removal and purity, where the source has labels; not where skipped.
        is_skipped: it was finished before.
    """

    path: Path
    n_events: int
    n_hits: int
    n_kept: int
    scores: HitScores | None = None
    is_skipped: bool = False

    def summary(self) -> str:
        """One line for people."""
        share = f" ({100 * self.n_kept / self.n_hits:.1f} %)" if self.n_hits else ""
        sentence = (
            f"{self.path}: {self.n_events:,} events, {self.n_hits:,} hits, {self.n_kept:,} kept"
        )
        sentence += share + (", finished before" if self.is_skipped else "")
        if self.scores is None:
            return sentence
        found = self.scores.scores()
        names = {"retention": "of the signal kept", "removal": "of the noise removed"}
        names |= {"purity": "purity"}
        measured = [
            f"{100 * found[n]:.1f} % {said}" for n, said in names.items() if found[n] == found[n]
        ]
        return "; ".join([sentence, *measured])


def score_events(scorer: Scorer, events: Events) -> Tensor:
    """The scorer's score of each hit, (n_hits,) float32 in [0, 1] on the CPU, checked."""
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
        if not (low >= 0 and high <= 1):  # a NaN passes no comparison
            got = "NaN" if math.isnan(low) else f"{low if low < 0 else high:g}"
            raise ValueError(f"Expected scores of {scorer.name} between 0 and 1, got {got}.")
    return score.float()


def check_scorer(scorer: Scorer, geometry: Geometry) -> None:
    """Refuse a scorer made for other frames; one that fits all has no `geometry`, or None."""
    wanted = getattr(scorer, "geometry", None)
    size = [(g.width, g.height, g.time_steps) for g in (wanted, geometry) if g is not None]
    if len(set(size)) > 1:
        listed = [
            f"{width} x {height} pixels and {steps} time steps" for width, height, steps in size
        ]
        raise ValueError(
            f"Expected events of {listed[0]}, as {scorer.name} was trained on, got {listed[1]}; "
            "train a model on such events or convert the file."
        )


def mask_events(
    events: Events, score: Tensor, point: OperatingPoint, *, only_kept: bool = False
) -> Events:
    """The events with the columns `score` and `keep`, all else as it was.

    Columns of these names are replaced.

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
    """Write a hits file again with a `score` (float32) and a `keep` (bool) for each hit.

    All other columns of hits and events keep their values and types, to the bit; `score` and
    `keep` of an earlier masking are replaced. The new file takes its name when it is whole, and
    says which scorer and operating point made it (`read_masking`). A batch at a time is in memory.

    Args:
        source: a hits file, several, or a pattern; several become one file.
        target: where the new file goes, none of the sources.
        scorer: a baseline or a trained model.
        point: where to cut; a number is a threshold of which no more is known.
        only_kept: write kept hits only. Events stay, some without hits.
        overwrite: replace an existing target.
        batch_size: events scored together.
        locking: h5py's file locking.
        progress: called with the number of events just done.
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
            writer.append(_masked(hits[:0], scorer, point, only_kept))  # a file of no events, too
            for events in hits.batches(batch_size):
                masked = _masked(events, scorer, point, False)
                n_kept += int(masked.hit["keep"].sum())
                writer.append(masked.select(masked.hit["keep"]) if only_kept else masked)
                if scores is not None:
                    count(scores, events.torch(), torch.from_numpy(masked.hit["score"]))
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
    """Mask each file into a folder, under its own name; what is finished is skipped.

    So a call that was interrupted is continued by repeating it. Finished is an output whose
    content matches its hash and that the same scorer, operating point and source made; any other
    file in its place is refused, or replaced with `overwrite`, which skips nothing.

    Args:
        sources: files or patterns.
        folder: where the outputs go; made where missing.
        scorer, point, only_kept, batch_size, locking: as of `mask_file`.
        overwrite: mask all files anew.
        progress: called with the number of events just done, or skipped.
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
    """The source of each output of `mask_files`, patterns looked up."""
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
    """The scorer and the operating point that made a denoised file; None of any other file."""
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


def count(
    scores: HitScores, events: Events, score: Tensor, is_visible: Tensor | None = None
) -> None:
    """Count whole labelled events with their scores; which hits a frame shows is found here."""
    scores.update(
        score,
        events.label,  # type: ignore[arg-type]
        events.event_index(),
        n_events=len(events),
        time=events.t,
        true_time=events.t,  # a mask alters none
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
            raise ValueError(f"Expected a target beside the source, got {target} for both.")


def _finished(
    source: Path, target: Path, masking: Masking, locking: bool | str | None
) -> MaskedFile:
    """What an existing output holds, if it is what masking the source would give."""
    cure = "choose another folder, or overwrite it (overwrite=True, --overwrite)"
    digests = verify(target, locking=locking)
    with (
        HitsFile(source, locking=locking, in_memory=False) as raw,
        HitsFile(target, locking=locking, in_memory=False) as masked,
    ):
        made_by = read_masking(masked)
        # as text, for a NaN differs from itself
        if made_by is None or (made_by.scorer, made_by.as_text()) != (
            masking.scorer,
            masking.as_text(),
        ):
            got = "a file of another kind"
            if made_by is not None:
                got = f"one by {made_by.scorer} at {made_by.operating_point.threshold:g}"
                got += " with kept hits only" if made_by.only_kept else ""
            raise FileExistsError(
                f"Expected {target} to be masked by {masking.scorer} at "
                f"{masking.operating_point.threshold:g}{' with kept hits only' * masking.only_kept}"
                f", got {got}; {cure}."
            )
        stored = json.loads(str(raw.attributes.get("content_hash", "{}")))
        kept = {name for name in stored if name in digests and name not in _MASK_COLUMNS}
        if masking.only_kept:  # the hits differ, and with them the offsets
            kept = {n for n in kept if n.startswith("/event/") and n != "/event/offset"}
        if len(raw) != len(masked) or any(stored[name] != digests[name] for name in kept):
            raise FileExistsError(
                f"Expected {target} to hold the hits of {source}, got others; {cure}."
            )
        n_kept = sum(int(events.hit["keep"].sum()) for events in masked.batches())
        return MaskedFile(target, len(raw), raw.n_hits, n_kept, is_skipped=True)


_MASK_COLUMNS = {"/", "/hit/score", "/hit/keep"}
