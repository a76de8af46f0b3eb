"""The scripts that prepare photographs and tables: thin, and one sentence for bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data_tools.scripts import run


@pytest.fixture
def truth(tmp_path) -> Path:
    """As ISIC publishes it."""
    rng = np.random.default_rng(0)
    classes = rng.choice(4, 400, p=[0.2, 0.6, 0.15, 0.05])
    lines = ["image,MEL,NV,BCC,UNK"]
    lines += [
        f"ISIC_{i:07d},{','.join(f'{float(k == c)}' for k in range(4))}"
        for i, c in enumerate(classes)
    ]
    (tmp_path / "truth.csv").write_text("\n".join(lines) + "\n")
    rows = [f"ISIC_{i:07d},40.0,IL_{i // 2}" for i in range(400)]
    (tmp_path / "meta.csv").write_text("\n".join(["image,age_approx,lesion_id", *rows]) + "\n")
    return tmp_path / "truth.csv"


def test_melanoma_against_nevi_without_a_lesion_on_both_sides(tmp_path, truth, capsys):
    grouped = ("--group-table", tmp_path / "meta.csv", "--group", "lesion_id")
    arguments = (truth, "--one-hot", "--classes", "NV", "MEL", *grouped, "--out", tmp_path / "out")
    assert run("table", *arguments) == 0
    printed = capsys.readouterr().out
    assert "--labels.classes '[NV, MEL]'" in printed
    assert "images of other classes left out" in printed
    seen = []
    for name in ("train", "validation", "test"):
        lines = (tmp_path / "out" / f"{name}.csv").read_text().splitlines()
        assert lines[0] == "image,label,group"
        cells = [line.split(",") for line in lines[1:]]
        assert {label for _, label, _ in cells} == {"NV", "MEL"}
        seen.append({group for _, _, group in cells})
    assert len(set.union(*seen)) == sum(map(len, seen))
    assert run("table", *arguments) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_images_are_prepared(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    Image.new("RGB", (30, 20), (200, 100, 60)).save(tmp_path / "in" / "a.png")
    typed = (tmp_path / "in", tmp_path / "out", "--crop", "--size", 8, "--grey-world")
    assert run("prepare_images", *typed) == 0
    assert "1 images" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert (image.size, image.getpixel((3, 3))) == ((8, 8), (120, 120, 120))


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        ("prepare_images", ("nowhere", "out"), "Expected a folder of images"),
        ("table", ("nowhere.csv", "--out", "out"), "Expected a CSV file"),
        ("table", ("TRUTH", "--one-hot", "--out", "out", "--shares", "train"), "like train=0.8"),
        ("table", ("TRUTH", "--one-hot", "--out", "out", "--group", "x"), "together"),
        ("table", ("TRUTH", "--one-hot", "--out", "out", "--classes", "NV", "ZZ"), "got NV, ZZ"),
        ("table", ("TRUTH", "--out", "out", "--label-column", "level"), "a column 'level'"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, truth, capsys, script, arguments, sentence):
    typed = [str(truth) if word == "TRUTH" else word for word in arguments]
    assert run(script, *typed) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert len(told.splitlines()) == 1
