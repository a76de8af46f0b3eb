"""No command and no script replaces a file that it reads, under whatever name."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from dense_imb.cli import main
from tests.data.events.other_formats import frames
from tests.data_tools.scripts import run
from tests.hits.files import some_events, write

# program, words that write OUT, and what OUT leads to: the input
CASES = [
    ("label", "OUT raw.h5 --overwrite", "raw.h5"),
    ("merge", "OUT raw.h5 --overwrite", "raw.h5"),
    ("merge", "OUT more.h5 raw.h5 --overwrite", "raw.h5"),
    ("split", "raw.h5 --shares train=1 --overwrite", "raw.h5"),
    ("repack", "raw.h5 OUT --overwrite", "raw.h5"),
    ("repack", "frames.h5 OUT --overwrite", "frames.h5"),
    ("repack", "frames.h5 OUT --hits --overwrite", "frames.h5"),
    ("convert", "raw.h5 OUT --overwrite", "raw.h5"),
    ("convert", "raw.h5 f.npy --labels OUT --overwrite", "raw.h5"),
    ("convert", "frames.h5 OUT --overwrite", "frames.h5"),
    ("table", "train.csv --out . --overwrite", "train.csv"),
    ("table", "all.csv --out . --overwrite --group-table train.csv --group label", "train.csv"),
    ("instances", "images images --masks masks --overwrite", "images/a.npy"),
    ("instances", "masks images --masks masks --overwrite", "masks/a.npy"),
    ("dose", "frames.h5 OUT --overwrite", "frames.h5"),
    ("key_points", "points.csv images OUT --overwrite", "points.csv"),
    ("prepare_images", "nest . --overwrite", "nest/b.png"),
    ("denoise", "hit-density raw.h5 --out . --threshold 0.5 --overwrite", "raw.h5"),
    ("denoise", "hit-density more.h5 raw.h5 --out . --threshold 0.5 --overwrite", "raw.h5"),
    ("denoise", "hit-density raw.h5 OUT --choose-on more.h5 --shards", "more.h5"),
    ("inspect", "frames.h5 --out . --overwrite", "inspect.json"),
]
LINKED = [case for case in CASES if "OUT" in case[1]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "raw.h5", some_events(8))
    write(tmp_path / "more.h5", some_events(8, seed=1))
    with h5py.File("frames.h5", "w") as file:
        file["frames"] = frames()
    for name in ("train.csv", "all.csv"):
        Path(name).write_text("image,label\n" + "".join(f"{k},{k % 2}\n" for k in range(8)))
    Path("points.csv").write_text("image,nose_x,nose_y\na.npy,1,2\n")
    for folder in ("images", "masks", "nest"):
        Path(folder).mkdir()
    np.save("images/a.npy", np.zeros((8, 8), np.uint8))
    np.save("masks/a.npy", np.eye(8, dtype=np.uint8))
    Path("nest/nest").mkdir()
    for name in ("nest/b.png", "nest/nest/b.png"):
        Image.new("RGB", (4, 4)).save(name)
    return tmp_path


def call(program: str, words: list[str]) -> int:
    if program in ("denoise", "inspect"):
        return main([program, *words])
    return run(program, *words)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("program", "words", "source"), CASES)
def test_a_source_is_never_the_output(place, capsys, program, words, source):
    if program == "split":
        os.rename("raw.h5", "raw_train.h5")
        os.symlink("raw_train.h5", "raw.h5")  # the part leads to the source
    if program == "inspect":
        os.link("frames.h5", source)
    before = content(place)
    assert call(program, words.replace("OUT", source).split()) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "Expected an output apart from the inputs, got" in line
    assert line.endswith("; choose another name.")
    assert content(place) == before


@pytest.mark.parametrize("link", [os.link, os.symlink])
@pytest.mark.parametrize(("program", "words", "source"), LINKED)
def test_links_are_the_same_file(place, capsys, program, words, source, link):
    name = f"link{Path(source).suffix}"
    link(source, name)
    before = content(place)
    assert call(program, words.replace("OUT", name).split()) == 2
    assert f"got {name}, which is " in capsys.readouterr().err
    assert content(place) == before


def test_shards_are_not_removed_while_they_are_the_source(place, capsys):
    words = ["hit-density", "raw.h5", "clean.h5", "--threshold", "0.5", "--shards"]
    assert main(["denoise", *words, "--quiet"]) == 0
    before = content(place)
    words[1] = "clean.h5.shards/*.h5"
    assert main(["denoise", *words, "--overwrite", "--quiet"]) == 2
    assert "clean.h5.shards, which holds clean.h5.shards/" in capsys.readouterr().err
    assert content(place) == before
