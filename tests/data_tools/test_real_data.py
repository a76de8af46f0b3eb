"""Real detector data through the scripts: Timepix frames, and the photon stream of FACT."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from dense_imb.data.images.folders import read_image
from dense_imb.hits import HitsFile, verify
from tests.data_tools.scripts import run

ROOT = os.environ.get("DENSE_IMB_DATA", "")
TIMEPIX, FACT = Path(ROOT) / "cern_school_timepix", Path(ROOT) / "fact_photon_stream"
pytestmark = pytest.mark.skipif(
    not ROOT or not (TIMEPIX.is_dir() and FACT.is_dir()),
    reason="DENSE_IMB_DATA does not name a folder with the real data",
)


def stack(folder, pattern="real_*"):
    return np.stack([read_image(path) for path in sorted(folder.glob(pattern))])


def test_timepix_frames_to_hits_and_back(tmp_path):
    hits = tmp_path / "timepix.h5"
    masks = ["--masks", TIMEPIX / "masks", "--pattern", "real_*"]
    assert run("convert", TIMEPIX / "images", hits, *masks) == 0
    events = HitsFile(hits)[:]
    assert (len(events), events.n_hits, events.geometry.time_steps) == (120, 25012, 3422)
    share = np.bincount(events.label) / (120 * 256 * 256) * 100
    assert share == pytest.approx([0, 0.033, 0.285], abs=5e-4)  # per cent, as published
    # the first rows of the original ASCII frame data000.txt
    assert (events.x[:3].tolist(), events.y[:3].tolist()) == ([159, 159, 160], [5, 6, 6])
    assert events.t[:3].tolist() == [68, 33, 41]
    assert run("convert", hits, tmp_path / "frames", "--labels", tmp_path / "masks") == 0
    assert np.array_equal(stack(tmp_path / "frames", "*"), stack(TIMEPIX / "images"))
    assert np.array_equal(stack(tmp_path / "masks", "*"), stack(TIMEPIX / "masks"))


def test_a_hit_is_signal_where_the_clean_frame_has_one(tmp_path):
    noisy, clean = TIMEPIX / "denoise" / "noisy", TIMEPIX / "denoise" / "clean"
    path = tmp_path / "noisy.h5"
    assert run("convert", noisy, path, "--masks", clean, "--binary-labels") == 0
    events = HitsFile(path)[:]
    assert (events.label == 1).sum() == (stack(clean) > 0).sum()
    assert events.n_hits == (stack(noisy) > 0).sum()


def test_the_photon_stream_keeps_its_columns_through_split_and_merge(tmp_path, capsys):
    path = tmp_path / "fact.h5"
    places = ["--x", "photon/col", "--y", "photon/row", "--t", "photon/t", "--label",
              "photon/label", "--offset", "event/offset", "--keep", "photon/chid",
              "event/trigger", "event/is_simulation"]  # fmt: skip
    frame = ["--width", 45, "--height", 40, "--time-steps", 100, "--t-ns", 0.5]
    assert run("convert", FACT / "events.h5", path, *places, *frame) == 2  # times start at 0
    assert run("convert", FACT / "events.h5", path, *places, *frame, "--time-offset", 1) == 0
    events = HitsFile(path)[:]
    with h5py.File(FACT / "events.h5") as file:
        assert np.array_equal(events.t, file["photon/t"][:].astype(int) + 1)
        for name in ("chid", "label"):
            assert np.array_equal(events.hit_columns()[name], file[f"photon/{name}"][:])
        for name in ("trigger", "is_simulation"):
            assert np.array_equal(events.event[name], file[f"event/{name}"][:])
    shares = ["--group", "is_simulation", "--shares", "a=0.6", "b=0.4"]
    assert run("split", path, *shares) == 0
    parts = [HitsFile(tmp_path / f"fact_{name}.h5")[:] for name in "ab"]
    groups = [set(part.event["is_simulation"].tolist()) for part in parts]
    assert sorted(map(tuple, groups)) == [(0,), (1,)]
    assert run("merge", tmp_path / "back.h5", tmp_path / "fact_a.h5", tmp_path / "fact_b.h5") == 0
    back = HitsFile(tmp_path / "back.h5")
    verify(tmp_path / "back.h5")
    assert (len(back), back.n_hits) == (161, 694605)
    # on frames the night sky hides nearly all of the shower, in volumes none of it
    capsys.readouterr()
    assert run("label", tmp_path / "frames.h5", path) == 0
    assert "496284 of 694605 hits are hidden by others, 66053 of them signal" in (
        capsys.readouterr().out
    )
    assert run("label", tmp_path / "volumes.h5", path, "--time-bins", 100) == 0
    with h5py.File(tmp_path / "volumes.h5") as file:
        assert file["image"][:].sum() == 694605
        assert (file["mask"][:] == 2).sum() == 31544
