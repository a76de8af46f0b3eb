"""Opening tables of hits and networks that anybody made: nothing runs, nothing else is read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dense_imb.base.files import UnreadableFileError
from dense_imb.cli import main
from dense_imb.data.events.formats import csv_source, parquet_source, root_source
from dense_imb.data.events.tables import to_table
from dense_imb.export.write import onnx_session
from dense_imb.hits import open_hits
from tests.data.events.other_formats import read
from tests.runs.tiny import clean_events, write_events
from tests.strangers.watch import nothing_but

FRAME = ("--width", "9", "--height", "9", "--time-steps", "50", "--quiet")
X = [[0, 1], [], [2], [3, 4, 6]]


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is written if code of a table runs; `evil` can be imported."""
    place, beside = tmp_path / "trap", tmp_path / "beside"
    beside.mkdir()
    (beside / "evil.py").write_text(f"open({str(place)!r}, 'w').close()\n")
    monkeypatch.chdir(beside)
    monkeypatch.syspath_prepend(str(beside))
    (tmp_path / "inner").mkdir()
    yield place
    assert not place.exists()
    assert sys.modules.pop("evil", None) is None


NAMES = (
    "__import__('evil')",
    "{__import__('evil')}",
    "x');import evil;('",
    "=cmd|' /C calc'!A0",
    "../secret",
    "file:///etc/passwd",
    "%(evil)s",
)


# CSV


@pytest.mark.parametrize("name", NAMES)
def test_names_and_values_of_a_csv_are_text(trap, tmp_path, name):
    path = tmp_path / "inner" / "hits.csv"
    path.write_text(f'event,x,y,t,"{name}"\n0,1,2,3,4\n0,2,2,5,6\n1,1,1,1,1\n')
    out = tmp_path / "inner" / "hits.h5"
    with nothing_but(tmp_path / "inner"):
        main(["convert", str(path), str(out), *FRAME, "--keep"])
    assert open_hits(out).n_hits == 3
    path.write_text(f"event,x,y,t\n0,1,2,3\n0,{name},2,5\n")
    with nothing_but(tmp_path / "inner"), pytest.raises(ValueError, match="Expected"):
        csv_source(path)


@pytest.mark.parametrize("name", ["http:", "ftp:", "root:", "zip::file:"])
def test_a_csv_of_the_name_of_an_address_is_a_file(trap, tmp_path, name):
    folder = tmp_path / "inner" / name / "127.0.0.1:9"
    folder.mkdir(parents=True)
    (folder / "hits.csv").write_text("event,x,y,t\n0,1,2,3\n")
    with nothing_but(tmp_path / "inner"):
        assert csv_source(f"{tmp_path}/inner/{name}//127.0.0.1:9/hits.csv").width is None


# ROOT and parquet


def jagged(name: str = "more") -> dict[str, Any]:
    awkward = pytest.importorskip("awkward", reason="comes with uproot, of the extra `root`")
    x = awkward.values_astype(awkward.Array(X), np.int32)
    return {"x": x, "y": x % 5, "t": x + 1, name: x * 2}


def write_root(path: Path, kind: str, name: str = "more") -> Path:
    uproot = pytest.importorskip("uproot", reason="the extra `root`")
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = jagged(name)
    with uproot.recreate(path, compression=None) as file:
        if kind == "tree":
            file.mktree("events", dict.fromkeys(columns, "var * int32")).extend(columns)
        else:
            file.mkrntuple("events", columns)
    return path


def write_parquet(path: Path, name: str = "more", **options: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `parquet`")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {key: pyarrow.array(value.to_list()) for key, value in jagged(name).items()}
    parquet.write_table(pyarrow.table(columns, **options), path)
    return path


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if uproot compiles a class that a file describes."""
    deserialization = pytest.importorskip("uproot.deserialization")

    def fail(code: str, scope: object) -> None:
        pytest.fail(f"compiled: {code[:200]}")

    monkeypatch.setattr(deserialization, "_actually_compile", fail)


@pytest.mark.parametrize("kind", ["tree", "ntuple"])
@pytest.mark.parametrize("name", ["__import__('evil')", "x');import evil;('"])
def test_trees_of_numbers_compile_nothing(trap, nothing_compiled, tmp_path, kind, name):
    path = write_root(tmp_path / "inner" / "a.root", kind, name)
    out = tmp_path / "inner" / "hits.h5"
    with nothing_but(tmp_path / "inner"):
        assert main(["convert", str(path), str(out), *FRAME]) == 0
    assert open_hits(out).n_hits == 6


@pytest.mark.parametrize("old", [b"fEntries", b"fBasketSeek", b"TNamed", b"vector<int>", b"Int_t"])
def test_code_in_the_descriptions_of_a_root_file_does_not_run(trap, tmp_path, old):
    path = write_root(tmp_path / "inner" / "a.root", "tree")
    content = path.read_bytes()
    for code in (
        b'");import evil;("',
        b"');import evil;('",
        b'"+evil+"',
        b"{evil}\\n",
        b"'\n evil",
    ):
        path.write_bytes(content.replace(old, code[: len(old)].ljust(len(old))))
        with nothing_but(tmp_path / "inner"):
            try:
                read(root_source(path))
            except (ValueError, AttributeError):
                continue


ADDRESSES = ("http:", "root:", "s3:", "zip::file:")


@pytest.mark.parametrize("name", ADDRESSES)
@pytest.mark.parametrize("kind", ["root", "parquet"])
def test_a_table_of_the_name_of_an_address_is_a_file(trap, tmp_path, name, kind):
    folder = tmp_path / "inner" / name / "127.0.0.1:9"
    folder.mkdir(parents=True)
    plain, source = tmp_path / f"plain.{kind}", {"root": root_source, "parquet": parquet_source}
    (write_root(plain, "tree") if kind == "root" else write_parquet(plain)).rename(folder / "a")
    given = f"{tmp_path}/inner/{name}//127.0.0.1:9/a"
    with nothing_but(tmp_path / "inner"):
        if "::" not in name:
            assert source[kind](given).n_events == 4
        else:
            with pytest.raises(ValueError, match="Expected a path without `::`"):
                source[kind](given)


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_tree_is_written_in_a_folder_of_the_name_of_an_address(trap, tmp_path, name):
    folder = tmp_path / "inner" / name
    folder.mkdir()
    write_events(folder / "a.h5", clean_events(2))
    to_table(open_hits(folder / "a.h5"), folder / "a.root")
    assert (folder / "a.root").stat().st_size > 1000
    assert [one.name for one in (tmp_path / "inner").iterdir()] == [name]


def test_a_parquet_file_with_wildcards_in_its_name_is_one_file(trap, tmp_path):
    path = write_parquet(tmp_path / "inner" / "a[bc]*.parquet")
    (tmp_path / "inner" / "ab1.parquet").write_bytes(b"no parquet")
    with nothing_but(tmp_path / "inner"):
        assert parquet_source(path).n_events == 4


@pytest.mark.parametrize("name", NAMES)
def test_names_and_metadata_of_parquet_are_text(trap, tmp_path, name):
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return (__import__, ("evil",))

    pickled = pickle.dumps(Evil())
    metadata = {b"pandas": pickled, b"ARROW:extension:name": b"arrow.py_extension_type",
                b"ARROW:extension:metadata": pickled, b"awkward_info": pickled}  # fmt: skip
    path = write_parquet(tmp_path / "inner" / "a.parquet", name, metadata=metadata)
    out = tmp_path / "inner" / "hits.h5"
    with nothing_but(tmp_path / "inner"):
        assert main(["convert", str(path), str(out), *FRAME]) in (0, 2)


# ONNX


@pytest.mark.parametrize("place", ["inside.bin", "../secret.bin", "/etc/hostname", "{tmp}/s.bin"])
def test_an_onnx_file_reads_no_other_file(trap, tmp_path, place):
    onnx = pytest.importorskip("onnx", reason="the extra `export`")
    Path("inside.bin").write_bytes(bytes(64))  # in the current folder
    for name in ("secret.bin", "s.bin"):
        (tmp_path / name).write_bytes(bytes(64))
    weight = onnx.TensorProto(name="w", data_type=1, dims=[2, 2])
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", place.format(tmp=tmp_path)), ("length", "16")):
        weight.external_data.add(key=key, value=value)
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "__import__('evil')",
        [helper.make_tensor_value_info("x", 1, ["n", 2])],
        [helper.make_tensor_value_info("y", 1, ["n", 2])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "inner" / "a.onnx"
    path.write_bytes(model.SerializeToString())
    with (
        nothing_but(tmp_path / "inner"),
        pytest.raises(UnreadableFileError, match="Expected a network as ONNX in"),
    ):
        onnx_session(path, 1)


def test_the_metadata_of_an_onnx_file_are_text(trap, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the extra `export`")
    helper = onnx.helper
    value = helper.make_tensor_value_info("x", 1, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value],
                              [helper.make_tensor_value_info("y", 1, [1])])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"dense_imb": "__import__('evil')", "../x": "%(evil)s"})
    path = tmp_path / "inner" / "a.onnx"
    path.write_bytes(model.SerializeToString())
    with nothing_but(tmp_path / "inner"):
        found = onnx_session(path, 1).get_modelmeta().custom_metadata_map
    assert found["dense_imb"] == "__import__('evil')"
