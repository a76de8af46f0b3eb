"""One kind of error for files that cannot be read, whatever the decoder raised."""

from __future__ import annotations

import os
import pickle
import zipfile
import zlib
from pathlib import Path
from struct import error as StructError

import h5py
import numpy as np
import pytest

from dense_imb.base.files import (
    UnreadableFileError,
    check_space,
    clear_leftovers,
    decoding,
    refuse_existing,
    refuse_inputs,
    write_whole,
    write_whole_folder,
)
from dense_imb.base.hdf5 import list_datasets, open_file
from dense_imb.data.images.labelled import open_labelled
from dense_imb.hits import HitsFile, HitsFileError, HitsWriter
from tests.hits.files import FRAME
from tests.leftovers import ended_process, leave_behind


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


# files that a killed process left behind


def test_leftovers_of_ended_processes_go_with_the_next_write(tmp_path):
    mine = [leave_behind(tmp_path / name) for name in ("a.csv", "step-00000004.pt")]
    (tmp_path / "x.tgz.partial").write_text("a download of somebody else's")
    (tmp_path / "a.csv.12.partial").write_text("a name that another program may have chosen")
    running = leave_behind(tmp_path / "b.csv", os.getppid())
    elsewhere = tmp_path / f".c.csv.ffffff-{ended_process()}-1.partial"
    elsewhere.write_text("of another machine, where it may still be written")
    write_whole(tmp_path / "a.csv", lambda to: to.write_text("1"))
    assert not any(path.exists() for path in mine)
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.csv", "a.csv.12.partial", "x.tgz.partial", running.name, elsewhere.name,
    }  # fmt: skip


def test_a_folder_that_was_about_to_be_replaced_gets_its_name_back(tmp_path):
    left = tmp_path / "natural"
    left.mkdir()
    (left / "a").write_text("1")
    old = leave_behind(tmp_path / "natural", suffix="old")
    old.unlink()
    left.rename(old)
    new = leave_behind(tmp_path / "natural")
    clear_leftovers(tmp_path)
    assert not new.exists()
    assert (tmp_path / "natural" / "a").read_text() == "1"
    # after both renames, the old one is of no use
    old.mkdir()
    clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["natural"]


def test_a_folder_is_never_missing_while_it_is_replaced(tmp_path, monkeypatch):
    place, missing = tmp_path / "natural", []
    write_whole_folder(place, lambda to: (to / "a").write_text("1"))
    rename = Path.rename

    def watched(self, target):
        missing.append(self)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    write_whole_folder(place, lambda to: (to / "b").write_text("2"))
    assert not missing  # swapped in one step
    assert [path.name for path in place.iterdir()] == ["b"]
    assert list(tmp_path.iterdir()) == [place]


def test_long_names_have_temporary_ones(tmp_path):
    name = "ü" * 125 + ".csv"
    write_whole(tmp_path / name, lambda to: to.write_text("1"))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_disk_that_is_full_at_once_leaves_no_hits_file(tmp_path, monkeypatch):
    def full(path, *arguments, **options):
        Path(path).touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(h5py, "File", full)
    with pytest.raises(OSError, match="No space"), HitsWriter(tmp_path / "a.h5", FRAME):
        pass
    assert not list(tmp_path.iterdir())


# outputs that are inputs


def test_outputs_are_apart_from_the_inputs_under_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "raw.h5"
    raw.write_text("1")
    (tmp_path / "folder").mkdir()
    os.symlink(raw, "link.h5")
    os.link(raw, "hard.h5")
    os.symlink(tmp_path, "again")
    for name in ("raw.h5", "folder/../raw.h5", "link.h5", "hard.h5", "again/raw.h5", raw):
        with pytest.raises(ValueError, match="Expected an output apart from the inputs") as refused:
            refuse_inputs([tmp_path / "new.h5", name], [None, "none.h5", raw])
        assert ("which is" in str(refused.value)) == (name != raw)
    with pytest.raises(ValueError, match=r"which holds raw\.h5"):
        refuse_inputs([tmp_path], ["raw.h5"])
    with pytest.raises(ValueError, match=r"got new\.h5 twice"):
        refuse_inputs(["folder/../new.h5", "new.h5"], [raw])
    refuse_inputs(["new.h5", "folder"], [raw, "none.h5"])
