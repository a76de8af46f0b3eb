"""Slow chunks are found and cured, and nothing else in the file changes unsaid."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from tests.data.events.other_formats import frames
from tests.data_tools.scripts import load

layouts, repack = load("repack").measure_layouts, load("repack").repack
TIME = np.concatenate([frames(200, seed) for seed in range(3)])


@pytest.fixture
def slow(tmp_path):
    with h5py.File(tmp_path / "slow.h5", "w") as file:
        file.create_dataset("a/frames", data=TIME, chunks=(300, 2, 4), compression="gzip")
        file["a"].attrs["detector"] = np.bytes_("B06")
        file["a"].attrs["story"] = "of variable length"
        file["a/frames"].attrs["scale"] = 2.5
        file["run"] = np.arange(600)
        file.create_dataset("grown", shape=(3,), maxshape=(None,), chunks=(100,), data=[1, 2, 3])
        file["version"] = 3
        file["names"] = ["one", "two"]
        file.attrs["year"] = 2015
    return tmp_path / "slow.h5"


def test_the_cost_of_a_frame_is_that_of_its_chunks(slow):
    (found,) = layouts(slow)
    # a frame of 5 x 7 lies in 3 x 2 chunks of 2 x 4, each 300 frames deep
    assert found.cost == pytest.approx(300 * (3 * 2) * (2 * 4) / (5 * 7))
    assert found.is_slow
    assert found.frames_per_s > 0
    assert "SLOW" in str(found)
    assert "a chunk spans 300 frames" in str(found)


def test_one_frame_a_chunk_and_the_same_values(slow, tmp_path):
    left_out = repack(slow, tmp_path / "fast.h5", progress=False)
    assert sorted(left_out) == ["/a@story", "/names"]
    (found,) = layouts(tmp_path / "fast.h5")
    assert (found.chunks, found.cost, found.is_slow) == ((1, 5, 7), 1.0, False)
    with h5py.File(tmp_path / "fast.h5") as file:
        assert np.array_equal(file["a/frames"][:], TIME)
        assert file["a/frames"].dtype == TIME.dtype
        assert np.array_equal(file["run"][:], np.arange(600))
        assert file["grown"][:].tolist() == [1, 2, 3]
        assert file["version"][()] == 3
        assert file["a"].attrs["detector"] == b"B06"
        assert file["a/frames"].attrs["scale"] == 2.5
        assert file.attrs["year"] == 2015


def test_a_file_is_never_packed_into_itself(slow, tmp_path):
    before = slow.read_bytes()
    with pytest.raises(FileExistsError, match="with `overwrite`"):
        repack(slow, slow, progress=False)
    with pytest.raises(ValueError, match="an output apart from the inputs"):
        repack(slow, slow, overwrite=True, progress=False)
    assert slow.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["slow.h5"]


def test_contiguous_frames_and_one_a_chunk_are_fine(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["plain"] = TIME
        file.create_dataset("good", data=TIME, chunks=(1, 5, 7), compression="gzip")
    assert [layout.cost for layout in layouts(tmp_path / "a.h5")] == [1, 1]


def test_links_out_of_the_file_are_refused(slow, tmp_path):
    with h5py.File(slow, "r+") as file:
        file["a/secret"] = h5py.ExternalLink("/etc/passwd", "x")
    with pytest.raises(ValueError, match="stored in place, got a ExternalLink"):
        repack(slow, tmp_path / "fast.h5", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["slow.h5"]
