"""Tables are written whole and read back."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import pytest
from torch import nn

from dense_imb.base.files import write_whole
from dense_imb.curves import Recovery, Table, sweep
from dense_imb.curves.table import Column, View


@pytest.fixture
def table():
    losses = {"MSE": nn.MSELoss(), "Odd: name [1, 2], 'x'": nn.L1Loss()}
    return sweep(Recovery(frame=(6, 10)), losses)


def test_json_reads_back_everything(table, tmp_path):
    view = View(
        ("loss", "gradient"), "log", "symlog", (0.0, 2.0), (("a", 0.0, 1.0),), "b", (1.0, 2.0)
    )
    table = replace(table, view=view)
    table.write(tmp_path / "table.json")
    assert Table.read(tmp_path / "table.json") == table


def test_csv_reads_back_the_columns(table, tmp_path):
    table.write(tmp_path / "table.csv")
    found = Table.read(tmp_path / "table.csv")
    assert (found.axis, found.curves) == (table.axis, table.curves)
    assert found.view.quantities == ("loss",)
    assert found.title == "table"


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_gaps_read_back_as_gaps(suffix, tmp_path):
    axis = Column("x", "1", (0.0, 1.0))
    Table("gaps", axis, (Column("it", "1", (math.nan, 2.0), "loss"),)).write(
        tmp_path / f"t{suffix}"
    )
    first, second = Table.read(tmp_path / f"t{suffix}")["it"]
    assert math.isnan(first)
    assert second == 2.0


def test_csv_is_plain(table, tmp_path):
    table.write(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:3] == [
        "returned pixels [half frames]",
        "loss: MSE [a.u.]",
        "gradient: MSE [a.u. per value]",
    ]
    assert [len(row) for row in rows] == [5] * 62
    assert [float(number) for number in rows[1][:2]] == [0.0, table["MSE"][0]]


def test_unknown_name(table):
    with pytest.raises(KeyError, match="got .*MAE"):
        table["MAE"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", ""),
        ("a.csv", "x [1],y\n1,2\n"),
        ("a.json", "[]"),
        ("a.json", "{"),
        ("a.csv", "x [1]\na\n"),
    ],
)
def test_foreign_files_are_refused(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r"Expected a table of loss-response curves in .*a\."):
        Table.read(tmp_path / name)


def test_other_suffixes_are_refused(table, tmp_path):
    with pytest.raises(ValueError, match=r"end in \.csv or \.json"):
        table.write(tmp_path / "table.xlsx")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.csv"
    path.write_text("old")

    def fill_the_disk(partial):
        partial.write_text("ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(path, fill_the_disk)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
