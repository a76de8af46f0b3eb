"""The names at the front door, and what importing them costs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import dense_imb
from dense_imb import losses


def printed(code: str) -> str:
    command = [sys.executable, "-X", "importtime", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_it_offers_the_names_that_a_user_types_first():
    for name in ("train", "open_run", "denoise", "segment", "Balance", "TrainConfig", "HitsConfig"):
        assert name in dir(dense_imb)
    assert {name for name in losses.__all__ if name.endswith("Loss")} <= {*dir(dense_imb)}


@pytest.mark.parametrize("name", dense_imb.__all__)
def test_every_name_is_there(name):
    assert getattr(dense_imb, name) is not None


def test_names_are_those_of_their_rooms():
    assert dense_imb.FocalLoss is losses.FocalLoss
    from dense_imb.runs import train

    assert dense_imb.train is train


def test_importing_it_imports_nothing_heavy():
    code = "import dense_imb, json, sys; dir(dense_imb); print(json.dumps(sorted(sys.modules)))"
    modules = {name.split(".")[0] for name in json.loads(printed(code))}
    assert not modules & {"torch", "numpy", "h5py", "matplotlib", "monai", "yaml", "accelerate"}


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'tranis'"):
        dense_imb.tranis  # noqa: B018
