"""inspect_hits: its numbers are those of the frames, for every kind of file."""

from __future__ import annotations

import json
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from dense_imb.hits import Degradation, Events, Geometry, degrade, gap, rasterise, simulate
from dense_imb.inspection import Inspection, inspect_hits, text_of
from dense_imb.inspection.hits import _time_edges
from dense_imb.metrics import ImageQuality
from tests.hits.files import FRAME, some_events, write

SMALL = Geometry(width=20, height=16, time_steps=50)


def look(path, **options) -> Inspection:
    found = inspect_hits(path, show_progress=False, **options)
    json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert "nan" not in text_of(found).lower()
    return found


def events_of(geometry, offset, x, y, t, label=None) -> Events:
    columns = (np.asarray(column, np.uint16) for column in (x, y, t))
    label = None if label is None else np.asarray(label, np.uint8)
    return Events(geometry, np.asarray(offset, np.int64), *columns, label)


def random_events(n_events: int, geometry: Geometry = SMALL, mean: int = 30) -> Events:
    events = some_events(n_events, seed=n_events, mean=mean)
    fold = {"x": events.x % geometry.width, "y": events.y % geometry.height}
    return Events(
        geometry, events.offset, fold["x"], fold["y"], events.t % geometry.time_steps + 1,
        events.label,
    )  # fmt: skip


def test_counts_are_those_of_the_frames(tmp_path):
    events = random_events(60)
    numbers = look(write(tmp_path / "a.h5", events)).numbers
    raster = rasterise(events)
    shown = torch.zeros_like(raster.frame)  # 0 empty, 1 noise, 2, 3: signal
    pixel = (events.event_index() * 16 + events.y) * 20 + events.x
    is_visible = raster.is_visible.numpy()
    shown.view(-1)[pixel[is_visible]] = torch.from_numpy(events.label[is_visible] + 1).float()
    wanted = [int((shown == k).sum()) for k in range(4)]
    classes = numbers["partitions"]["pixels"]["classes"]
    assert list(classes) == ["empty", "noise", "signal 1", "signal 2"]
    assert [found["pixels"] for found in classes.values()] == wanted
    images = [int((shown == k).flatten(1).any(1).sum()) for k in range(4)]
    assert [found["images"] for found in classes.values()] == images
    frame = numbers["partitions"]["frame"]["classes"]
    assert [found["pixels"] for found in frame.values()] == [wanted[0] + wanted[1], *wanted[2:]]
    lit = numbers["partitions"]["lit"]["classes"]
    assert [found["pixels"] for found in lit.values()] == wanted[1:]
    assert numbers["occupancy"] == pytest.approx(float((shown > 0).float().mean()))
    assert numbers["occluded"]["hits"] == int(raster.n_occluded.sum())
    is_signal = events.label > 0
    hidden = (~is_visible & is_signal).sum() / is_signal.sum()
    assert numbers["occluded"]["share_of_signal"] == pytest.approx(hidden)
    assert numbers["accuracy"]["blank"] == pytest.approx(float((shown < 2).float().mean()))
    assert numbers["accuracy"]["input"] == pytest.approx(float((shown != 1).float().mean()))
    n_hits = np.diff(events.offset)
    assert numbers["per_event"]["hits"]["median"] == np.quantile(n_hits, 0.5, method="inverted_cdf")
    assert numbers["per_event"]["hits"]["q95"] == np.quantile(n_hits, 0.95, method="inverted_cdf")
    assert numbers["empty_events"] == (n_hits == 0).sum()
    assert numbers["time"]["median"] == np.quantile(events.t, 0.5, method="inverted_cdf")
    assert sum(numbers["time"]["histogram"]["signal"]) == is_signal.sum()
    assert numbers["time"]["share_at_last_step"] == pytest.approx((events.t == 50).mean())


def test_losses_and_quality_are_those_of_the_frames(tmp_path):
    events = random_events(40)
    numbers = look(write(tmp_path / "a.h5", events)).numbers
    raster = rasterise(events)
    given = gap(raster.frame, 50)
    target = given.clone()
    noise = raster.is_visible.numpy() & (events.label == 0)
    pixel = (events.event_index() * 16 + events.y) * 20 + events.x
    target.view(-1)[pixel[noise]] = 0.0
    quality = ImageQuality(data_range=1.0)
    quality.update(target, target, measured=given)
    for row in ("blank", "input"):
        assert numbers["quality"][row] == pytest.approx(quality.rows()[row])
    mse = numbers["losses"]["values"][0]
    assert mse["blank"] == pytest.approx(float(target.double().square().mean()), rel=1e-6)
    assert mse["input"] == pytest.approx(float((given - target).double().square().mean()), rel=1e-6)


def test_files_without_labels_take_every_hit_for_wanted(tmp_path):
    events = replace(random_events(30), label=None)
    found = look(write(tmp_path / "a.h5", events))
    assert list(found.numbers["partitions"]) == ["frame"]
    assert list(found.numbers["partitions"]["frame"]["classes"]) == ["empty", "hit"]
    assert found.numbers["quality"]["input"]["psnr"] == math.inf
    assert "no labels" in text_of(found)


def test_a_file_of_zero_events_is_legal(tmp_path):
    found = look(write(tmp_path / "a.h5", events_of(SMALL, [0], [], [], [], [])))
    assert found.numbers["events"] == 0
    assert "No events" in text_of(found)


def test_events_without_hits_are_legal(tmp_path):
    found = look(write(tmp_path / "a.h5", events_of(SMALL, [0, 0, 0], [], [], [], [])))
    assert found.numbers["empty_events"] == 2
    assert found.numbers["occupancy"] == 0
    assert found.numbers["accuracy"]["blank"] == 1
    assert "one class only" in text_of(found)


def test_noise_only_is_legal_and_no_signal_is_claimed(tmp_path):
    events = random_events(30)
    events = replace(events, label=np.zeros_like(events.label))
    found = look(write(tmp_path / "a.h5", events))
    assert found.numbers["events_without_signal"] == 30
    assert found.numbers["partitions"]["lit"]["never_seen"] == ["signal"]
    assert "weights" not in found.numbers["partitions"]["lit"]
    assert "no pixel of class signal" in text_of(found)


def test_a_class_never_seen_leaves_the_weights_of_the_others_alone(tmp_path):
    events = random_events(30)
    path = write(tmp_path / "a.h5", replace(events, label=np.where(events.label == 1, 2, 3)))
    frame = look(path).numbers["partitions"]["frame"]
    assert frame["never_seen"] == ["signal 1"]
    weight = frame["weights"]["inverse"]
    assert weight[1] == 1.0
    assert weight[0] + weight[2] + weight[3] == pytest.approx(3.0, rel=1e-3)


def test_frames_smaller_than_the_window_and_single_steps(tmp_path):
    tiny = Geometry(width=1, height=2, time_steps=1)
    found = look(write(tmp_path / "a.h5", events_of(tiny, [0, 1], [0], [1], [1], [1])))
    assert found.numbers["quality"] == {"frames": 0}


def test_large_frames_are_not_waited_for(tmp_path):
    for side, n_frames in ((1500, 1), (2100, 0)):
        frame = Geometry(width=side, height=side, time_steps=10)
        path = write(tmp_path / f"{side}.h5", events_of(frame, [0, 1, 2], [0, 9], [1, 9], [1, 2]))
        assert look(path).numbers["quality"]["frames"] == n_frames


def test_times_may_be_floats(tmp_path):
    events = random_events(20)
    moved = replace(events, t=np.clip(events.t + np.float32(0.25), 1, 50).astype(np.float32))
    numbers = look(write(tmp_path / "a.h5", moved)).numbers
    assert sum(numbers["time"]["histogram"]["hits"]) == events.n_hits


def test_some_events_are_evenly_spaced(tmp_path):
    offset = np.arange(102).cumsum()  # event i has i + 1 hits
    offset = np.concatenate([[0], offset[1:]])
    n = int(offset[-1])
    path = write(tmp_path / "a.h5", events_of(SMALL, offset, [0] * n, [0] * n, [1] * n))
    found = look(path, n_events=3).numbers
    assert (found["events"], found["inspected_events"]) == (101, 3)
    assert found["per_event"]["hits"]["mean"] == (1 + 51 + 101) / 3
    assert look(path, n_events=1000).numbers["inspected_events"] == 101
    with pytest.raises(ValueError, match="`events`"):
        inspect_hits(path, n_events=0)


def test_several_files_are_one_data_set(tmp_path):
    parts = [random_events(30), random_events(40)]
    for k, events in enumerate(parts):
        write(tmp_path / f"{k}.h5", events)
    numbers = look(str(tmp_path / "*.h5"), check_content=True).numbers
    assert numbers["events"] == 70
    assert len(numbers["files"]) == 2
    assert numbers["hits"] == sum(events.n_hits for events in parts)


def test_a_hot_pixel_and_a_dead_column_are_seen(tmp_path):
    clean = degrade(simulate("arc", 300, seed=3), Degradation(signal=30, noise=200), seed=3)
    assert look(write(tmp_path / "clean.h5", clean)).numbers["warnings"] == []
    dead = clean.select(clean.x != 40)
    x, y = dead.x.copy(), dead.y.copy()
    x[dead.offset[:-1]], y[dead.offset[:-1]] = 7, 9  # the first hit of each event
    found = look(write(tmp_path / "sick.h5", replace(dead, x=x, y=y)))
    of_map = found.numbers["map"]
    assert (of_map["hot_pixels"], of_map["silent_columns"]) == (1, [40])
    assert (of_map["hottest"][0]["x"], of_map["hottest"][0]["y"]) == (7, 9)
    assert any("hot pixel" in line and "x=7 y=9" in line for line in found.numbers["warnings"])
    assert any("1 silent columns (40)" in line for line in found.numbers["warnings"])


def test_many_photons_of_one_event_are_no_hot_pixel(tmp_path):
    filled = simulate(("arc", "ring"), 40, seed=4)
    assert look(write(tmp_path / "a.h5", filled)).numbers["map"]["hot_pixels"] == 0


def test_clamped_times_are_warned_of(tmp_path):
    events = random_events(50, replace(SMALL, time_steps=1000))
    late = replace(events, t=np.where(np.arange(events.n_hits) % 5 == 0, 1000, events.t))
    warnings = look(write(tmp_path / "a.h5", late)).numbers["warnings"]
    assert any("last time step" in line for line in warnings)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_events(tmp_path):
    peaks = []
    for n_events in (4_000, 40_000):
        path = write(tmp_path / f"{n_events}.h5", some_events(n_events, mean=60.0))
        tracemalloc.start()
        inspect_hits(path, show_progress=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 64 * 36_000  # offsets and order: some 8 bytes each an event


def test_units_and_columns_are_told(tmp_path):
    text = text_of(look(write(tmp_path / "a.h5", some_events(20))))
    assert f"frame {FRAME.width} x {FRAME.height} pixels, 1000 time steps" in text
    assert "x step 0.4 mm, t step 0.05 ns" in text
    assert "/event/run" in text
    assert "/hit/momentum" in text


@pytest.mark.parametrize("n_steps", [1, 7, 40, 41, 97, 1000, 1024, 11810])
def test_a_flat_time_spectrum_looks_flat(n_steps):
    edges = _time_edges(np.ones(n_steps, np.int64))
    widths = np.diff(edges)
    assert (edges[0], edges[-1]) == (0, n_steps)
    assert len(widths) <= 40
    assert len(widths) >= min(n_steps, 20)
    assert len(set(widths[:-1])) <= 1
    assert widths[-1] <= widths[0]


def test_one_late_hit_does_not_squeeze_the_spectrum(tmp_path):
    t = np.append(np.random.default_rng(0).integers(200, 300, 5000), 60000)
    frame = Geometry(width=20, height=16, time_steps=60000)
    events = events_of(frame, [0, len(t)], t % 20, t % 16, t)
    inspection = inspect_hits(write(tmp_path / "a.h5", events), show_progress=False)
    time = inspection.numbers["time"]
    assert 199 <= time["bin_edges"][0] <= 205
    assert 295 <= time["bin_edges"][-1] <= 301
    inside = (t >= time["bin_edges"][0]) & (t < time["bin_edges"][-1])
    assert sum(time["histogram"]["hits"]) == inside.sum() < len(t)
    assert time["share_outside_bins"] == pytest.approx(1 - inside.mean())
    assert "of the hits lie outside" in text_of(inspection)


def test_advice_and_warnings_come_first(tmp_path):
    frame = Geometry(width=20, height=16, time_steps=50)
    label = np.array([1, 2, 2], np.uint8)
    events = events_of(frame, [0, 3], [1, 2, 3], [1, 2, 3], [50, 50, 50], label)
    text = text_of(inspect_hits(write(tmp_path / "a.h5", events), show_progress=False))
    order = [text.index(title) for title in ("Warnings", "What to do", "Per event", "Occupancy")]
    assert order == sorted(order)
    assert "if one of the labels means noise, convert with --noise-label K" in text


@pytest.mark.parametrize("has_labels", [True, False])
@pytest.mark.parametrize("has_noise", [True, False])
def test_the_last_lines_train_then_compare(tmp_path, has_noise, has_labels):
    events = random_events(30)
    label = np.where(events.label == 0, 0 if has_noise else 1, events.label).astype(np.uint8)
    events = replace(events, label=label if has_labels else None)
    path = write(tmp_path / "a b.h5", events)
    lines = text_of(look(path)).splitlines()[-5:]
    noise = "" if has_noise and has_labels else "noise 200"
    assert lines[0].startswith("Next: train a network of hits")
    assert lines[1] == f"  dense-imb train hits --hits.train '{path}' --out runs/first" + (
        noise and f" --hits.{noise}"
    )
    assert lines[3].startswith("Then: compare losses")
    assert lines[4] == f"  dense-imb compare '{path}'" + (noise and f" --{noise}")


@pytest.mark.parametrize("label", [None, 0])
def test_without_signal_there_is_nothing_to_compare(tmp_path, label):
    events = random_events(30)
    noise = replace(events, label=np.zeros_like(events.label))
    empty = events_of(SMALL, [0, 0, 0], [], [], [], [])
    text = text_of(look(write(tmp_path / "a.h5", empty if label is None else noise)))
    assert "dense-imb compare" not in text


def test_a_hot_pixel_names_the_noise_as_a_config_does(tmp_path):
    clean = degrade(simulate("arc", 300, seed=3), Degradation(signal=30, noise=200), seed=3)
    x, y = clean.x.copy(), clean.y.copy()
    x[clean.offset[:-1]], y[clean.offset[:-1]] = 7, 9
    (line,) = look(write(tmp_path / "hot.h5", replace(clean, x=x, y=y))).numbers["warnings"]
    assert "hot_pixels" in line
    assert "HotPixels" not in line
