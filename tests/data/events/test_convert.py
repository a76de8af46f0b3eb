"""To hits and back: the same frames, and a sentence with the cure for what does not fit."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from dense_imb.base import files
from dense_imb.data.events import dense, placing
from dense_imb.data.events.convert import to_hits
from dense_imb.data.events.dense import to_frames
from dense_imb.data.events.formats import (
    csv_source,
    frames_source,
    hdf5_hits_source,
    npy_source,
    npz_source,
)
from dense_imb.hits import HitsFile, open_hits, verify
from tests.data.events.other_formats import HEIGHT, STEPS, WIDTH, frames, labels_of
from tests.hits.files import assert_same, some_events, write

TIME = frames()
LABEL = labels_of(TIME)


def hits_of(folder, time=TIME, label=LABEL, **options):
    to_hits(frames_source("a", time, label), folder / "hits.h5", progress=False, **options)
    return folder / "hits.h5"


def test_the_largest_time_and_the_units_are_declared(tmp_path):
    path = hits_of(tmp_path, x_mm=0.055, t_ns=1.5)
    verify(path)
    geometry = HitsFile(path).geometry
    assert (geometry.width, geometry.height, geometry.time_steps) == (WIDTH, HEIGHT, TIME.max())
    assert (geometry.x_mm, geometry.y_mm, geometry.t_ns) == (0.055, None, 1.5)
    assert HitsFile(path).columns["/hit/t"] == np.uint16


@pytest.mark.parametrize(
    ("scale", "offset", "wanted"),
    [(1, 0, [0, 9]), (1, 1, [1, 10]), (2, 1, [1, 19]), (0.5, 1.5, [1.5, 6])],
)
def test_times_are_scaled_and_moved(tmp_path, scale, offset, wanted):
    (tmp_path / "a.csv").write_text("event,x,y,t\n0,0,0,0\n0,1,1,9\n")
    source = csv_source(tmp_path / "a.csv")
    options = {"width": 2, "height": 2, "time_scale": scale, "time_offset": offset}
    if wanted[0] == 0:
        with pytest.raises(ValueError, match=r"`t` of .* got 0 in event 0; .*`time_offset=1`"):
            to_hits(source, tmp_path / "a.h5", **options, progress=False)
        assert not (tmp_path / "a.h5").exists()
    else:
        to_hits(source, tmp_path / "a.h5", **options, progress=False)
        assert HitsFile(tmp_path / "a.h5")[:].t.tolist() == wanted


def test_uint8_times_do_not_wrap_around(tmp_path):
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["x"], file["y"] = np.zeros((2, 1), np.uint8)
        file["t"], file["offset"] = np.array([255], np.uint8), np.array([0, 1])
    source = hdf5_hits_source(tmp_path / "flat.h5")
    options = {"width": 1, "height": 1, "time_offset": 1, "progress": False}
    to_hits(source, tmp_path / "a.h5", **options)
    assert HitsFile(tmp_path / "a.h5")[:].t.tolist() == [256]


@pytest.mark.parametrize(
    ("row", "options", "sentence"),
    [
        ("7,2,1,3", {"width": 2}, "`x` of .* from 0 to 1, got 2 in event 1; .*`width` of at least"),
        ("7,0,4,3", {"width": 2}, "`y` of .* from 0 to 1, got 4 .*`height` of at least 5"),
        ("7,-1,1,3", {"width": 2}, "`x` of .*number the pixels from 0"),
        ("7,1,1,9", {"width": 2, "time_steps": 8}, "`time_steps` of at least 9"),
        ("7,1,1,nan", {"width": 2, "time_steps": 8}, "got nan in event 1; remove that hit"),
        ("7,1,1,700", {"width": 2, "time_steps": 8}, "`time_steps` of at least 700, or a `time_s"),
        ("7,1,1,70000", {"width": 2}, "; a `time_scale`, or bin times in ns with `bin=t=WIDTH`, "),
        ("7,1.5,1,3", {"width": 2}, "whole numbers in `x` of .*, got 1.5 in event 1; bin coord"),
        ("7,1.5,1,3", {"width": 2}, "`bin=x=WIDTH`, or keep .* with `sensors=x,y,z`"),
        ("7,nan,1,3", {"width": 2}, "`x` of .* from 0 to 1, got nan in event 1; remove that hit"),
        ("7,1,1,1", {}, r"Expected the `width` of the frame .*with `width`"),
        ("7,1,1,1", {"width": 2, "time_scale": 0}, "`time_scale` above 0"),
    ],
)
def test_what_does_not_fit_comes_with_its_cure(tmp_path, row, options, sentence):
    (tmp_path / "a.csv").write_text(f"event,x,y,t\n0,0,0,1\n{row}\n")
    source = csv_source(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=sentence):
        to_hits(source, tmp_path / "a.h5", height=2, progress=False, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_labels_that_do_not_fit_can_be_made_binary(tmp_path):
    label = LABEL.astype(int) * 300
    with pytest.raises(ValueError, match="0 to 255, got .*`binary_labels`"):
        hits_of(tmp_path, label=label)
    events = HitsFile(hits_of(tmp_path, label=label, binary_labels=True))[:]
    assert set(events.label.tolist()) == {1}


@pytest.mark.parametrize("kind", ["npy", "npz", "h5", "png"])
@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_back_to_the_same_frames(tmp_path, monkeypatch, kind, at_once):
    monkeypatch.setattr(dense, "BATCH_BYTES", 16 * HEIGHT * WIDTH * at_once)
    target = tmp_path / ("frames" if kind == "png" else f"frames.{kind}")
    labels = {"npy": tmp_path / "labels.npy", "png": tmp_path / "labels"}.get(kind)
    hits = open_hits(hits_of(tmp_path))
    assert to_frames(hits, target, labels=labels, progress=False) == 0
    if kind == "npy":
        time, label = np.load(target), np.load(labels)
    elif kind == "npz":
        with np.load(target) as archive:
            time, label = archive["frames"], archive["labels"]
    elif kind == "h5":
        with h5py.File(target) as file:
            assert file["frames"].chunks == (1, HEIGHT, WIDTH)
            time, label = file["frames"][:], file["labels"][:]
    else:
        time, label = (
            np.stack([np.array(Image.open(path)) for path in sorted(folder.iterdir())])
            for folder in (target, labels)
        )
    assert time.dtype == np.uint16
    assert label.dtype == np.uint8
    assert np.array_equal(time, TIME)
    assert np.array_equal(label, LABEL)
    with pytest.raises(FileExistsError, match="with `overwrite`"):
        to_frames(hits, target, progress=False)
    to_frames(hits, target, overwrite=True, progress=False)
    left = {"hits.h5", target.name} | ({labels.name} if labels else set())
    assert {path.name for path in tmp_path.iterdir()} == left


def test_npz_written_is_npz_read(tmp_path):
    to_frames(open_hits(hits_of(tmp_path)), tmp_path / "a.npz", progress=False)
    source = npz_source(tmp_path / "a.npz", "frames", "labels")
    to_hits(source, tmp_path / "again.h5", progress=False)
    assert_same(HitsFile(tmp_path / "again.h5")[:], HitsFile(tmp_path / "hits.h5")[:])


def test_hidden_hits_are_counted_and_the_rule_decides(tmp_path):
    path = write(tmp_path / "hits.h5", some_events(50, mean=2000))
    shown = {}
    for rule in ("largest", "smallest", "count"):
        hidden = to_frames(open_hits(path), tmp_path / f"{rule}.npy", rule=rule, progress=False)
        shown[rule] = np.load(tmp_path / f"{rule}.npy")
        assert hidden == HitsFile(path).n_hits - (shown[rule] > 0).sum()
    assert hidden > 0
    assert (shown["smallest"] <= shown["largest"]).all()
    assert shown["count"].sum() == HitsFile(path).n_hits


def test_fractions_of_times_need_floats(tmp_path):
    hits = open_hits(hits_of(tmp_path, TIME * 1.5))
    with pytest.raises(ValueError, match="fractions; write"):
        to_frames(hits, tmp_path / "images", progress=False)
    to_frames(hits, tmp_path / "a.npy", progress=False)
    assert np.array_equal(np.load(tmp_path / "a.npy"), (TIME * 1.5).astype(np.float32))


def test_a_folder_with_other_files_is_never_replaced(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "thesis.tex").touch()
    with pytest.raises(FileExistsError):
        to_frames(open_hits(hits_of(tmp_path)), tmp_path / "images", overwrite=True, progress=False)
    assert (tmp_path / "images" / "thesis.tex").exists()


@pytest.mark.parametrize("step", ["save", "rename"])
def test_images_replace_the_old_ones_all_or_none(tmp_path, monkeypatch, step):
    hits = open_hits(hits_of(tmp_path))
    to_frames(hits, tmp_path / "images", progress=False)

    monkeypatch.setattr(files, "_exchange", lambda *paths: False)  # as on old systems

    def fail(*arguments, **options):
        if step == "save" or ".partial" in str(arguments[0]):
            raise OSError("the disk is full")
        return rename(*arguments)

    rename = Path.rename
    monkeypatch.setattr(*((Image.Image, "save") if step == "save" else (Path, "rename")), fail)
    with pytest.raises(OSError, match="the disk is full"):
        to_frames(hits, tmp_path / "images", overwrite=True, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hits.h5", "images"]
    assert len(list((tmp_path / "images").iterdir())) == len(TIME)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    hits = open_hits(hits_of(tmp_path))
    usage = files.shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    for name in ("a.npy", "a.h5"):
        with pytest.raises(OSError, match="Expected room for"):
            to_frames(hits, tmp_path / name, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["hits.h5"]


def test_a_file_without_events_goes_both_ways(tmp_path):
    path = hits_of(tmp_path, TIME[:0], LABEL[:0])
    assert len(HitsFile(path)) == 0
    for name in ("a.npy", "a.npz", "a.h5", "images"):
        to_frames(open_hits(path), tmp_path / name, progress=False)
    assert np.load(tmp_path / "a.npy").shape == (0, HEIGHT, WIDTH)
    to_hits(npy_source(tmp_path / "a.npy"), tmp_path / "b.h5", progress=False)


def test_most_steps_is_what_a_geometry_takes():
    assert placing.MOST_STEPS == 65536
    assert STEPS < 65536


@pytest.mark.parametrize(
    ("labels", "noise", "wanted"),
    [
        ([0, 1, 2, 3], 2, [1, 2, 0, 3]),
        ([0, 1, 2, 3], 0, [0, 1, 2, 3]),
        ([1, 2, 3], 1, [0, 1, 2]),
        ([1, 2, 3], 3, [1, 2, 0]),
        ([1, 2, 3], 2, [1, 0, 2]),
        ([0, 255], 255, [1, 0]),
    ],
)
def test_the_noise_label_becomes_0_and_the_others_count_from_1(tmp_path, labels, noise, wanted):
    time = np.ones((1, 1, len(labels)), np.int64)
    label = np.array(labels).reshape(time.shape)
    path = hits_of(tmp_path, time, label, noise_label=noise)
    assert HitsFile(path)[:].label.tolist() == wanted
    path = hits_of(tmp_path, time, label, noise_label=noise, binary_labels=True, overwrite=True)
    assert HitsFile(path)[:].label.tolist() == [int(one > 0) for one in wanted]


def test_a_noise_label_that_no_hit_has_is_refused(tmp_path):
    with pytest.raises(ValueError, match="noise label 9 in a, got 1, 2"):
        hits_of(tmp_path, noise_label=9)
    with pytest.raises(ValueError, match="`noise_label` from 0 to 255, got 256"):
        hits_of(tmp_path, noise_label=256)
    with pytest.raises(ValueError, match="noise label 1 in a, got no labels"):
        hits_of(tmp_path, label=None, noise_label=1)
    assert not (tmp_path / "hits.h5").exists()
