"""One kind of error for files that cannot be read, whatever the decoder raised."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from struct import error as StructError

import h5py
import numpy as np
import pytest

from dense_imb.base.files import UnreadableFileError, check_space, decoding, refuse_existing
from dense_imb.base.hdf5 import list_datasets, open_file
from dense_imb.data.images.labelled import open_labelled
from dense_imb.hits import HitsFile, HitsFileError


@pytest.mark.parametrize(
    "problem",
    [KeyError("a"), StructError("short"), zipfile.BadZipFile("no zip"), zlib.error("-3"),
     pickle.UnpicklingError("b"), OSError("cannot identify"), RecursionError(), SyntaxError("x")],
    ids=lambda problem: type(problem).__name__,
)  # fmt: skip
def test_exceptions_of_decoders_become_one_sentence(problem):
    with (
        pytest.raises(UnreadableFileError, match=r"^Expected an image in a\.png, got .+\.$"),
        decoding("an image in a.png"),
    ):
        raise problem


@pytest.mark.parametrize(
    "problem", [FileNotFoundError(2, "no such file", "a"), MemoryError(), ImportError("nibabel")]
)
def test_exceptions_with_another_cause_pass(problem):
    with pytest.raises(type(problem)) as raised, decoding("an image in a.png"):
        raise problem
    assert raised.value is problem


def test_inner_sentences_are_kept():
    with (
        pytest.raises(UnreadableFileError, match=r"^Expected b\.$"),
        decoding("a"),
        decoding("c"),
    ):
        raise UnreadableFileError("Expected b.")


def test_long_reasons_stay_on_one_line():
    with pytest.raises(UnreadableFileError, match=r"got one two\.$"), decoding("a"):
        raise ValueError("one\n  two.\n\nand much more")


def test_images_and_hits_fail_with_errors_of_their_own(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"nothing")
    with pytest.raises(UnreadableFileError, match="Expected images and masks at") as raised:
        open_labelled(path)
    assert not isinstance(raised.value, HitsFileError)
    with pytest.raises(HitsFileError, match="Expected a hits file at") as raised:
        HitsFile(path)
    assert isinstance(raised.value, UnreadableFileError)
    with h5py.File(path, "w") as file:
        file["image"] = file["mask"] = h5py.SoftLink("/elsewhere")
    with pytest.raises(UnreadableFileError, match="stored in place") as raised:
        open_labelled(path)
    assert not isinstance(raised.value, HitsFileError)
    with pytest.raises(HitsFileError, match="stored in place"):
        HitsFile(path)


def test_groups_are_walked_once(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/data"] = np.arange(3)
        file["group/again"] = file["/"]  # a circle
    with open_file(tmp_path / "a.h5") as file:
        assert list(list_datasets(file, tmp_path / "a.h5")) == ["group/data"]


def test_outputs_that_exist_are_refused(tmp_path):
    (tmp_path / "a").write_text("1")
    with pytest.raises(FileExistsError, match="overwrite it with `overwrite`"):
        refuse_existing(tmp_path / "a", overwrite=False)
    refuse_existing(tmp_path / "a", overwrite=True)
    with pytest.raises(IsADirectoryError, match="Expected a file name, got the folder"):
        refuse_existing(tmp_path, overwrite=True)


def test_a_disk_without_room_is_refused(tmp_path):
    check_space(tmp_path / "a", 1)
    with pytest.raises(OSError, match="Expected room for .* MB for a, got .* free in"):
        check_space(tmp_path / "a", 1 << 62)
