"""Sixteen runs of ten steps end as they did: weights, history and the setup of checkpoints."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.golden.configs import RUNS
from tests.golden.data import write_data
from tests.golden.runs import PINS, fingerprint, golden_row

pins: dict[str, Any] = json.loads(PINS.read_text())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    write_data(folder)
    return folder


def rounded(setup: dict[str, str]) -> dict[str, str]:
    """The setup with numbers of six digits: means of pixels differ in their last ones."""
    return {
        key: re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.6g}", text)
        for key, text in setup.items()
    }


def test_every_run_is_pinned():
    assert list(pins["runs"]) == list(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_run_ends_as_it_did(name, data, tmp_path):
    wanted = pins["runs"][name]
    got = golden_row(name, data, tmp_path / "run")
    here, there = fingerprint(), pins["made_with"]
    same_setup = dict if here == there else rounded
    assert same_setup(got["setup"]) == same_setup(wanted["setup"])
    assert got["columns"] == wanted["columns"]
    if here != there:
        differ = ", ".join(key for key in there if here[key] != there[key])
        pytest.skip(f"setup and columns agree; bits are of another machine ({differ})")
    bits = ("history", "best", "last", "teacher", "read_out")
    assert {key: got[key] for key in bits} == {key: wanted[key] for key in bits}
