"""Key points in CSV files, and the HDF5 files made from them."""

from __future__ import annotations

import json
import math

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from dense_imb.data.values.key_point_tables import KeyPoints, read_key_points, write_key_points
from dense_imb.data.values.key_points import find_points
from dense_imb.data.values.write import write_heat_maps, write_values

PLAIN = "image,snout_x,snout_y,left_ear_x,left_ear_y\na.png,1.5,2.25,,\nb.png,3,4,5.125,6\n"
THEIRS = """scorer,me,me,me,me
bodyparts,snout,snout,left_ear,left_ear
coords,x,y,x,y
a.png,1.5,2.25,,
b.png,3,4,5.125,6
"""
NEWER = """scorer,,,me,me,me,me,me,me
bodyparts,,,snout,snout,snout,left_ear,left_ear,left_ear
coords,,,x,y,likelihood,x,y,likelihood
labeled-data,day,a.png,1.5,2.25,0.9,nan,nan,0.1
labeled-data,day,b.png,3,4,1,5.125,6,0.8
"""
POINTS = np.array([[[1.5, 2.25], [math.nan, math.nan]], [[3, 4], [5.125, 6]]])


def table_in(folder, text):
    path = folder / "points.csv"
    path.write_text(text)
    return path


def frames_in(folder, size=(12, 10), names=("a.png", "b.png")):
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        Image.new("L", size, 40 * k).save(folder / name)
    return folder


@pytest.mark.parametrize("text", [PLAIN, THEIRS, NEWER], ids=["plain", "deeplabcut", "newer"])
def test_layouts_hold_the_same_points(text, tmp_path):
    table = read_key_points(table_in(tmp_path, text))
    assert table.names == ("snout", "left_ear")
    folder = "labeled-data/day/" if text is NEWER else ""
    assert table.images == (f"{folder}a.png", f"{folder}b.png")
    np.testing.assert_array_equal(table.points, POINTS)


@pytest.mark.parametrize("layout", ["plain", "deeplabcut"])
def test_written_tables_read_back(layout, tmp_path):
    points = np.random.default_rng(0).random((2, 2, 2)) * 9
    points[0, 1] = math.nan
    table = KeyPoints(("a.png", "day 2/b, c.png"), ("snout", "ear"), points)
    path = tmp_path / "points.csv"
    write_key_points(table, path, layout=layout)
    again = read_key_points(path)
    assert (again.images, again.names) == (table.images, table.names)
    np.testing.assert_array_equal(again.points, points)
    with pytest.raises(FileExistsError, match="choose another name"):
        write_key_points(table, path)
    write_key_points(table, path, overwrite=True)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (PLAIN.replace("left_ear", "snout"), "once in .*, got 'snout' twice; rename"),
        (THEIRS.replace("left_ear", "snout"), "once in .*, got 'snout' twice; rename"),
        (PLAIN.replace("b.png", "a.png"), "each image in .*, got two for a.png; remove"),
        (PLAIN.replace("left_ear_y", "left_ear_z"), "got 'left_ear_z'; rename or remove it"),
        (PLAIN.replace(",6\n", ",\n"), "b.png in .*, or two empty cells, got '5.125' and"),
        (PLAIN.replace("2.25", "2,25"), "5 cells in each row of .*, got 6 in row 2"),
        (PLAIN.replace("2.25", "far"), "numbers for snout of a.png in .*, got could not convert"),
        (PLAIN.replace("2.25", "inf"), "snout of a.png in .*, or two empty cells"),
        (THEIRS.replace("bodyparts", "individuals"), "one animal in .*; write a file for each"),
        (THEIRS.replace("coords", "coord"), "header lines scorer, bodyparts and coords in"),
        (THEIRS.replace("x,y,x,y", "x,y,x,z"), "of left_ear in .*, got no y; add its column"),
        (PLAIN.split("\n")[0], "a row for each image in .*, got none below its header"),
        ("", "columns image, NAME_x, NAME_y in .*, got nothing first"),
        ("image\na.png\n", "at least one key point in"),
    ],
)  # fmt: skip
def test_bad_tables_are_one_sentence(text, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence) as refused:
        read_key_points(table_in(tmp_path, text))
    assert "\n" not in str(refused.value)


def test_missing_files_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="a CSV file of key points, got .*none.csv, which is none"):
        read_key_points(tmp_path / "none.csv")
    table = read_key_points(table_in(tmp_path, PLAIN))
    with pytest.raises(ValueError, match="a folder of images, got .*none, which is none"):
        table.find_images(tmp_path / "none")
    with pytest.raises(ValueError, match="got none for b.png; add them or remove their rows"):
        table.find_images(frames_in(tmp_path / "images", names=("a.png",)))


def test_images_are_found_with_and_without_their_folders(tmp_path):
    table = read_key_points(table_in(tmp_path, NEWER))
    flat, deep = tmp_path / "flat", tmp_path / "deep"
    for folder in (frames_in(flat), frames_in(deep / "labeled-data" / "day")):
        root = flat if folder == flat else deep
        assert table.find_images(root) == [folder / "a.png", folder / "b.png"]


def test_parts_follow_the_order_of_the_table():
    names = tuple(f"{k}.png" for k in range(10))
    table = KeyPoints(names, ("snout",), np.arange(20.0).reshape(10, 1, 2))
    first, second = table.divide([0.8, 0.2])
    assert (first.images, second.images) == (names[:8], names[8:])
    np.testing.assert_array_equal(np.concatenate([first.points, second.points]), table.points)
    with pytest.raises(ValueError, match="an image in each part, got 10 images for shares 1, 0.01"):
        table.divide([1, 0.01])
    with pytest.raises(ValueError, match="`shares` above 0"):
        table.divide([1, -1])


def test_tables_refuse_names_that_are_there_twice():
    with pytest.raises(
        ValueError, match="each key point once, got 'snout' twice; rename or remove"
    ):
        KeyPoints(("a",), ("snout", "snout"), np.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match="each image once, got 'a' twice"):
        KeyPoints(("a", "a"), ("snout",), np.zeros((2, 1, 2)))
    with pytest.raises(ValueError, match=r"\(1 images, 1 names, 2\), got \(1, 1, 3\)"):
        KeyPoints(("a",), ("snout",), np.zeros((1, 1, 3)))


def test_heat_maps_and_images_are_data_sets(tmp_path):
    table = read_key_points(table_in(tmp_path, PLAIN))
    images, path = frames_in(tmp_path / "images"), tmp_path / "maps.h5"
    assert write_heat_maps(table, images, path, 1.5) == 2
    with h5py.File(path) as file:
        assert file["image"].shape == (2, 1, 10, 12)
        assert file["image"].attrs["channel_axis"] == 1
        assert file["image"][:, 0, 0, 0].tolist() == [0, 40]
        assert json.loads(file["target"].attrs["names"]) == ["snout", "left_ear"]
        assert file["name"][:].tolist() == [b"a.png", b"b.png"]
        np.testing.assert_array_equal(file["points"][:], table.points)
        peaks = find_points(torch.from_numpy(file["target"][:]))
    np.testing.assert_allclose(peaks.points.numpy(), table.points, atol=1e-3)
    with pytest.raises(FileExistsError, match="overwrite"):
        write_heat_maps(table, images, path, 1.5)


def test_a_point_outside_its_image_is_named_and_nothing_is_written(tmp_path):
    table = read_key_points(table_in(tmp_path, PLAIN.replace("5.125", "12.5")))
    images = frames_in(tmp_path / "images")
    with pytest.raises(
        ValueError,
        match="key points of b.png inside its 12 x 10 pixels, got left_ear at x = 12.5, y = 6; "
        "correct it, or leave its cells empty",
    ):
        write_heat_maps(table, images, tmp_path / "maps.h5", 1.5)
    assert not list(tmp_path.glob("maps*"))
    with pytest.raises(ValueError, match="`sigma` above 0"):
        write_heat_maps(table, images, tmp_path / "maps.h5", 0.0)


def test_samples_of_another_size_or_none_are_refused(tmp_path):
    path = tmp_path / "values.h5"
    samples = [{"image": np.zeros((1, 4, 4))}, {"image": np.zeros((1, 4, 5))}]
    with pytest.raises(
        ValueError, match=r"`image` of sample 1 like that of the first, \(1, 4, 4\)"
    ):
        write_values(path, samples)
    with pytest.raises(ValueError, match="samples for .*, got none"):
        write_values(path, [])
    assert list(tmp_path.iterdir()) == []
