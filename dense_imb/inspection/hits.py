"""Inspection of hits files: one pass in constant memory, and the numbers that follow from it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dense_imb.base.checks import check_at_least
from dense_imb.base.hdf5 import list_datasets, open_file
from dense_imb.base.progress import tqdm
from dense_imb.hits import (
    Events,
    Geometry,
    HitsFileError,
    Sensors,
    gap,
    open_hits,
    rasterise,
    verify,
)
from dense_imb.hits.columns import describe_unseen
from dense_imb.hits.frames import visible
from dense_imb.hits.reader import HitsFile, HitsFiles
from dense_imb.inspection.blank import LossRow, rows_of_logits, rows_of_values
from dense_imb.inspection.hitmap import look_at_map
from dense_imb.inspection.report import Inspection
from dense_imb.inspection.sensors import SensorCounts
from dense_imb.inspection.tally import Tally, summary_of
from dense_imb.inspection.weights import Partition, proposals
from dense_imb.metrics import ImageQuality
from dense_imb.statistics import ClassStatistics

_LARGEST_FRAME = 1 << 26  # pixels: the hit map of one takes 0.5 GB
_HITS_AT_ONCE, _PIXELS_AT_ONCE = 1 << 18, 1 << 25
_MOST_LABELS = 257  # empty pixels, and the values of uint8
# SSIM costs far more than all other numbers
_FRAMES_FOR_QUALITY, _PIXELS_FOR_QUALITY = 256, 1 << 22
_SSIM_SIDE = 11
_SAMPLES = 2
_MOST_TIME_BINS = 40
GAP = 0.5  # values of frames: 0 empty, hits from here to 1


def inspect_hits(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    n_events: int | None = None,
    check_content: bool = False,
    show_progress: bool = True,
) -> Inspection:
    """Measure the class imbalance of hits files, and the scores of a blank frame.

    Args:
        paths: files or patterns, as for `open_hits`.
        n_events: number of events to inspect, evenly spaced; all by default.
        check_content: recompute the content hash of each file, see `dense_imb.hits.verify`.
        show_progress: show a progress bar.

    Example:
        >>> import tempfile
        >>> from dense_imb.hits import Degradation, Geometry, HitsWriter, degrade, simulate
        >>> from dense_imb.inspection import inspect_hits
        >>> rings = simulate("ring", 4, 1, Geometry(24, 24, 50))
        >>> noisy = degrade(rings, Degradation(signal=20, noise=80), seed=1)
        >>> path = tempfile.mkdtemp() + "/noisy.h5"
        >>> with HitsWriter(path, noisy.geometry) as writer:
        ...     writer.append(noisy)
        >>> inspection = inspect_hits(path, show_progress=False)
        >>> inspection
        Inspection(hits: 4 events, 400 hits; text_of(...) prints it)
        >>> inspection.numbers["per_event"]["signal"]["mean"], inspection.numbers["events"]
        (20.0, 4)
    """
    if n_events is not None:
        check_at_least("events", n_events, 1)
    with _open(paths) as hits:
        geometry = hits.geometry
        if isinstance(geometry, Geometry) and geometry.width * geometry.height > _LARGEST_FRAME:
            raise ValueError(
                f"Expected frames of at most {_LARGEST_FRAME} pixels to map, got "
                f"{geometry.width} x {geometry.height}."
            )
        files = [file.path for file in (hits.files if isinstance(hits, HitsFiles) else [hits])]
        for path in files if check_content else ():
            verify(path)
        chosen = np.arange(len(hits))
        if n_events is not None and n_events < len(hits):
            chosen = np.linspace(0, len(hits) - 1, n_events).round().astype(np.int64)
        is_labelled = "/hit/label" in hits.columns
        counts: _Counts | SensorCounts
        if isinstance(geometry, Sensors):
            n_hits = hits.n_hits * len(chosen) // max(len(hits), 1)
            counts = SensorCounts(geometry, is_labelled, n_hits)
        else:
            counts = _Counts(geometry, is_labelled)
        with tqdm(
            total=len(chosen), desc="inspect", unit="event", disable=not show_progress
        ) as bar:
            for part in _parts(chosen, hits):
                counts.add(hits[part])
                bar.update(len(part))
        own = {"/event/offset", "/hit/label", "/hit/t"}
        own |= {f"/hit/{name}" for name in geometry.columns}
        unseen, features = describe_unseen(hits)
        about = {
            "kind": "hits",
            "files": [str(path) for path in files],
            "content_hash": "OK" if check_content else "not checked",
            "events": len(hits),
            "hits": hits.n_hits,
            "inspected_events": len(chosen),
            **_geometry_numbers(geometry),
            "columns": sorted({*hits.columns} - own),
            "unseen": unseen,
            "features": features,
        }
        numbers = {**about, **counts.numbers()}
        if isinstance(counts, _Counts):
            numbers["quality"] = _quality(hits, chosen)
    numbers["warnings"] = counts.warnings(numbers)
    return Inspection(numbers, counts.pictures())


def _geometry_numbers(geometry: Geometry | Sensors) -> dict[str, Any]:
    """Return the size of the frame, or of the table of sensors."""
    if isinstance(geometry, Geometry):
        return {"frame": asdict(geometry)}
    low, high = geometry.position.min(0), geometry.position.max(0)
    sensors = {
        "number": len(geometry),
        "axes": geometry.n_axes,
        "has_direction": geometry.direction is not None,
        "spacing_m": geometry.spacing,
        "extent_m": np.stack([low, high], 1).tolist(),
    }
    return {"sensors": sensors}


def _open(paths: Any) -> HitsFile | HitsFiles:
    try:
        return open_hits(paths, in_memory=False)  # read once: holding it gains nothing
    except HitsFileError as problem:
        for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
            frames, others = _data_sets(path)
            if frames:
                raise HitsFileError(
                    f"Expected a hits file, got {path}, HDF5 with dense frames, {frames}; "
                    "`dense-imb convert` makes a hits file of it, data_tools/repack.py frames "
                    "that read faster."
                ) from problem
            if others:
                raise HitsFileError(
                    f"Expected a hits file, got {path}, HDF5 with other data sets, {others}; "
                    "`dense-imb convert` makes a hits file of it."
                ) from problem
        raise


def _data_sets(path: Any) -> tuple[str, str]:
    """Describe the data sets of a foreign HDF5 file: those of 3 or more dimensions, and others."""
    frames: list[str] = []
    others: list[str] = []

    try:
        with open_file(Path(path)) as file:
            known = list_datasets(file, Path(path))
            if "format" in file.attrs or "hit" in file:
                return "", ""
            for name, dataset in known.items():
                if dataset.ndim >= 3:
                    chunks = f" in chunks of {dataset.chunks}" if dataset.chunks else ""
                    frames.append(f"`{name}` of shape {dataset.shape}{chunks}")
                else:
                    others.append(f"`{name}`")
    except Exception:  # not HDF5, or damaged: open_hits describes that
        return "", ""
    return ", ".join(frames[:3]), ", ".join(others[:6]) + (", .." if len(others) > 6 else "")


def _parts(chosen: NDArray[np.int64], hits: HitsFile | HitsFiles) -> Iterator[NDArray[np.int64]]:
    mean = max(1, hits.n_hits // max(len(hits), 1))
    size = max(1, min(4096, _HITS_AT_ONCE // mean))
    if isinstance(hits.geometry, Geometry):
        size = max(1, min(size, _PIXELS_AT_ONCE // (hits.grid.width * hits.grid.height)))
    for start in range(0, len(chosen), size):
        yield chosen[start : start + size]


class _Counts:
    """Counts of one pass over the events; their size does not grow with the events."""

    def __init__(self, geometry: Geometry, is_labelled: bool) -> None:
        self.geometry, self.is_labelled = geometry, is_labelled
        self.size = geometry.width * geometry.height
        self.per_event = {
            name: Tally() for name in ("hits", "noise", "signal", "lit_pixels", "occluded")
        }
        # for the classes empty, label 0, label 1, ..
        self.pixels = np.zeros(_MOST_LABELS, np.int64)
        self.images = np.zeros(_MOST_LABELS, np.int64)
        self.lit_of_images = np.zeros(_MOST_LABELS, np.int64)
        self.background_images = 0  # with an empty pixel or noise
        self.hit_map = np.zeros((geometry.height, geometry.width), np.int64)
        self.lit_map = np.zeros_like(self.hit_map)
        # noise and signal, by time: all hits, and the visible ones
        self.time = np.zeros((2, geometry.time_steps), np.int64)
        self.visible_time = np.zeros((2, geometry.time_steps), np.int64)
        self.samples: list[Events] = []

    def add(self, events: Events) -> None:
        """Count more events."""
        n, in_event = len(events), events.event_index()
        label = events.label
        if label is None:  # every hit counts as signal
            label = np.ones(events.n_hits, np.uint8)
        label = label.astype(np.int64)
        is_signal = label > 0
        is_visible = visible(events).numpy()
        n_hits = np.diff(events.offset)
        n_signal = np.bincount(in_event[is_signal], minlength=n)
        # (n, classes) visible pixels
        place = in_event[is_visible] * _MOST_LABELS + label[is_visible] + 1
        pixels = np.bincount(place, minlength=n * _MOST_LABELS).reshape(n, _MOST_LABELS)
        n_lit = pixels.sum(1)
        pixels[:, 0] = self.size - n_lit
        is_present = pixels > 0
        self.pixels += pixels.sum(0)
        self.images += is_present.sum(0)
        self.lit_of_images += (n_lit[:, None] * is_present).sum(0)
        self.background_images += int((pixels[:, :2].sum(1) > 0).sum())
        for name, numbers in (
            ("hits", n_hits),
            ("noise", n_hits - n_signal),
            ("signal", n_signal),
            ("lit_pixels", n_lit),
            ("occluded", n_hits - n_lit),
        ):
            self.per_event[name].add(numbers)
        width, steps = self.geometry.width, self.geometry.time_steps
        pixel = events.y.astype(np.int64) * width + events.x
        for counted, some in ((self.hit_map, pixel), (self.lit_map, pixel[is_visible])):
            counted += np.bincount(some, minlength=self.size).reshape(counted.shape)
        step = np.rint(events.t).astype(np.int64) - 1 + is_signal * steps
        self.time += np.bincount(step, minlength=2 * steps).reshape(2, steps)
        visible_step = np.bincount(step[is_visible], minlength=2 * steps)
        self.visible_time += visible_step.reshape(2, steps)
        for event in np.flatnonzero(n_hits)[: _SAMPLES - len(self.samples)]:
            self.samples.append(events[int(event)].take([0]))  # a copy: the batch may go

    def numbers(self) -> dict[str, Any]:
        """Return the numbers of the report."""
        hits, hit_counts = self.per_event["hits"].arrays()
        n_events = int(hit_counts.sum())
        signal, signal_counts = self.per_event["signal"].arrays()
        partitions = self._partitions(n_events)
        numbers: dict[str, Any] = {
            "labelled": self.is_labelled,
            "empty_events": int(hit_counts[hits == 0].sum()),
            "events_without_signal": int(signal_counts[signal == 0].sum()),
            "per_event": self._per_event(),
            "occupancy": _ratio(int(self.pixels[1:].sum()), int(self.pixels.sum())),
            "occluded": self._occluded(),
            "time": self._time(),
            "map": look_at_map(self.hit_map, self.lit_map, n_events),
            "accuracy": self._accuracy(),
        }
        numbers["partitions"] = {
            name: {
                "classes": partition.shares(),
                "imbalance": partition.imbalance,
                "never_seen": partition.absent(),
                **proposals(partition),
            }
            for name, partition in partitions.items()
        }
        numbers["losses"] = {
            title: [row.as_dict() for row in rows]
            for title, rows in self._losses(partitions).items()
        }
        return numbers

    def _per_event(self) -> dict[str, Any]:
        names = self.per_event if self.is_labelled else ("hits", "lit_pixels", "occluded")
        return {name: self.per_event[name].summary() for name in names}

    def _partitions(self, n_events: int) -> dict[str, Partition]:
        labels = np.flatnonzero(self.pixels[2:])
        n_signal = int(labels[-1]) + 1 if len(labels) else 1
        pixels, images = self.pixels[: 2 + n_signal], self.images[: 2 + n_signal]

        def counted(names: tuple[str, ...], *counts: NDArray[np.int64]) -> Partition:
            pixels, images, image_pixels = (one.tolist() for one in counts)
            statistics = ClassStatistics.from_counts(pixels, images, image_pixels, n_events)
            return Partition(names, statistics)

        if not self.is_labelled:
            pixels, images = pixels[[0, 2]], images[[0, 2]]
            return {"frame": counted(("empty", "hit"), pixels, images, images * self.size)}
        signal = ("signal",) if n_signal == 1 else tuple(f"signal {k + 1}" for k in range(n_signal))
        joined = np.concatenate([[pixels[:2].sum()], pixels[2:]])
        held = np.concatenate([[self.background_images], images[2:]])
        lit = (pixels[1:], images[1:], self.lit_of_images[1 : 2 + n_signal])
        return {
            "pixels": counted(("empty", "noise", *signal), pixels, images, images * self.size),
            "frame": counted(("empty or noise", *signal), joined, held, held * self.size),
            "lit": counted(("noise", *signal), *lit),
        }

    def _losses(self, partitions: dict[str, Partition]) -> dict[str, list[LossRow]]:
        steps = self.geometry.time_steps
        value = gap(torch.arange(1, steps + 1, dtype=torch.float64), steps, GAP)
        noise, signal = torch.from_numpy(self.visible_time)
        rows = {"values": rows_of_values(value, signal, noise, int(self.pixels[0]))}
        for name in ("frame", "lit"):
            # lit pixels without noise are of one class
            if name in partitions and partitions[name].statistics.class_counts[0]:
                counts = partitions[name].statistics.class_counts
                rows[f"logits_{name}"] = rows_of_logits(counts)
        return rows

    def _occluded(self) -> dict[str, float]:
        n_hidden = self.time.sum(1) - self.visible_time.sum(1)
        occluded = {
            "hits": int(n_hidden.sum()),
            "share": _ratio(int(n_hidden.sum()), int(self.time.sum())),
        }
        if self.is_labelled:
            occluded["share_of_signal"] = _ratio(int(n_hidden[1]), int(self.time[1].sum()))
            occluded["share_of_noise"] = _ratio(int(n_hidden[0]), int(self.time[0].sum()))
        return occluded

    def _time(self) -> dict[str, Any]:
        total = self.time.sum(0)
        edges = _time_edges(total)
        first, last = int(edges[0]), int(edges[-1])
        rows = {"noise": self.time[0], "signal": self.time[1]} if self.is_labelled else {}
        return {
            **summary_of(np.arange(1, len(total) + 1), total),
            "share_at_first_step": _ratio(int(total[0]), int(total.sum())),
            "share_at_last_step": _ratio(int(total[-1]), int(total.sum())),
            "bin_edges": (edges + 1).tolist(),
            "share_outside_bins": 1.0 - _ratio(int(total[first:last].sum()), int(total.sum())),
            "histogram": {
                name: np.add.reduceat(row[:last], edges[:-1]).tolist()
                for name, row in {"hits": total, **rows}.items()
            },
        }

    def _accuracy(self) -> dict[str, float]:
        """Return the accuracy of a blank frame, and of one that takes every hit for signal."""
        n_all, n_lit = int(self.pixels.sum()), int(self.pixels[1:].sum())
        n_noise, n_signal = int(self.pixels[1]), int(self.pixels[2:].sum())
        return {
            "blank": _ratio(n_all - n_signal, n_all),
            "input": _ratio(n_all - n_noise, n_all),
            "blank_on_lit_pixels": _ratio(n_noise, n_lit),
            "input_on_lit_pixels": _ratio(n_signal, n_lit),
        }

    def warnings(self, numbers: dict[str, Any]) -> list[str]:
        """Return the warnings that follow from the numbers."""
        return _warnings(numbers)

    def pictures(self) -> dict[str, Any]:
        """Return the arrays and sample events of the figure."""
        return {
            "hit_map": self.hit_map,
            "hits_per_event": self.per_event["hits"].arrays(),
            "signal_per_event": self.per_event["signal"].arrays() if self.is_labelled else None,
            "samples": self.samples,
        }


def _time_edges(total: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the edges of time bins, from step 0; bins omit outliers that would squeeze the rest.

    All bins but the last have the same whole number of steps, so that a flat spectrum looks flat.
    """
    first, last = 0, len(total)
    below = total.cumsum()
    low, high = np.searchsorted(below, np.array([0.0005, 0.9995]) * below[-1], side="right")
    if below[-1] and 2 * (high + 1 - low) < last:
        first, last = int(low), min(int(high) + 1, last)
    n = last - first
    least = math.ceil(n / _MOST_TIME_BINS)
    width = min(
        range(least, max(least, n // (_MOST_TIME_BINS // 2)) + 1), key=lambda w: (-n % w / w, w)
    )
    return np.append(np.arange(first, last, width), last)


def _quality(hits: HitsFile | HitsFiles, chosen: NDArray[np.int64]) -> dict[str, Any]:
    """Return PSNR and SSIM of a blank frame and of the input against the input without noise."""
    size = hits.grid.width * hits.grid.height
    n_frames = min(len(chosen), _FRAMES_FOR_QUALITY, _PIXELS_FOR_QUALITY // size)
    if n_frames == 0 or min(hits.grid.width, hits.grid.height) < _SSIM_SIDE:
        return {"frames": 0}
    spread = chosen[np.linspace(0, len(chosen) - 1, n_frames).round().astype(np.int64)]
    quality = ImageQuality(data_range=1.0)
    at_once = max(1, (1 << 18) // size)
    for start in range(0, n_frames, at_once):
        events = hits[spread[start : start + at_once]]
        raster = rasterise(events)
        given = gap(raster.frame, hits.grid.time_steps, GAP)
        target = given
        if events.label is not None:
            is_noise = raster.is_visible.numpy() & (events.label == 0)
            noise = rasterise(events.select(is_noise), "count").frame
            target = given.masked_fill(noise > 0, 0.0)
        quality.update(torch.zeros_like(target), target, measured=given)
    rows = quality.rows()
    return {"frames": n_frames, "blank": rows["blank"], "input": rows["input"]}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _warnings(numbers: dict[str, Any]) -> list[str]:
    lines = []
    defects, time = numbers["map"], numbers["time"]
    if defects["hot_pixels"]:
        top = defects["hottest"][0]
        lines.append(
            f"{defects['hot_pixels']} hot pixels, the hottest x={top['x']} y={top['y']} with "
            f"{top['hits_per_event']:.3g} hits an event: mask them, or train with the noise "
            "profile hot_pixels"
        )
    for axis in ("rows", "columns"):
        for kind in ("hot", "silent"):
            places = defects[f"{kind}_{axis}"]
            if places and numbers["inspected_events"]:
                why = "" if kind == "hot" else ": dead, or never reached by the events"
                lines.append(f"{len(places)} {kind} {axis} ({_listed(places)}){why}")
    for where in ("first", "last"):
        if time[f"share_at_{where}_step"] > max(0.01, 10 / numbers["frame"]["time_steps"]):
            lines.append(
                f"{time[f'share_at_{where}_step']:.1%} of the hits lie at the {where} time step: "
                "clamped or saturated times?"
            )
    if numbers["inspected_events"] and not numbers["labelled"]:
        lines.append("no labels: this report takes every hit for signal")
    for name in numbers["partitions"].get("pixels", {}).get("never_seen", []):
        lines.append(f"no pixel of class {name}")
    return lines


def _listed(numbers: Sequence[int]) -> str:
    """Join whole numbers, runs of them as ranges.

    Example:
        >>> _listed([0, 1, 2, 7])
        '0-2, 7'
    """
    cuts = np.split(np.asarray(numbers), np.flatnonzero(np.diff(numbers) != 1) + 1)
    runs = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in cuts]
    return ", ".join(runs[:6]) + (", .." if len(runs) > 6 else "")
