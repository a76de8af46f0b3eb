"""The measurements on a GPU run on the CPU, at tiny sizes; how fast anything is, no test asks."""

import json
from pathlib import Path

import pytest
import torch

from tests.scripts import run_script

GPU = Path(__file__).parents[2] / "experiments" / "benchmarks" / "gpu.py"


def gpu(*arguments):
    pytest.importorskip("rich", reason="the bench needs the extra `bench`")
    return run_script(GPU, *arguments)


def test_a_tiny_run_without_a_gpu_prints_and_writes_its_tables(tmp_path):
    out = tmp_path / "new" / "gpu.json"
    words = ("--device", "cpu", "--small", "--no-compile", "--rounds", 1, "--out", out)
    run = gpu(*words, "--sections", "waits", "precision", "limit")
    assert run.returncode == 0, run.stderr
    sections = json.loads(out.read_text())["sections"]
    assert [*sections] == ["waits", "precision", "limit"]
    for section in sections.values():
        assert section["problem"] is None
        for table in section["tables"]:
            assert f"**{table['title']}**" in run.stdout
            assert all(len(row) == len(table["columns"]) for row in table["rows"])
    named = {row[0] for row in sections["waits"]["tables"][0]["rows"]}
    assert {"ACBMSELoss", "DiceLoss", "RangeLoss", "CrossEntropyLoss, balance"} <= named

    refused = gpu(*words)
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr


def test_a_machine_without_a_gpu_is_refused_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused = gpu("--out", tmp_path / "gpu.json")
    assert refused.returncode == 2
    assert refused.stderr == (
        "gpu: error: Expected a GPU, got none; --device cpu --small tries the script without one.\n"
    )
