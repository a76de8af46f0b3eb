"""The experiments on networks of hits, at a tiny size."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.scripts import run_script

FOLDER = Path(__file__).parents[2] / "experiments" / "hits"
BENCH = Path(__file__).parents[2] / "experiments" / "benchmarks" / "hit_speed.py"


def run(name, *arguments, **environment):
    done = run_script(FOLDER / name, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_telescope(folder):
    """Write events with the layout and number of those of the telescope, but few hits."""
    rng = np.random.default_rng(0)
    n_events, n_hits, n_sensors = 450, 8, 30
    path = folder / "km3net_muons" / "events.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["sensor/position_m"] = rng.uniform(0, 100, (n_sensors, 3))
        direction = rng.normal(size=(n_sensors, 3))
        file["sensor/direction"] = direction / np.linalg.norm(direction, axis=1, keepdims=True)
        file["event/offset"] = np.arange(n_events + 1) * n_hits
        size = n_events * n_hits
        file["hit/sensor"] = rng.integers(0, n_sensors, size)
        file["hit/t_ns"] = np.sort(rng.uniform(0, 1000, (n_events, n_hits)), 1).ravel()
        file["hit/tot_ns"] = rng.integers(1, 60, size)
        file["hit/label"] = (rng.random(size) < 0.3).astype(np.uint8)
        file["hit/muon"] = np.zeros(size, np.int32)


def write_photons(folder):
    """Write events with the layout of the photon stream, but few photons."""
    rng = np.random.default_rng(0)
    n_events, n_hits = 24, 20
    path = folder / "fact_photon_stream" / "events.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["event/offset"] = np.arange(n_events + 1) * n_hits
        for name, size in (("col", 45), ("row", 40), ("t", 100), ("label", 2)):
            file[f"photon/{name}"] = rng.integers(0, size, n_events * n_hits)


def test_arc_has_a_row_for_networks_and_rules_and_trains_none_twice(tmp_path):
    pytest.importorskip("sklearn", reason="the table has DBSCAN and gradient boosting")
    rows = ("tiny", "hit density", "DBSCAN", "gradient boosting")
    words = ("--rows", *rows, "--seeds", 0, "--steps", 2, "--scale", 0.01, "--out", tmp_path)
    first = run("arc.py", *words)
    lines = first.splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == [f"| {name}" for name in rows]
    stored = tmp_path / "tiny" / "seed-0.json"
    assert 0 <= json.loads(stored.read_text())["removal_at_97"] <= 1
    before = stored.stat().st_mtime_ns
    assert run("arc.py", *words) == first
    assert stored.stat().st_mtime_ns == before


def test_one_network_is_scored_at_each_amount_of_noise(tmp_path):
    out = run("noise_range.py", "--seeds", 0, "--steps", 1, "--scale", 0.01, "--out", tmp_path)
    amounts = [line.split()[1] for line in out.splitlines()[2:-1]]
    assert amounts == ["100", "200", "500", "1000", "2000"]


def test_the_telescope_is_converted_split_and_learned(tmp_path):
    write_telescope(tmp_path)
    out = run(
        "km3net.py", "--rows", "base", "small", "--seeds", 0, "--steps", 2,
        "--out", tmp_path / "out", DENSE_IMB_DATA=str(tmp_path),
    )  # fmt: skip
    assert "| base | 1 |" in out
    assert "| small | 1 |" in out
    from dense_imb.hits import open_hits

    counts = {}
    for name in ("train", "validation", "test"):
        with open_hits(tmp_path / "out" / f"{name}.h5") as hits:
            counts[name] = len(hits)
    assert counts == {"train": 300, "validation": 50, "test": 100}


def test_photons_of_each_seed_have_their_own_split(tmp_path):
    write_photons(tmp_path)
    out = run(
        "photons.py", "--rows", "base", "hit density", "--seeds", 0, 1, "--steps", 2,
        "--out", tmp_path / "out", DENSE_IMB_DATA=str(tmp_path),
    )  # fmt: skip
    assert "| base | 2 |" in out
    assert "| hit density | 2 |" in out
    parts = [(tmp_path / "out" / f"split-{seed}-test.h5").read_bytes() for seed in (0, 1)]
    assert parts[0] != parts[1]


@pytest.mark.parametrize("task", ["kinds", "telescope"])
def test_losses_have_a_row_each(tmp_path, task):
    write_telescope(tmp_path)
    losses = ("CrossEntropyLoss", "HardMiningLoss(gamma=0.5, balance={})")
    out = run(
        "losses.py", task, "--loss", *losses, "--seeds", 0, "--steps", 2, "--scale", 0.02,
        "--out", tmp_path / "out", DENSE_IMB_DATA=str(tmp_path),
    )  # fmt: skip
    table = out.splitlines()[-2:]
    assert [line.split(" | ")[0] for line in table] == [f"| {loss}" for loss in losses]


def test_every_loss_of_the_tables_can_be_built(monkeypatch):
    from dense_imb.tasks.recipe import build_loss

    monkeypatch.syspath_prepend(FOLDER)
    names = runpy.run_path(str(FOLDER / "losses.py"))["LOSSES"]
    for loss in {*names["kinds"], *names["telescope"]}:
        build_loss(loss, class_counts=(10, 1))


def test_the_bench_of_speed_prints_both_tables():
    done = run_script(BENCH, "--threads", 1, "--repeats", 1, "--sizes", 100, 400)
    assert done.returncode == 0, done.stderr
    assert "| base, KM3NeT | 164,993 | 1 |" in done.stdout
    assert "time grows as hits to the power" in done.stdout
