"""ROOT trees, written here with uproot itself."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from dense_imb.data.events.formats import root, root_source
from tests.data.events.other_formats import read

uproot = pytest.importorskip("uproot", reason="uproot, the extra `root`, is not installed")
ak = pytest.importorskip("awkward", reason="awkward comes with uproot")

NAMES = {"x": "px", "y": "py", "t": "toa", "label": "truth"}
X = [[0, 1], [], [2], [3, 4, 6]]


@pytest.fixture(params=["tree", "ntuple"])
def path(tmp_path, request):
    x = ak.values_astype(ak.Array(X), np.int32)
    columns = {"px": x, "py": x % 5, "toa": x * 1.5 + 1, "truth": x % 2, "run": np.arange(4)}
    with uproot.recreate(tmp_path / "a.root") as file:
        if request.param == "tree":
            kinds = {"px": "var * int32", "py": "var * int32", "toa": "var * float64",
                     "truth": "var * int32", "run": "int64"}  # fmt: skip
            file.mktree("events", kinds).extend(columns)
        else:
            file.mkrntuple("events", columns)
    return tmp_path / "a.root"


@pytest.mark.parametrize("step", ["16 MB", 1, 3])
def test_jagged_branches_become_hits(path, monkeypatch, step):
    monkeypatch.setattr(root, "_STEP", step)
    source = root_source(path, columns=NAMES, keep=["run", "py"])
    assert source.n_events == 4
    events = read(source)
    assert events.offset.tolist() == [0, 2, 2, 3, 6]
    assert events.x.tolist() == [0, 1, 2, 3, 4, 6]
    assert events.t.tolist() == [1, 2.5, 4, 5.5, 7, 10]
    assert events.label.tolist() == [0, 1, 0, 1, 0, 0]
    assert events.event["run"].tolist() == [0, 1, 2, 3]
    assert events.hit["py"].tolist() == events.y.tolist()


def records(folder):
    x = ak.values_astype(ak.Array(X), np.int32)
    columns = {"pad": ak.zip({"x": x, "y": x % 5}), "time": x * 1.5 + 1, "run": np.arange(4)}
    with uproot.recreate(folder / "r.root") as file:
        file.mkrntuple("events", columns)
    return folder / "r.root"


@pytest.mark.parametrize("step", ["16 MB", 1, 3])
def test_fields_of_records_go_by_the_names_that_are_proposed(tmp_path, monkeypatch, step):
    monkeypatch.setattr(root, "_STEP", step)
    path = records(tmp_path)
    with pytest.raises(ValueError, match=r"got pad\.x, pad\.y, .*with `columns=t=time`"):
        root_source(path)
    for names in ({"t": "time"}, {"x": "pad.x", "y": "pad.y", "t": "time"}):
        events = read(root_source(path, columns=names))
        assert events.offset.tolist() == [0, 2, 2, 3, 6]
        assert events.x.tolist() == [0, 1, 2, 3, 4, 6]
        assert events.y.tolist() == [0, 1, 2, 3, 4, 1]
        assert events.t.tolist() == [1, 2.5, 4, 5.5, 7, 10]
        assert events.event["run"].tolist() == [0, 1, 2, 3]


def test_all_that_fits_is_kept_and_the_rest_noted(tmp_path):
    x = ak.values_astype(ak.Array(X), np.int32)
    columns = {"x": x, "y": x, "t": x + 1, "charge": x * 0.5, "mc": ak.Array([[1], [1], [1], [1]]),
               "run": np.arange(4), "name": ak.Array(["a", "b", "c", "d"])}  # fmt: skip
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mkrntuple("events", columns)
    source = root_source(tmp_path / "a.root")
    events = read(source)
    assert (events.hit.keys(), events.event.keys()) == ({"charge"}, {"run"})
    assert source.notes == [
        f"left out of {tmp_path / 'a.root'}: mc, lists of another length than the hits"
    ]
    with pytest.raises(ValueError, match="as many entries in branch `mc` of"):
        read(root_source(tmp_path / "a.root", keep=["mc"]))


def test_one_hit_an_entry_with_run_and_event(tmp_path):
    columns = {"run": [0, 1, 0], "event": [3, 3, 3], "x": [1, 2, 3], "y": [4, 5, 6], "t": [7, 8, 9]}
    columns = {name: np.array(column, np.int32) for name, column in columns.items()}
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mktree("hits", dict.fromkeys(columns, "int32")).extend(columns)
    events = read(root_source(tmp_path / "a.root", columns={"event": ["run", "event"]}))
    assert events.offset.tolist() == [0, 2, 3]
    assert events.x.tolist() == [1, 3, 2]
    merged = root_source(tmp_path / "a.root")
    assert len(read(merged)) == 1
    assert "{columns=event=run,event} keeps them apart" in merged.notes[0]


def test_trees_and_branches_are_named(path, tmp_path):
    sentence = (
        "columns x, y, t in .*, got .*px, .*, without x; name them with `columns=x=px,label=truth`"
    )
    with pytest.raises(ValueError, match=sentence):
        root_source(path, columns={"y": "py", "t": "toa"})
    with pytest.raises(ValueError, match=r"one of \['events'\], got hits"):
        root_source(path, "hits")
    with pytest.raises(ValueError, match="an array an event in branch `run`"):
        read(root_source(path, columns={**NAMES, "x": "run"}))
    (tmp_path / "b.root").write_bytes(b"root" + bytes(300))
    with pytest.raises(ValueError, match=r"Expected a ROOT file with a tree at .*b\.root"):
        root_source(tmp_path / "b.root")
    with pytest.raises(FileNotFoundError, match="Expected a ROOT file"):
        root_source("http://localhost/a.root")


def test_a_truncated_file_is_one_sentence_or_whole(path):
    whole, n_refused = path.read_bytes(), 0
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        try:
            events = read(root_source(path, columns=NAMES, keep=[]))
        except ValueError as problem:
            assert str(problem).startswith("Expected")  # noqa: PT017
            assert "\n" not in str(problem)  # noqa: PT017
            n_refused += 1
        else:  # only what nobody reads was lost
            assert events.x.tolist() == [0, 1, 2, 3, 4, 6]
    assert n_refused > 10


def test_without_uproot_the_cure_is_told(path, monkeypatch):
    known = builtins.__import__

    def without(name, *rest):
        if name in ("uproot", "awkward"):
            raise ImportError(name)
        return known(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'dense-imb\[root\]'"):
        root_source(path)
