"""Published labels, made tables in parts without leakage."""

from __future__ import annotations

import numpy as np
import pytest

from dense_imb.data.labels.tables import read_table
from tests.data_tools.scripts import load

script = load("table")
Labels, read_labels, split_table = script.ImageLabels, script.read_labels, script.split_table
group_by_pattern, group_by_table = script.group_by_pattern, script.group_by_table

PARTS = {"train": 0.7, "validation": 0.1, "test": 0.2}


def labels_of(counts: dict[str, int]) -> Labels:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(list(counts), list(counts.values()))).tolist()
    return Labels(tuple(f"i{k}" for k in range(len(labels))), tuple(labels), tuple(counts))


def test_each_part_has_its_share_of_each_class(tmp_path):
    labels = labels_of({"common": 700, "some": 50, "rare": 10})
    paths = {tmp_path / f"{name}.csv": share for name, share in PARTS.items()}
    counts = split_table(labels, paths)
    assert counts == [
        {"common": 490, "some": 35, "rare": 7},
        {"common": 70, "some": 5, "rare": 1},
        {"common": 140, "some": 10, "rare": 2},
    ]
    tables = [read_table(path) for path in paths]
    names = [name for table in tables for name in table.column("image", 0)]
    assert sorted(names) == sorted(labels.names)
    label_of = dict(zip(labels.names, labels.labels, strict=True))
    for table in tables:
        assert [label_of[name] for name in table.column("image", 0)] == table.column("label", 1)
    with pytest.raises(FileExistsError, match="with `overwrite`"):
        split_table(labels, paths)
    assert split_table(labels, paths, overwrite=True) == counts
    assert split_table(labels, paths, overwrite=True, seed=1) == counts


def test_both_eyes_of_a_patient_stay_together(tmp_path):
    rng = np.random.default_rng(0)
    names = tuple(f"{i}_{side}" for i in range(200) for side in ("left", "right"))
    labels = Labels(
        names, tuple(rng.choice(["0", "1", "4"], 400, p=[0.8, 0.15, 0.05])), tuple("014")
    )
    groups = group_by_pattern(names, r"(\d+)_")
    paths = {tmp_path / f"{name}.csv": share for name, share in PARTS.items()}
    split_table(labels, paths, groups=groups)
    seen = [set(read_table(path).column("group", 2)) for path in paths]
    assert [len(one) for one in seen] == pytest.approx([140, 20, 40], abs=2)
    assert len(set.union(*seen)) == sum(map(len, seen))


def test_one_column_for_each_class(tmp_path):
    path = tmp_path / "truth.csv"
    path.write_text("image,MEL,NV,UNK\na,1.0,0.0,0.0\nb,0,1,0\nc,0.0,1.0,0.0\n")
    found = read_labels(path, one_hot=True)
    assert found == Labels(("a", "b", "c"), ("MEL", "NV", "NV"), ("MEL", "NV"))
    assert found.select(["NV", "MEL"]).classes == ("NV", "MEL")
    with pytest.raises(ValueError, match="two or more of the classes MEL, NV, got NV, BCC"):
        found.select(["NV", "BCC"])
    for row in ("d,0,0,0", "d,1,1,0", "d,0.4,0.6,0"):
        path.write_text(f"image,MEL,NV,UNK\na,1,0,0\n{row}\n")
        with pytest.raises(ValueError, match="Expected a single 1 and zeros in row 3"):
            read_labels(path, one_hot=True)


def test_a_folder_for_each_class(tmp_path):
    for name in ("polyps/1.jpg", "polyps/2.jpg", "ulcers/1.jpg", "ulcers/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert read_labels(tmp_path) == Labels(
        ("polyps/1.jpg", "polyps/2.jpg", "ulcers/1.jpg"),
        ("polyps", "polyps", "ulcers"),
        ("polyps", "ulcers"),
    )
    with pytest.raises(ValueError, match="a folder with images for each of two classes"):
        read_labels(tmp_path / "polyps")


def test_numbers_keep_their_order(tmp_path):
    (tmp_path / "t.csv").write_text("image,level\n" + "".join(f"{k},{k}\n" for k in (10, 2, 0)))
    assert read_labels(tmp_path / "t.csv").classes == ("0", "2", "10")


def test_groups_of_another_table(tmp_path):
    (tmp_path / "m.csv").write_text("image,lesion_id\na,L1\nb,L1\nc,\n")
    found = group_by_table(["a", "b", "c", "d"], tmp_path / "m.csv", "lesion_id")
    assert found[:2] == ["L1", "L1"]
    assert len(set(found)) == 3


@pytest.mark.parametrize("pattern", ["(", "[0-9]+", "(x)"])
def test_patterns_that_group_nothing_are_refused(pattern):
    with pytest.raises(ValueError, match="Expected"):
        group_by_pattern(["1_left"], pattern)
