"""Hit lists as text: rows become events whatever the chunks, and bad rows are named."""

from __future__ import annotations

import pytest

from dense_imb.data.events.formats import csv_source, lists, timepix_source
from tests.data.events.other_formats import read

ROWS = "3,0,1,5,10,0.5,1\n3,2,1,6,10,1.5,0\n4,1,0,7,11,2.5,1\n9,1,2,8,12,0,2\n9,0,0,9,12,1,0\n"
HEADER = "event,x,y,t,run,charge,label\n"


def csv(folder, text):
    (folder / "a.csv").write_text(text)
    return folder / "a.csv"


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
@pytest.mark.parametrize("mark", [",", ";", "\t", " "])
def test_rows_become_events_whatever_the_chunks(tmp_path, monkeypatch, at_once, mark):
    monkeypatch.setattr(lists, "BATCH_HITS", at_once)
    path = csv(tmp_path, "\ufeff" + (HEADER + ROWS + "\n").replace(",", mark))
    events = read(csv_source(path, event_columns=["run"]))
    assert events.offset.tolist() == [0, 2, 3, 5]
    assert events.event["event_id"].tolist() == [3, 4, 9]
    assert events.event["run"].tolist() == [10, 11, 12]
    assert events.x.tolist() == [0, 2, 1, 1, 0]
    assert events.y.tolist() == [1, 1, 0, 2, 0]
    assert events.t.tolist() == [5, 6, 7, 8, 9]
    assert events.label.tolist() == [1, 0, 1, 2, 0]
    assert events.hit["charge"].tolist() == [0.5, 1.5, 2.5, 0, 1]
    assert events.t.dtype.kind == "i"


def test_one_fraction_anywhere_makes_a_column_of_fractions(tmp_path, monkeypatch):
    monkeypatch.setattr(lists, "BATCH_HITS", 2)
    path = csv(tmp_path, "event,x,y,t\n1,0,0,5\n2,0,0,6\n3,0,0,7.5\n")
    kinds = {batch.hit["t"].dtype.kind for batch in csv_source(path).read()}
    assert kinds == {"f"}


def test_columns_by_other_names(tmp_path):
    path = csv(tmp_path, "#frame;col;row;toa\n1;2;3;4\n")
    events = read(csv_source(path, {"event": "frame", "x": "col", "y": "row", "t": "toa"}))
    assert (events.x.tolist(), events.y.tolist(), events.t.tolist()) == ([2], [3], [4])
    assert events.label is None


@pytest.mark.parametrize("at_once", [1, 100])
def test_columns_of_text_are_left_out_and_noted(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(lists, "BATCH_HITS", at_once)
    path = csv(tmp_path, 'event,board,x,y,t,q\n1,"north",2,3,4,0.5\n1,south,3,3,4,1\n')
    source = csv_source(path)
    for _ in range(2):
        events = read(source)
        assert events.x.tolist() == [2, 3]
        assert events.hit.keys() == {"q"}
        assert source.notes == [f"left out of {path}: board, text"]
    with pytest.raises(ValueError, match=r'6 numbers in each row of .*1,"north",2,3,4'):
        csv_source(path, {"label": "board"})
    path.write_text(path.read_text() + "2,south,x,3,4,1\n")
    with pytest.raises(ValueError, match=r"'2,south,x,3,4,1' in line 4"):
        csv_source(path)


def test_large_numbers_stay_exact(tmp_path):
    path = csv(tmp_path, "event,x,y,t,stamp\n1,0,0,5,9007199254740993\n1,0,0,5,12\n")
    assert read(csv_source(path)).hit["stamp"].tolist() == [9007199254740993, 12]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("event,x,y\n1,2,3\n", "without t; name them with `columns=t=NAME`"),
        ("1,2,3,4\n1,2,3,4\n", "without x, y, t, event"),
        ("event,x,x,y,t\n1,2,3,4,5\n", "each column of .* once"),
        (
            HEADER + "1,2,3,4,5,6,7\n1,2,three,4,5,6,7\n",
            "7 numbers in each row of .*'1,2,three,4,5,6,7' in line 3",
        ),
        (HEADER + "1,2,3,4,5,6,7\n1,2,3\n", "got '1,2,3' in line 3"),
        (HEADER + "1,2,3,4,5,6,7.5\n", "whole numbers in column `label`"),
        (HEADER + "1.5,2,3,4,5,6,7\n", "whole numbers in column `event`"),
        (HEADER + "nan,2,3,4,5,6,7\n", "whole numbers in column `event`"),
        (HEADER + "1,2,3,4,5,6,7\n1,2,3,4,6,6,7\n", "one `run` for each event .* in event 1"),
    ],
)
def test_bad_rows_are_named(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(csv_source(csv(tmp_path, text), event_columns=["run"] if "run" in text else []))


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"event,x,y,t\n" + b"\xff\xfe\x00" * 9)
    with pytest.raises(ValueError, match=r"4 numbers in each row of .*a\.csv"):
        csv_source(path)
    path.write_bytes(b"event,x,y,t\n" + b"1" * 100_000)
    with pytest.raises(ValueError, match="one that never ends"):
        csv_source(path)


def test_a_table_without_rows_has_no_events(tmp_path):
    assert [*csv_source(csv(tmp_path, "event,x,y,t\n")).read()] == []


# the first rows of real frames, as Pixelman writes them: tabs, no header
XYC = {
    "data000": "159\t5\t68\n159\t6\t33\n160\t6\t41\n",
    "data001": "",
    "data002": "0\t255\t3422\n",
}


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_timepix_frames(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(lists, "_FRAMES", at_once)
    for name, text in XYC.items():
        (tmp_path / f"{name}.txt").write_text(text)
        (tmp_path / f"{name}.txt.dsc").write_text("A000000001\n[F0]\nType=i16 [X,Y,C]\n")
    source = timepix_source(tmp_path)
    assert (source.width, source.height, source.n_events) == (256, 256, 3)
    events = read(source, 256, 256)
    assert events.offset.tolist() == [0, 3, 3, 4]
    assert events.x.tolist() == [159, 159, 160, 0]
    assert events.y.tolist() == [5, 6, 6, 255]
    assert events.t.tolist() == [68, 33, 41, 3422]


@pytest.mark.parametrize(
    "row", ["1\t2", "1\t2\t3\t4", "1\t2\tx", "# frame 2", "1\t2\t3.5", "1\t2\t" + "9" * 20]
)
def test_a_row_that_is_none_is_quoted(tmp_path, row):
    (tmp_path / "a.txt").write_text(f"1\t2\t3\n{row}\n")
    with pytest.raises(ValueError, match=r"rows of three whole numbers, X, Y and C, in .*a\.txt"):
        read(timepix_source(tmp_path))
    with pytest.raises(ValueError, match="frames that match"):
        timepix_source(tmp_path, "*.dat")
