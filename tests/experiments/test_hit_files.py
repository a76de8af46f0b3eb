"""The bench of hits files runs at a tiny size and writes what it prints."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.scripts import run_script

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "experiments" / "benchmarks"


def bench(out, *arguments, data=None):
    folder = None if data is None else str(data)
    return run_script(
        BENCHMARKS / "hit_files.py",
        "--out",
        out,
        *arguments,
        DENSE_IMB_DATA=folder,
        PYTHONPATH=str(ROOT),
    )


@pytest.fixture
def tracks(tmp_path):
    """Frames with a short line of charge, and the same with noise; one hit of it replaced."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "cern_school_timepix" / "denoise"
    for kind in ("clean", "noisy"):
        (folder / kind).mkdir(parents=True)
    for i in range(8):
        clean = np.zeros((40, 48), np.uint16)
        clean[5 + 3 * i, 10:30] = rng.integers(50, 100, 20)
        noisy = clean.copy()
        noisy[rng.integers(0, 40, 20), rng.integers(0, 48, 20)] = 30
        noisy = np.maximum(noisy, clean)
        noisy[5 + 3 * i, 12] = 200
        for kind, frame in (("clean", clean), ("noisy", noisy)):
            Image.fromarray(frame).save(folder / kind / f"{i}.png")
    return tmp_path


@pytest.mark.slow
def test_a_tiny_run_has_every_table_and_is_not_overwritten(tmp_path):
    out = tmp_path / "new" / "files.json"
    small = ("--events", 80, "--rounds", 2, "--memory-events", 200)
    run = bench(out, *small)
    assert run.returncode == 0, run.stderr
    assert "DENSE_IMB_DATA" in run.stdout  # why a table is missing
    result = json.loads(out.read_text())
    assert "timepix" not in result

    sizes = {row["file"]: row["bytes_per_event"] for row in result["size"]}
    pixels = 128 * 88
    for dtype, n_bytes in (("float64", 8), ("float32", 4), ("uint16", 2)):
        assert sizes[f"frames {dtype}"] > n_bytes * pixels
        assert sizes[f"frames {dtype}, gzip"] < sizes[f"frames {dtype}"]
    assert 230 * 7 < sizes["hits, t uint16"] < sizes["hits, t float32"]

    assert len({row["contestant"] for row in result["speed"]}) == len(result["speed"]) / 2
    for row in result["speed"]:
        assert row["events_per_second"] > 0
        assert row["contestant"] in run.stdout
    assert [(row["events"], row["phase"]) for row in result["memory"]] == [
        (n, phase) for n in (20, 200) for phase in ("write", "open", "read", "shuffle")
    ]
    assert all(0 <= row["growth_mb"] < 100 for row in result["memory"])

    before = out.read_bytes()
    again = bench(out, *small)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["files.json"]


def test_tracks_are_scored_on_frames_that_chose_nothing(tmp_path, tracks):
    pytest.importorskip("sklearn", reason="DBSCAN is one of the rows")
    out = tmp_path / "tracks.json"
    run = bench(out, "--sections", "timepix", data=tracks)
    assert run.returncode == 0, run.stderr
    rows = {row["baseline"]: row for row in json.loads(out.read_text())["timepix"]}
    assert set(rows) == {"blurred hits", "hit density", "median filter", "DBSCAN", "identity"}
    assert rows["blurred hits"]["removal_at_97"] > 0.5  # a line is easy
    assert rows["identity"]["removal_at_97"] == 0


@pytest.fixture
def hit_files(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import hit_files

    yield hit_files
    for name in ("hit_files", "hit_baselines", "dense_rivals"):
        sys.modules.pop(name)


def test_a_hit_that_noise_replaced_is_noise(hit_files, tracks):
    even, odd = hit_files.tracks(tracks / "cern_school_timepix" / "denoise")
    assert (len(even), len(odd)) == (4, 4)
    for events in (even, odd):
        assert (events.label[events.t == 200] == 0).all()
        assert (events.label[events.t == 30] == 0).all()
        assert int(events.label.sum()) == 4 * 19


@pytest.mark.parametrize("way", ["in_batches", "by_frames", "by_points"])
def test_a_rival_keeps_signal_and_adds_noise(hit_files, way):
    clean = torch.zeros(3, 1, 128, 88)
    clean[:, :, :10, :10] = 2000.0  # more than a noise hit can have
    generator = torch.Generator().manual_seed(0)
    degraded = getattr(hit_files, way)(clean, generator)
    assert degraded.shape == clean.shape
    assert ((degraded == 2000).sum((1, 2, 3)) == 30).all()
    is_noise = (degraded > 0) & (degraded < 2000)
    assert (is_noise.sum((1, 2, 3)) > 180).all()
    assert (is_noise.sum((1, 2, 3)) <= 200).all()
