"""Labels in a CSV file, images in a folder; and what can be wrong with them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dense_imb.data.labels.tables import open_table


def folder_of(
    folder: Path, n: int = 6, size: tuple[int, int] = (8, 10), suffix: str = ".png"
) -> list[str]:
    """Image files, each of a colour of its own; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for i in range(n):
        pixels = np.full((*size, 3), 10 * i, np.uint8)
        pixels[0, 0] = 255, 0, 7
        Image.fromarray(pixels).save(folder / f"pic_{i}{suffix}")
        names.append(f"pic_{i}{suffix}")
    return names


def write_rows(path: Path, rows: list[tuple[str, object]], columns=("image", "label")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


@pytest.fixture
def names(tmp_path) -> list[str]:
    return folder_of(tmp_path / "images")


def opened(tmp_path: Path, rows, **options):
    path = write_rows(tmp_path / "table.csv", rows, options.pop("columns", ("image", "label")))
    return open_table(path, tmp_path / "images", show_progress=False, **options)


def test_rows_become_images_with_labels(tmp_path, names):
    labels = [2, 0, 1, 0, 2, 1]
    data = opened(tmp_path, zip(names, labels, strict=True))
    assert data.labels.tolist() == labels
    assert data.class_names == ("0", "1", "2")
    assert data.size == (8, 10)
    assert data.image(3)[:, 5, 5].tolist() == [30, 30, 30]
    assert data.image(3)[:, 0, 0].tolist() == [255, 0, 7]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPG", ".tiff"])
def test_names_may_lack_the_suffix(tmp_path, suffix):
    names = folder_of(tmp_path / "images", suffix=suffix)
    data = opened(tmp_path, [(name.removesuffix(suffix), i % 2) for i, name in enumerate(names)])
    assert [path.name for path in data.source.paths] == names


def test_class_names_have_the_order_that_is_given(tmp_path, names):
    cells = ["melanoma", "nevus", "1", "nevus", "0", "melanoma"]
    data = opened(tmp_path, zip(names, cells, strict=True), classes=["nevus", "melanoma"])
    assert data.labels.tolist() == [1, 0, 1, 0, 0, 1]
    as_floats = opened(tmp_path, [(name, "1.0") for name in names], classes=["0", "1"])
    assert as_floats.labels.tolist() == [1] * 6


def test_columns_by_name_and_a_table_beside_its_images(tmp_path, names):
    rows = [(k, name, "x") for k, name in zip([0, 1] * 3, names, strict=True)]
    path = write_rows(tmp_path / "images" / "t.csv", rows, ("level", "file", "more"))
    data = open_table(path, name_column="file", label_column="level", show_progress=False)
    assert data.labels.tolist() == [0, 1] * 3
    with pytest.raises(ValueError, match="Expected a column 'grade' in .*, got level, file, more"):
        open_table(path, name_column="file", label_column="grade")


def test_images_are_resized_to_one_size(tmp_path, names):
    other = folder_of(tmp_path / "images" / "more", 2, (30, 20))
    rows = [*((name, 0) for name in names), *((f"more/{name}", 1) for name in other)]
    with pytest.raises(ValueError, match=r"one size .* 8 x 10 in pic_0.png and 30 x 20 in pic_0"):
        opened(tmp_path, rows)
    data = opened(tmp_path, rows, size=(4, 6))
    assert data.images(range(8)).shape == (8, 3, 4, 6)
    assert (data.image(7)[:, 2:, 2:] == 10).all()


def test_grey_and_see_through_images_become_colours(tmp_path, names):
    Image.new("L", (10, 8), 99).save(tmp_path / "images" / names[0])
    Image.new("RGBA", (10, 8), (1, 2, 3, 0)).save(tmp_path / "images" / names[1])
    data = opened(tmp_path, [(name, i % 2) for i, name in enumerate(names)])
    assert data.image(0)[:, 3, 3].tolist() == [99] * 3
    assert data.image(1)[:, 3, 3].tolist() == [1, 2, 3]


def test_the_fingerprint_is_that_of_the_content(tmp_path, names):
    rows = [(name, i % 2) for i, name in enumerate(names)]
    before = opened(tmp_path, rows).fingerprint()
    assert opened(tmp_path, rows).fingerprint() == before
    assert opened(tmp_path, rows, size=(3, 3)).fingerprint() != before
    rows[0] = (names[0], 1)
    assert opened(tmp_path, rows).fingerprint() != before


def some(names: list[str], cells: list[object]) -> list[tuple[str, object]]:
    return list(zip(names, cells, strict=False))


@pytest.mark.parametrize(
    ("cells", "options", "sentence"),
    [
        (["a", 1, "b", 0.5, "", 1], {}, r"got 'a' in row 2, 'b' in row 4, '0.5' in row 5 and 1 mo"),
        ([0, -1, 0, 1, 1, 1], {}, "whole numbers from 0 .* got '-1' in row 3"),
        ([0, 1, 2, 3, 4, 10**6], {}, "without gaps|whole numbers"),
        ([0, 1, 2, 3, 4, 900], {}, "got 900 in 6 rows; number the classes without gaps"),
        (["a", "UNK", "b", "x", "y", "z"], {"classes": ["a", "b"]}, "'UNK' in row 3, 'x' in row 5"),
        (["a", "UNK", "b", "x", "y", "z"], {"classes": ["a", "b"]}, "and 1 more; add the class"),
        ([0] * 6, {"classes": ["a", "a"]}, "each once"),
        ([0] * 6, {"size": (0, 3)}, "`size`"),
    ],
)
def test_wrong_labels_are_named_and_counted(tmp_path, names, cells, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        opened(tmp_path, some(names, cells), **options)


def test_missing_files_are_named_and_counted(tmp_path, names):
    rows = [(name, 0) for name in ("gone", names[0], "lost.jpg", "no", "nay", "never")]
    with pytest.raises(ValueError, match=r"got none for 'gone' in row 2, 'lost.jpg' in row 4, 'no"):
        opened(tmp_path, rows)
    cure = "in row 5 and 2 more; name their folder with `images=FOLDER`"
    with pytest.raises(ValueError, match=cure):
        opened(tmp_path, rows)


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../b.png", ""])
def test_names_stay_inside_the_folder(tmp_path, names, name):
    with pytest.raises(ValueError, match="Expected file names inside"):
        opened(tmp_path, [(names[0], 0), (name, 1)])


def test_a_file_that_comes_twice_is_refused(tmp_path, names):
    rows = [(names[0], 0), (names[1], 1), ("pic_0", 1), (names[1], 1)]
    with pytest.raises(ValueError, match=r"got again 'pic_0' in row 4, 'pic_1.png' in row 5, fir"):
        opened(tmp_path, rows)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "got 0 lines"),
        ("image,label\n", "got 1 lines"),
        ("image,image\na,b\n", "each column"),
        ("image,label\na\n", "2 cells in each row of .*, got 1 in row 2"),
        ("image\npic_0.png\n", "at least 2 columns"),
        ("image,label\n\xff\xfe,1\n", "UTF-8"),
        ('image,label\n"a,1\n', "CSV"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, names, text, sentence):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=sentence):
        open_table(path, tmp_path / "images")


def test_a_damaged_image_is_named(tmp_path, names):
    whole = (tmp_path / "images" / names[2]).read_bytes()
    data = opened(tmp_path, [(name, i % 2) for i, name in enumerate(names)])
    (tmp_path / "images" / names[2]).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"Expected an image in .*pic_2.png"):
        data.image(2)
    Image.new("RGB", (3, 3)).save(tmp_path / "images" / names[4])
    with pytest.raises(ValueError, match=r"pic_4.png of 8 x 10 pixels, got 3 x 3; it has changed"):
        data.image(4)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path, names):
    (tmp_path / "t.csv").write_text(f"\ufeffimage,label\n{names[0]},0\n{names[1]},1\n")
    data = open_table(tmp_path / "t.csv", tmp_path / "images", name_column="image")
    assert data.labels.tolist() == [0, 1]
