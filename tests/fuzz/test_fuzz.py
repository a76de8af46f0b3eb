"""The short form of the fuzzer, see docs/reliability.md: `make fuzz` is the long one."""

from __future__ import annotations

import gzip
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dense_imb.base.yaml_text import parse_yaml
from dense_imb.cli import main
from dense_imb.data.events.formats import npy_source, pt_source
from dense_imb.data.images.folders import read_image
from dense_imb.engine.checkpoint import CheckpointError, check_weights
from dense_imb.export.write import onnx_session
from dense_imb.losses.foreign.parse import parse_spec, split_sum
from dense_imb.metrics import SegmentationScores
from dense_imb.runs.metrics import read_metrics
from dense_imb.runs.pretrained import Pretrained
from dense_imb.tasks.recipe import ParsedLoss
from tests.fuzz.campaign import markdown, seeds_of, text_table
from tests.scripts import json_lines

_SLOW = ("checkpoint", "card", "records")  # whose files are runs, which must be trained
_QUICK = (
    "hits v1", "hits v2", "image HDF5", "list HDF5", "PNG", "TIFF", "JPEG, BMP", "NIfTI", "NPY",
    "NPZ", "PT", "CSV", "tables", "ROOT", "YAML", "safetensors", "ONNX", "loss",
)  # fmt: skip


@pytest.fixture(scope="module")
def verdicts() -> dict[str, list[dict[str, Any]]]:
    """The verdicts of 20 mutants of each format, in a process of one thread, which forks."""
    words = ["--json", "--mutants", "20", "--formats", *_QUICK]
    found: dict[str, list[dict[str, Any]]] = {}
    for row in json_lines("tests.fuzz", *words):
        found.setdefault(row["format"], []).append(row)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and reads /proc")
@pytest.mark.parametrize("name", _QUICK)
def test_mutants_are_read_or_refused(name, verdicts):
    rows = verdicts.get(name, [])
    if not rows:
        pytest.skip("a package is missing")
    bad = [row for row in rows if row["verdict"] not in ("read", "refused")]
    assert len(rows) == 20
    assert not bad, f"python -m tests.fuzz --case '{name}:{bad[0]['seed']}': {bad[0]['text']}"


def test_every_format_is_fuzzed():
    pytest.importorskip("onnx")
    from tests.fuzz.formats import FORMATS

    assert {*_QUICK, *_SLOW} == {*FORMATS}


def test_seeds_of_campaigns_do_not_meet():
    assert not {*seeds_of(0, 0, 2000)} & {*seeds_of(1, 0, 2000)}


def test_tables_count_verdicts():
    bad = {"seed": 7, "verdict": "hang", "mutator": "cut", "text": "more than 3 s"}
    row = {"counts": {"refused": 2, "hang": 1}, "seconds": 1.4, "bad": [bad]}
    stored = {"formats": {"PNG": row}, "date": "2026-01-31", "commit": "abc", "seed": 0}
    assert "| PNG | 3 | 2 | 0 | 0 | 1 | 0 | 0 | 0 | 1 |" in markdown(stored)
    assert "--case 'PNG:7'" in text_table(stored)


# what mutants found, each once


@pytest.mark.parametrize("text", ["steps: 1\nseed: 2\nsteps: 3", "hits: {noise: 1, 'noise': 2}"])
def test_yaml_with_a_name_twice_is_refused(text):
    assert parse_yaml("a: {b: 1}\nc: {b: 2}") == {"a": {"b": 1}, "c": {"b": 2}}
    with pytest.raises(yaml.YAMLError, match="the name '(steps|noise)' twice"):
        parse_yaml(text)


def refused(read: Callable[[], object], sentence: str) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=sentence) as problem:
        read()
    assert "\n" not in str(problem.value)
    assert time.process_time() - start < 5


def test_damaged_gzip_is_refused(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path / "a.nii.gz"
    voxels = np.random.default_rng(0).integers(0, 99, (9, 8, 7)).astype(np.int16)
    nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(path)
    assert read_image(path, is_volume=True).shape == (9, 8, 7)
    content = gzip.decompress(path.read_bytes())
    whole = gzip.compress(content, 0)  # stored, so that a voxel changes and nothing else
    path.write_bytes(whole[:-60] + bytes([whole[-60] ^ 1]) + whole[-59:])
    refused(lambda: read_image(path, is_volume=True), "CRC check failed")


def test_npy_with_further_bytes_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((3, 4, 5), np.uint8))
    data = path.read_bytes()
    path.write_bytes(data + bytes(7))
    for read in (npy_source, lambda path: read_image(path, is_volume=True)):
        refused(lambda read=read: read(path), "7 further bytes behind the 60")
    path.write_bytes(data[:6] + b"\x02\x00" + (2**31).to_bytes(4, "little") + data[10:])
    refused(lambda: npy_source(path), "it declares a header of 2,147,483,648 bytes")


def test_pt_with_other_bytes_than_its_checksum_is_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save(torch.full((2, 3, 4), 7.0), path)
    pt_source(path)
    data = path.read_bytes()
    place = data.index(np.float32(7).tobytes() * 3)
    path.write_bytes(data[: place + 2] + b"\x40" + data[place + 3 :])
    refused(lambda: pt_source(path), "than its checksum says")


@pytest.mark.parametrize(
    "made",
    [
        lambda: torch.zeros(2, 3, 4).to(torch.float8_e5m2),
        lambda: torch.quantize_per_tensor(torch.zeros(2, 3, 4), 0.1, 0, torch.quint8),
        lambda: torch.nested.nested_tensor([torch.zeros(3, 4), torch.zeros(2, 4)]),
        lambda: torch.zeros(2, 3, 4, dtype=torch.complex64),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pt_of_no_plain_tensor_is_refused(tmp_path, made):
    torch.save(made(), tmp_path / "a.pt")
    refused(lambda: pt_source(tmp_path / "a.pt"), "to be a tensor of numbers|to be a .pt bundle")


@pytest.mark.parametrize(
    "value",
    ["x", [], torch.zeros(2, device="meta"), torch.eye(2).to_sparse(), torch.zeros(1).expand(9)],
)
def test_weights_are_plain_tensors(value):
    good = {"network": {"a": torch.zeros(2)}, "setup": {}}
    check_weights(good, Path("best.pt"))
    with pytest.raises(CheckpointError, match=r"the weights `a` of best\.pt as a plain tensor"):
        check_weights({**good, "network": {"a": value}}, Path("best.pt"))
    for name in good:
        with pytest.raises(CheckpointError, match="weights and a setup"):
            check_weights({**good, name: None}, Path("best.pt"))


_METRICS = {
    "monitor": "dice", "best": {"step": 2, "dice": 0.5}, "last": {"step": 2}, "steps": 2,
    "is_finished": True, "stopped": None, "seconds": 1.0, "parameters": 10,
    "samples": {"train": 3, "validation": 1},
}  # fmt: skip


def test_metrics_are_checked(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(_METRICS))
    assert read_metrics(path) == _METRICS
    for name in ("monitor", "best", "steps", "stopped", "seconds", "parameters"):
        path.write_text(json.dumps({n: v for n, v in _METRICS.items() if n != name}))
        refused(lambda: read_metrics(path), f"got none as `{name}`")
    for name, value in (("best", {"dice": 1}), ("steps", -1), ("samples", {}), ("last", [1])):
        path.write_text(json.dumps({**_METRICS, name: value}))
        refused(lambda: read_metrics(path), f"as `{name}`")
    path.write_text("[1]")
    refused(lambda: read_metrics(path), "Expected the metrics of a run")


def test_scores_of_other_types_are_refused(tmp_path):
    path = tmp_path / "scores.json"
    SegmentationScores(2).save(path)
    stored = json.loads(path.read_text())
    for value in ("x", [1], None):
        path.write_text(json.dumps({**stored, "settings": value}))
        refused(lambda: SegmentationScores.load(path), "Expected JSON of version")


def test_damaged_weights_of_the_package_are_refused(tmp_path):
    (tmp_path / "config.yaml").write_text((_arc() / "config.yaml").read_text())
    (tmp_path / "best.safetensors").write_bytes(b"\xff" * 40)
    refused(Pretrained(tmp_path).checkpoint, "Expected the weights of a network in")


def _arc() -> Path:
    from dense_imb.runs.pretrained import pretrained

    return pretrained("arc").folder


def test_damaged_onnx_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "a.onnx").write_bytes(b"\xff" * 40)
    refused(lambda: onnx_session(tmp_path / "a.onnx", 1), "Expected a network as ONNX in")


@pytest.mark.parametrize(
    "text",
    ["+".join(["FocalLoss"] * 50_000), "1" * 100_000, "1 *" + " " * 100_000, "a" * 100_000],
)
def test_long_losses_are_refused_at_once(text):
    refused(lambda: parse_spec(text), "Expected `loss` in at most 20,000 characters")
    refused(lambda: ParsedLoss(text), "Expected `loss` in at most 20,000 characters")


@pytest.mark.parametrize(
    "text",
    [
        "+".join(["FocalLoss"] * 1900),
        "1" * 19_000,
        "1 *" + " " * 19_000,
        "a" * 19_000,
        "1e+" * 6000,
    ],
)
def test_losses_are_split_in_linear_time(text):
    start = time.process_time()
    split_sum(text)
    assert time.process_time() - start < 2


def test_weights_of_losses_are_read():
    assert split_sum(" 2. * A + .5*B( 1 ) + 1e+3 * C + 2 * + D") == [
        (2.0, "A"), (0.5, "B( 1 )"), (1000.0, "C"), (None, "2 *"), (None, "D"),
    ]  # fmt: skip


def test_errors_that_quote_a_file_are_one_short_line(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text(f'loss: "\\n\\e[31m{"[" * 40}{"x" * 9000}"\n')
    words = ["train", "images", "--config", str(tmp_path / "config.yaml")]
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert len(err) < 2500
    assert "\x1b" not in err
