"""Hits as images with masks: each pixel's class by plain loops, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import h5py
import numpy as np
import pytest

from dense_imb.data.events import labelled_frames
from dense_imb.data.events.labelled_frames import write_labelled_frames
from dense_imb.hits import Events, Geometry, HitsFile, HitsWriter, encode, open_hits
from tests.hits.files import some_events, write

KINDS = ["arc", "ring"]


def crowded(n_events=40, seed=0):
    """Events in a frame so small that most hits share a pixel, and some a time."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(25, n_events) * (rng.random(n_events) > 0.2)
    n = int(count.sum())
    offset = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    x, y, t = (rng.integers(low, high, n).astype(np.uint16) for low, high in
               ((0, 4), (0, 5), (1, 10)))  # fmt: skip
    return Events(Geometry(4, 5, 9), offset, x, y, t, rng.integers(0, 3, n).astype(np.uint8))


def made(path, events, **options):
    with open_hits(write(path / "hits.h5", events), in_memory=False) as hits:
        told = write_labelled_frames(hits, path / "frames.h5", progress=False, **options)
    with h5py.File(path / "frames.h5") as file:
        names = [json.loads(file.attrs[name]) for name in ("classes", "channels")]
        assert file["image"].attrs["channel_axis"] == 1
        assert file["image"].chunks == (1, *file["image"].shape[1:])
        return told, file["image"][:], file["mask"][:], names


@pytest.mark.parametrize("rule", ["largest", "smallest"])
@pytest.mark.parametrize("noise_is_background", [False, True])
def test_a_pixel_has_the_class_of_the_hit_it_shows(rule, noise_is_background, tmp_path):
    events = crowded()
    expected = np.zeros((40, 5, 4), np.uint8)
    n_hidden = n_hidden_signal = 0
    for i, event in enumerate(events):
        shown = {}
        for hit in range(event.n_hits):
            x, y, t, label = (int(c[hit]) for c in (event.x, event.y, event.t, event.label))
            old = shown.get((y, x))
            is_better = old is None or (t > old[0] if rule == "largest" else t < old[0])
            behind = old if is_better else (t, label)  # of equal times the first is shown
            if behind is not None:
                n_hidden += 1
                n_hidden_signal += behind[1] > 0
            if is_better:
                shown[y, x] = (t, label)
        for place, (_, label) in shown.items():
            expected[i][place] = label + 1 - noise_is_background
    told, image, mask, names = made(
        tmp_path, events, kinds=KINDS, rule=rule, noise_is_background=noise_is_background
    )
    assert n_hidden_signal > 100
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected)
    assert (told.n_frames, told.n_hidden, told.n_hidden_signal) == (40, n_hidden, n_hidden_signal)
    background = ["empty or noise"] if noise_is_background else ["empty", "noise"]
    assert names[0] == [*background, *KINDS] == list(told.classes)
    assert told.pixels == tuple(np.bincount(expected.ravel(), minlength=len(names[0])))
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, encode(events, rule=rule).numpy())
    waves = [f"{wave} {n}" for n in (1, 2, 4) for wave in ("sin", "cos")]
    assert names[1] == ["gapped", "hit", *waves]
    lit = image[:, 1] == 1  # the image shows where there is something to label, and when
    assert noise_is_background or np.array_equal(lit, mask > 0)


def test_signal_behind_noise_labels_nothing(tmp_path):
    x, y, t, label = np.array([[0, 0, 1], [0, 0, 0], [5, 7, 3], [1, 0, 2]])
    events = Events(Geometry(3, 1, 9), np.array([0, 3]), x, y, t, label.astype(np.uint8))
    assert made(tmp_path, events)[2].tolist() == [[[1, 3, 0]]]


@pytest.mark.parametrize("n_bins", [1, 4, 9])
@pytest.mark.parametrize("noise_is_background", [False, True])
def test_a_cell_of_a_volume_counts_its_hits(n_bins, noise_is_background, tmp_path):
    events = crowded(seed=3)
    if n_bins == 4:  # times need not be whole
        moved = events.t.astype(np.float32)
        moved[events.t < 9] += 0.5
        events = replace(events, t=moved)
    count = np.zeros((40, 1, n_bins, 5, 4), np.float32)
    label = np.zeros((40, n_bins, 5, 4), np.uint8)
    for i, event in enumerate(events):
        seen = Counter()
        for x, y, t, own in zip(event.x, event.y, event.t, event.label, strict=True):
            # step t lasts from t - 1 to t, whole times stand for its start
            cell = (int((float(t) - 1) * n_bins // 9), int(y), int(x))
            seen[cell] += 1
            label[i][cell] = max(label[i][cell], own + 1 - noise_is_background)
        for cell, n in seen.items():
            count[i][(0, *cell)] = n
    told, image, mask, names = made(
        tmp_path, events, time_bins=n_bins, noise_is_background=noise_is_background
    )
    np.testing.assert_array_equal(image, count)
    np.testing.assert_array_equal(mask, label)
    assert count.sum() == events.n_hits
    assert (told.n_hidden, names[1]) == (0, ["count"])


def test_a_stream_of_small_blocks_is_the_whole(tmp_path, monkeypatch):
    (tmp_path / "small").mkdir()
    whole = made(tmp_path, crowded())
    monkeypatch.setattr(labelled_frames, "BATCH_BYTES", 4 * 8 * 20 * 3)
    sizes = []
    batches = HitsFile.batches
    monkeypatch.setattr(
        HitsFile, "batches", lambda self, size=1024: sizes.append(size) or batches(self, size)
    )
    small = made(tmp_path / "small", crowded())
    assert sizes == [1024, 3]  # once for the labels
    assert small[0] == whole[0]
    for one, other in zip(small[1:3], whole[1:3], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("largest", "names"), [(0, ["signal"]), (1, ["signal"]),
                                                (2, ["signal 1", "signal 2"])])  # fmt: skip
def test_kinds_without_a_name_get_numbers(largest, names, tmp_path):
    events = crowded()
    events = replace(events, label=np.minimum(events.label, largest))
    told, *_ = made(tmp_path, events)
    assert told.classes == ("empty", "noise", *names)


def test_channels_are_chosen_and_events_without_hits_are_empty_frames(tmp_path):
    told, image, mask, names = made(tmp_path, some_events(3, mean=0), channels=["hit"])
    assert (image.shape, mask.shape) == ((3, 1, 128, 88), (3, 128, 88))
    assert not image.any()
    assert told.pixels == (3 * 128 * 88, 0, 0)
    assert names[1] == ["hit"]


@pytest.mark.parametrize("options", [{}, {"time_bins": 3}])
def test_no_events_are_no_frames(options, tmp_path):
    events = some_events(3, mean=0)
    with HitsWriter(tmp_path / "hits.h5", events.geometry) as writer:
        writer.append(events[:0])  # its columns
    with HitsFile(tmp_path / "hits.h5") as hits:
        told = write_labelled_frames(hits, tmp_path / "frames.h5", progress=False, **options)
    assert (told.n_frames, told.pixels) == (0, (0, 0, 0))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kinds": ["arc"]}, "labels up to 1, one for each of `kinds`, got 2 in event 1;"),
        ({"kinds": []}, "1 to 253 `kinds` .* got none"),
        ({"kinds": ["arc", "arc"]}, "different names, .* got arc, arc"),
        ({"kinds": ["arc", "noise"]}, "none of them empty or noise, got arc, noise"),
        ({"kinds": [str(i) for i in range(254)]}, "1 to 253 `kinds`"),
        ({"channels": ["hits"]}, "Did you mean 'hit'"),
        ({"time_bins": 0}, "Expected `time_bins`"),
        ({"name": "a.npy"}, "to end in .h5 or .hdf5, got '.npy'"),
        ({"name": "hits.h5"}, "Expected no file at .*hits.h5, got one"),
    ],
)
def test_what_cannot_be_labelled_is_refused_and_leaves_nothing(
    options, sentence, tmp_path, monkeypatch
):
    monkeypatch.setattr(labelled_frames, "BATCH_BYTES", 1)  # an event at a time
    x, y, t, label = np.array([[0, 0, 1], [0, 0, 0], [5, 7, 3], [1, 0, 2]])
    events = Events(Geometry(3, 1, 9), np.array([0, 1, 3]), x, y, t, label.astype(np.uint8))
    path = write(tmp_path / "hits.h5", events)
    options = dict(options)
    target = tmp_path / options.pop("name", "frames.h5")
    with (
        HitsFile(path) as hits,
        pytest.raises((ValueError, FileExistsError), match=sentence),
    ):
        write_labelled_frames(hits, target, progress=False, **options)
    assert list(tmp_path.iterdir()) == [path]


def test_hits_without_labels_are_refused_and_an_old_file_survives(tmp_path):
    unlabelled = HitsFile(write(tmp_path / "a.h5", replace(crowded(), label=None)))
    with unlabelled, pytest.raises(ValueError, match="Expected `hits` with labels"):
        write_labelled_frames(unlabelled, tmp_path / "frames.h5")
    (tmp_path / "frames.h5").write_bytes(b"old")
    with HitsFile(write(tmp_path / "b.h5", crowded())) as hits:
        with pytest.raises(ValueError, match="labels up to 1"):
            write_labelled_frames(hits, tmp_path / "frames.h5", kinds=["a"], overwrite=True)
        assert (tmp_path / "frames.h5").read_bytes() == b"old"
        write_labelled_frames(hits, tmp_path / "frames.h5", overwrite=True, progress=False)
    assert h5py.is_hdf5(tmp_path / "frames.h5")
