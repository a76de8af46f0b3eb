"""From labelled hits to images with a mask: frames for a segmentation into kinds of hits."""

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

from dense_imb._files import refuse_existing, write_whole
from dense_imb.data.dense import _check_space, create_frames
from dense_imb.data.formats.frames import PathLike
from dense_imb.data.formats.source import BATCH_BYTES
from dense_imb.hits import Events, HitsFile, HitsFiles, encode, paint
from dense_imb.hits.frames import CHANNELS, TURNS, Rule, visible
from dense_imb.losses._checks import check_choice

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
    threshold: float = 0.5,
    overwrite: bool = False,
    progress: bool = True,
) -> LabelledFrames:
    """Write hits as images and masks: HDF5 with `image` and `mask`, one frame a chunk.

        image  (N, C, H, W) float32, what `encode` gives a network; attribute channel_axis = 1
        mask   (N, H, W) uint8: 0 empty, 1 noise, 2 and up the kinds of signal
               or, with `noise_is_background`: 0 empty or noise, 1 and up the kinds

    A pixel has the class of the hit that it shows; a hit behind another one labels nothing. The
    root attributes `classes` and `channels` are lists of names as JSON.

    Args:
        hits: from `open_hits`, with labels: 0 noise, 1 and up the kinds.
        path: .h5 or .hdf5.
        kinds: names of the labels 1, 2 and so on; by default "signal", or "signal 1" and so on up
            to the largest label. No hit may have a label beyond them.
        noise_is_background: noise is nothing to find, like an empty pixel.
        channels, rule, threshold: as of `encode`.
        overwrite: replace a file that exists.
        progress: show a bar.
    """
    path = Path(path)
    if path.suffix not in (".h5", ".hdf5"):
        raise ValueError(f"Expected {path} to end in .h5 or .hdf5, got {path.suffix!r}.")
    if "/hit/label" not in hits.columns:
        raise ValueError(
            "Expected `hits` with labels, 0 noise and 1 and up signal, got none; convert them "
            "with theirs, or simulate some."
        )
    refuse_existing(path, overwrite)
    for channel in channels:
        check_choice("channels", channel, CHANNELS)
    n_kinds = _largest_label(hits) if kinds is None else len(kinds)
    if kinds is None:
        kinds = ["signal"] if n_kinds < 2 else [f"signal {k + 1}" for k in range(n_kinds)]
    empty = ("empty or noise",) if noise_is_background else ("empty", "noise")
    classes = (*empty, *kinds)
    if len(set(classes)) != len(classes) or not 2 <= len(classes) <= _MOST_CLASSES:
        raise ValueError(
            f"Expected up to {_MOST_CLASSES - len(empty)} `kinds` of different names, and not "
            f"{' or '.join(empty)}, got {len(kinds)}: {', '.join(kinds[:10])}."
        )
    n_channels = sum(CHANNELS[channel] for channel in channels)
    shape = (len(hits), n_channels, hits.geometry.height, hits.geometry.width)
    pixels = torch.zeros(len(classes), dtype=torch.int64)
    n_hidden = n_hidden_signal = 0

    def write(partial: Path) -> None:
        nonlocal n_hidden, n_hidden_signal
        size = max(1, BATCH_BYTES // (4 * math.prod(shape[1:])))
        with (
            h5py.File(partial, "x", libver=("v110", "v110")) as file,
            tqdm(total=len(hits), desc="write", unit="frame", disable=not progress, leave=False)
            as bar,
        ):  # fmt: skip
            image = create_frames(file, IMAGE, shape, np.float32, _LEVEL)
            image.attrs["channel_axis"] = 1
            mask = create_frames(file, MASK, (shape[0], *shape[2:]), np.uint8, _LEVEL)
            file.attrs["classes"] = np.bytes_(json.dumps(classes))
            file.attrs["channels"] = np.bytes_(json.dumps(_names(channels)))
            start = 0
            for events in hits.batches(size):
                is_visible = visible(events, rule)
                label = _label_frames(events, is_visible, len(empty) - 1, classes, start)
                frame = encode(events, channels, rule=rule, threshold=threshold).contiguous()
                pixels.add_(torch.bincount(label.flatten(), minlength=len(classes)))
                n_hidden += int((~is_visible).sum())
                n_hidden_signal += int((_label_of(events)[~is_visible] > 0).sum())
                # HDF5 can crash on a full disk: have room for a block that does not pack
                _check_space(path, frame.nbytes + label.numel() + (1 << 20))
                rows = slice(start, start + len(events))
                image[rows] = frame.numpy()
                mask[rows] = label.to(torch.uint8).numpy()
                file.flush()
                start += len(events)
                bar.update(len(events))

    write_whole(path, write)
    return LabelledFrames(len(hits), classes, tuple(pixels.tolist()), n_hidden, n_hidden_signal)


def _label_of(events: Events) -> Tensor:
    """(n_hits,) int64."""
    return torch.as_tensor(np.asarray(events.label, np.int64))


def _label_frames(
    events: Events, is_visible: Tensor, shift: int, classes: Sequence[str], first: int
) -> Tensor:
    """(B, H, W) int64 class of each pixel: its visible hit's label, `shift` higher; 0 if empty."""
    label = _label_of(events)
    if events.n_hits and int(label.max()) + shift >= len(classes):
        hit = int(label.argmax())
        event = first + int(np.searchsorted(events.offset, hit, side="right")) - 1
        raise ValueError(
            f"Expected labels up to {len(classes) - 1 - shift}, one for each of `kinds`, got "
            f"{int(label[hit])} in event {event}; name that kind too."
        )
    return paint(events, (label + shift)[:, None], is_visible)[:, 0]


def _largest_label(hits: HitsFile | HitsFiles) -> int:
    return max((int(np.asarray(e.label).max(initial=0)) for e in hits.batches()), default=0)


def _names(channels: Sequence[str]) -> list[str]:
    """The name of each channel of `encode`."""
    waves = [f"{wave} {n}" for n in TURNS for wave in ("sin", "cos")]
    return [name for kind in channels for name in (waves if kind == "fourier" else [kind])]
