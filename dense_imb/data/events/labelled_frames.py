"""From labelled hits to images with a mask: frames or volumes for a segmentation by kind."""

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
from tqdm.auto import tqdm

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.base.files import check_space, refuse_existing, write_whole
from dense_imb.data.events.dense import create_frames
from dense_imb.data.events.formats.frames import PathLike
from dense_imb.data.events.formats.source import BATCH_BYTES
from dense_imb.hits import Events, HitsFile, HitsFiles, encode, paint
from dense_imb.hits.frames import CHANNELS, TURNS, Rule, pixel_index, visible

IMAGE, MASK = "image", "mask"  # names of the data sets
_MOST_CLASSES = 255  # 0 .. 254: by custom, 255 marks pixels that count for nothing
_LEVEL = 1  # of gzip; frames are mostly zeros, which pack at any level


@dataclass(frozen=True)
class LabelledFrames:
    """What `write_labelled_frames` wrote.

    Args:
        n_frames: one for each event.
        classes: names of the mask's values, 0 first.
        pixels: of each class.
        n_hidden, n_hidden_signal: hits that lie behind others, and so are in no frame.
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

        image  (N, C, H, W) float32, what `encode` gives a network; attribute channel_axis = 1
        mask   (N, H, W) uint8: 0 empty, 1 noise, 2 and up the kinds of signal
               or, with `noise_is_background`: 0 empty or noise, 1 and up the kinds

    A pixel has the class of the hit that it shows; a hit behind another one labels nothing. Where
    many hits share a pixel, `time_bins` writes volumes, in which none is hidden: (N, 1, D, H, W)
    and (N, D, H, W), the number of hits in each cell and their largest label.

    The root attributes `classes` and `channels` are lists of names as JSON.

    Args:
        hits: from `open_hits`, with labels: 0 noise, 1 and up the kinds.
        path: .h5 or .hdf5.
        kinds: names of the labels 1, 2 and so on; by default "signal", or "signal 1" and so on up
            to the largest label. No hit may have a label beyond them.
        noise_is_background: noise is nothing to find, like an empty pixel.
        channels, rule: of frames, as of `encode`.
        time_bins: D, slices of equal duration from 1 to the last time step.
        overwrite: replace a file that exists.
        progress: show a bar.
    """
    path = Path(path)
    _check(hits, path, channels, time_bins)
    refuse_existing(path, overwrite)
    empty = ("empty or noise",) if noise_is_background else ("empty", "noise")
    classes = (*empty, *(_numbered(hits) if kinds is None else kinds))
    if len(set(classes)) != len(classes) or not len(empty) < len(classes) <= _MOST_CLASSES:
        raise ValueError(
            f"Expected 1 to {_MOST_CLASSES - len(empty)} `kinds` of different names, none of them "
            f"{' or '.join(empty)}, got {', '.join(classes[len(empty) :][:10]) or 'none'}."
        )
    names = _names(channels) if time_bins is None else ["count"]
    depth = () if time_bins is None else (time_bins,)
    spatial = (*depth, hits.geometry.height, hits.geometry.width)
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
                is_shown = torch.ones_like(label, dtype=torch.bool)
                if time_bins is None:
                    is_shown = visible(events, rule)
                    value = encode(events, channels, rule=rule).contiguous()
                    of_pixel = paint(events, (label + len(empty) - 1)[:, None], is_shown)[:, 0]
                else:
                    value, of_pixel = _volumes(events, label + len(empty) - 1, time_bins)
                pixels.add_(torch.bincount(of_pixel.flatten(), minlength=len(classes)))
                n_hidden += int((~is_shown).sum())
                n_hidden_signal += int((label[~is_shown] > 0).sum())
                # HDF5 can crash on a full disk: have room for a block that does not pack
                check_space(path, value.nbytes + of_pixel.numel() + (1 << 20))
                rows = slice(start, start + len(events))
                image[rows] = value.numpy()
                mask[rows] = of_pixel.to(torch.uint8).numpy()
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
    """(n_hits,) int64 labels, none above the number of kinds."""
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
    """Hits in each cell (B, 1, D, H, W) float32, and the largest of their labels (B, D, H, W)."""
    geometry = events.geometry
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
    """A name for each label that there is."""
    n = max((int(np.asarray(e.label).max(initial=0)) for e in hits.batches()), default=0)
    return ["signal"] if n < 2 else [f"signal {k + 1}" for k in range(n)]


def _names(channels: Sequence[str]) -> list[str]:
    """The name of each channel of `encode`."""
    waves = [f"{wave} {n}" for n in TURNS for wave in ("sin", "cos")]
    return [name for kind in channels for name in (waves if kind == "fourier" else [kind])]
