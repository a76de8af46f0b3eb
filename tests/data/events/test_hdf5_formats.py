"""HDF5 of other people: flat arrays and frames arrive whole, and dangers are refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from dense_imb.data.events.formats import hdf5_frames_source, hdf5_hits_source, source
from tests.data.events.other_formats import dense, frames, labels_of, read

PLACES = {"x": "photon/col", "y": "photon/row", "t": "photon/t", "offset": "event/offset"}
KEPT = ["photon/chid", "event/trigger"]


@pytest.fixture
def flat(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["event/offset"] = np.array([0, 4, 4, 9, 10], np.uint32)
        file["event/trigger"] = np.array([4, 1024, 4, -1], np.int32)
        for name, top in (("col", 7), ("row", 5), ("t", 100), ("chid", 1440), ("label", 2)):
            file[f"photon/{name}"] = rng.integers(0, top, 10).astype(np.uint16)
    return tmp_path / "flat.h5"


@pytest.mark.parametrize("at_once", [1, 3, 5, 100])
def test_flat_arrays_arrive_whatever_the_batches(flat, monkeypatch, at_once):
    monkeypatch.setattr(source, "BATCH_HITS", at_once)
    events = read(hdf5_hits_source(flat, {**PLACES, "label": "photon/label"}, keep=KEPT))
    with h5py.File(flat) as file:
        assert events.offset.tolist() == file["event/offset"][:].tolist()
        for name, place in (("x", "col"), ("y", "row"), ("t", "t"), ("label", "label")):
            assert np.array_equal(events.hit_columns()[name], file[f"photon/{place}"][:])
        assert np.array_equal(events.hit["chid"], file["photon/chid"][:])
        assert np.array_equal(events.event["trigger"], file["event/trigger"][:])


def change(path, name, **options):
    with h5py.File(path, "r+") as file:
        del file[name]
        if "link" in options:
            file[name] = options["link"]
        else:
            file.create_dataset(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("photon/t", {"link": h5py.ExternalLink("/etc/passwd", "t")}, "stored in place, got a Ext"),
        ("photon/t", {"link": h5py.SoftLink("/photon/col")}, "stored in place, got a SoftLink"),
        ("photon", {"link": h5py.ExternalLink("/etc/passwd", "t")}, "stored in place, got a Ext"),
        (
            "photon/t",
            {"shape": (10,), "dtype": "u2", "external": [("/etc/passwd", 0, 20)]},
            "external storage",
        ),
        ("photon/t", {"shape": (10**12,), "dtype": "u8", "chunks": (10,)}, "declared and 0.0 MB"),
        ("photon/t", {"data": np.arange(9)}, "one row for each of the 10 hits"),
        ("photon/t", {"data": [b"a"] * 10}, "Expected rows of numbers in `photon/t`"),
        ("photon/t", {"data": 7}, "Expected rows of numbers in `photon/t`"),
        ("event/offset", {"data": np.array([0, 4, 3, 9, 10])}, "never to decrease"),
        ("event/offset", {"data": np.array([0, 4])}, "end with the number of hits"),
        ("event/offset", {"data": np.array([0.0, 10.0])}, "whole numbers in one dimension"),
    ],
)
def test_a_foreign_file_is_refused_by_name(flat, name, options, sentence):
    change(flat, name, **options)
    with pytest.raises(ValueError, match=sentence):
        read(hdf5_hits_source(flat, PLACES))


def test_circles_of_links_end(flat):
    with h5py.File(flat, "r+") as file:
        file["photon/again"] = file["/"]
    assert len(read(hdf5_hits_source(flat, PLACES))) == 4


def test_a_missing_place_is_named_with_those_there(flat):
    with pytest.raises(ValueError, match=r"'photon/toa' in .*got only event/offset"):
        hdf5_hits_source(flat, {**PLACES, "t": "photon/toa"})
    with pytest.raises(ValueError, match="got `chid` twice"):
        hdf5_hits_source(flat, PLACES, keep=["photon/chid", "photon/chid"])


@pytest.mark.parametrize("chunks", [None, True, (1, 5, 7), (4, 2, 3)])
def test_frames_arrive_whatever_the_chunks(tmp_path, chunks):
    time = frames(20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data/frames", data=time, chunks=chunks)
        file.create_dataset("data/labels", data=labels_of(time), chunks=chunks)
        file["run"] = np.arange(20)
    source = hdf5_frames_source(tmp_path / "a.h5", labels="/data/labels")
    events = read(source)
    assert np.array_equal(dense(events), time)
    assert np.array_equal(dense(events, events.label), labels_of(time))
    with pytest.raises(ValueError, match=r"one of \['data/frames', 'data/labels'\], got none"):
        hdf5_frames_source(tmp_path / "a.h5")
