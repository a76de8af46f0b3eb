"""Write labelled hits as images with masks: frames or volumes to segment by kind of signal."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.base.files import check_space, refuse_existing, refuse_inputs, write_whole
from dense_imb.base.progress import tqdm
from dense_imb.data.events.dense import create_frames
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.data.events.formats.source import BATCH_BYTES
from dense_imb.hits import Events, HitsFile, HitsFiles, encode, paint
from dense_imb.hits.frames import CHANNELS, TURNS, Rule, pixel_index, visible
from dense_imb.hits.reader import file_paths

IMAGE, MASK = "image", "mask"  # names of the data sets
_MOST_CLASSES = 255  # 0 .. 254; 255 usually marks ignored pixels
_LEVEL = 1  # of gzip; frames are mostly zeros, which compress at any level


@dataclass(frozen=True)
class LabelledFrames:
    """Result of `write_labelled_frames`.

    Args:
        n_frames: number of frames, one for each event.
        classes: names of the mask values 0, 1 and so on.
        pixels: pixels of each class.
        n_hidden: hits hidden by others, which are in no frame.
        n_hidden_signal: signal hits among them.
    """

    n_frames: int
    classes: tuple[str, ...]
    pixels: tuple[int, ...]
    n_hidden: int
    n_hidden_signal: int


def write_labelled_frames(
    hits: HitsFile | HitsFiles,
    path: PathLike,
    *,
    kinds: Sequence[str] | None = None,
    noise_is_background: bool = False,
    channels: Sequence[str] = ("gapped", "hit", "fourier"),
    rule: Rule = "largest",
    time_bins: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> LabelledFrames:
    """Write hits as images and masks: HDF5 with `image` and `mask`, one frame a chunk.

        image  (N, C, H, W) float32, the channels of `encode`; attribute channel_axis = 1
        mask   (N, H, W) uint8: 0 empty, 1 noise, 2 and up the kinds of signal
               or, with `noise_is_background`: 0 empty or noise, 1 and up the kinds

    A pixel has the class of its visible hit; hidden hits label nothing. If many hits share a
    pixel, use `time_bins` to write volumes, in which no hit is hidden: `image` (N, 1, D, H, W) has
    the number of hits in each cell, and `mask` (N, D, H, W) their largest label.

    The root attributes `classes` and `channels` are lists of names as JSON.

    Args:
        hits: result of `open_hits`, with labels: 0 noise, 1 and up the kinds.
        path: .h5 or .hdf5.
        kinds: names of the labels 1, 2 and so on, for all labels of the hits; by default "signal",
            or "signal 1" and so on.
        noise_is_background: give noise the class of an empty pixel.
        channels: channels of frames, see `encode`.
        rule: hit that is visible in a shared pixel, see `encode`.
        time_bins: D, number of slices of equal duration from 1 to the last time step.
        overwrite: replace a file that exists.
        progress: show a bar.
    """
    path = Path(path)
    _check(hits, path, channels, time_bins)
    refuse_existing(path, overwrite)
    refuse_inputs([path], file_paths(hits))
    empty = ("empty or noise",) if noise_is_background else ("empty", "noise")
    classes = (*empty, *(_numbered(hits) if kinds is None else kinds))
    if len(set(classes)) != len(classes) or not len(empty) < len(classes) <= _MOST_CLASSES:
        raise ValueError(
            f"Expected 1 to {_MOST_CLASSES - len(empty)} `kinds` of different names, none of them "
            f"{' or '.join(empty)}, got {', '.join(classes[len(empty) :][:10]) or 'none'}."
        )
    names = _names(channels) if time_bins is None else ["count"]
    depth = () if time_bins is None else (time_bins,)
    spatial = (*depth, hits.grid.height, hits.grid.width)
    pixels = torch.zeros(len(classes), dtype=torch.int64)
    n_hidden = n_hidden_signal = 0

    def write(partial: Path) -> None:
        nonlocal n_hidden, n_hidden_signal
        size = max(1, BATCH_BYTES // (4 * len(names) * math.prod(spatial)))
        with (
            h5py.File(partial, "x", libver=("v110", "v110")) as file,
            tqdm(total=len(hits), desc="write", unit="frame", disable=not progress, leave=False)
            as bar,
        ):  # fmt: skip
            shape = (len(hits), len(names), *spatial)
            image = create_frames(file, IMAGE, shape, np.float32, _LEVEL)
            image.attrs["channel_axis"] = 1
            mask = create_frames(file, MASK, (len(hits), *spatial), np.uint8, _LEVEL)
            file.attrs["classes"] = np.bytes_(json.dumps(classes))
            file.attrs["channels"] = np.bytes_(json.dumps(names))
            start = 0
            for events in hits.batches(size):
                label = _labels(events, len(classes) - len(empty), start)
                is_visible = torch.ones_like(label, dtype=torch.bool)
                if time_bins is None:
                    is_visible = visible(events, rule)
                    value = encode(events, channels, rule=rule).contiguous()
                    pixel_class = paint(events, (label + len(empty) - 1)[:, None], is_visible)[:, 0]
                else:
                    value, pixel_class = _volumes(events, label + len(empty) - 1, time_bins)
                pixels.add_(torch.bincount(pixel_class.flatten(), minlength=len(classes)))
                n_hidden += int((~is_visible).sum())
                n_hidden_signal += int((label[~is_visible] > 0).sum())
                # HDF5 can crash on a full disk: have room for an incompressible block
                check_space(path, value.nbytes + pixel_class.numel() + (1 << 20))
                rows = slice(start, start + len(events))
                image[rows] = value.numpy()
                mask[rows] = pixel_class.to(torch.uint8).numpy()
                file.flush()
                start += len(events)
                bar.update(len(events))

    write_whole(path, write)
    counts = tuple(pixels.tolist())
    return LabelledFrames(len(hits), classes, counts, n_hidden, n_hidden_signal)


def _check(
    hits: HitsFile | HitsFiles, path: Path, channels: Sequence[str], time_bins: int | None
) -> None:
    if path.suffix not in (".h5", ".hdf5"):
        raise ValueError(f"Expected {path} to end in .h5 or .hdf5, got {path.suffix!r}.")
    if "/hit/label" not in hits.columns:
        raise ValueError(
            "Expected `hits` with labels, 0 noise and 1 and up signal, got none; convert them "
            "with theirs, or simulate some."
        )
    for channel in channels:
        check_choice("channels", channel, CHANNELS)
    if time_bins is not None:
        check_at_least("time_bins", time_bins, 1)


def _labels(events: Events, n_kinds: int, first: int) -> Tensor:
    """Return (n_hits,) int64 labels; refuse labels above the number of kinds."""
    label = torch.as_tensor(np.asarray(events.label, np.int64))
    if events.n_hits and int(label.max()) > n_kinds:
        hit = int(label.argmax())
        event = first + int(np.searchsorted(events.offset, hit, side="right")) - 1
        raise ValueError(
            f"Expected labels up to {n_kinds}, one for each of `kinds`, got {int(label[hit])} in "
            f"event {event}; name that kind too."
        )
    return label


def _volumes(events: Events, label: Tensor, n_bins: int) -> tuple[Tensor, Tensor]:
    """Return (B, 1, D, H, W) hits in each cell, and (B, D, H, W) their largest label."""
    geometry = events.grid
    area = geometry.height * geometry.width
    time = torch.as_tensor(np.asarray(events.t, np.float64))
    bin_of = ((time - 1) * n_bins / geometry.time_steps).long()  # T itself is in the last
    pixel = pixel_index(events)
    cell = (pixel // area * n_bins + bin_of) * area + pixel % area
    shape = (len(events), n_bins, geometry.height, geometry.width)
    count = torch.bincount(cell, minlength=math.prod(shape)).to(torch.float32)
    largest = torch.zeros(math.prod(shape), dtype=torch.int64)
    largest.scatter_reduce_(0, cell, label, "amax")
    return count.view(shape).unsqueeze(1), largest.view(shape)


def _numbered(hits: HitsFile | HitsFiles) -> list[str]:
    """Return a name for each label up to the largest."""
    n = max((int(np.asarray(e.label).max(initial=0)) for e in hits.batches()), default=0)
    return ["signal"] if n < 2 else [f"signal {k + 1}" for k in range(n)]


def _names(channels: Sequence[str]) -> list[str]:
    """Return the name of each channel of `encode`."""
    waves = [f"{wave} {n}" for n in TURNS for wave in ("sin", "cos")]
    return [name for kind in channels for name in (waves if kind == "fourier" else [kind])]
