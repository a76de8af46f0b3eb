"""Bad input that once ended in a traceback: one sentence, exit code 2, a folder to use again."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from dense_imb.cli import main
from dense_imb.cli._parser import Parser
from dense_imb.hits import Events
from tests.runs.tiny import FRAME, clean_events, write_events

pytestmark = pytest.mark.filterwarnings("ignore")  # two steps collapse, and say so
HUGE = str(10**20)
OWN = """
import torch
from torch import nn

class Raises(nn.Module):
    feeds_on, target_form = "logits", "binary"

    def forward(self, logits, target):
        return {}["key"]

class Refuses(Raises):
    def forward(self, logits, target):
        raise ValueError("not today.")

class Flat(Raises):
    def forward(self, logits, target):
        return torch.zeros(())
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_events(Path("clean.h5"), clean_events(12))
    Path("own_bad.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("own_bad", None)


def error_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "--quiet"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if ": note: " not in line]
    assert line.startswith(f"dense-imb {words[0]}")
    return line


def train_words(*more: str) -> list[str]:
    return ["train", "hits", "--out", "run", "--hits.train", "clean.h5", "--hits.noise", "20",
            "--steps", "2", "--batch-size", "4", "--report", "false", *more]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        train_words("--hits.noise", HUGE),
        train_words("--hits.signal", HUGE),
        ["simulate", "a.h5", "--noise", HUGE],
        ["compare", "clean.h5", "--signal", "6", "--noise", HUGE],
        ["evaluate", "clean.h5", "--noise", HUGE],
    ],
    ids=lambda words: words[0],
)
def test_huge_numbers_of_hits_are_refused(capsys, words):
    assert f"of at most 100,000,000 hits an event, got {HUGE}" in error_of(capsys, *words)
    assert sorted(path.name for path in Path().iterdir()) == ["clean.h5", "own_bad.py"]


def test_numbers_that_no_option_bounds_are_one_sentence_too(capsys):
    line = error_of(capsys, "simulate", "a.h5", "--events", "2", "--seed", str(2**80))
    assert "Expected" in line


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        ("CrossEntropyLoss(reduction='none')", "Expected one number from the loss, got the shape"),
        (
            "own_bad:Raises",
            "`Raises` to return a loss, got KeyError: 'key' (after 0 steps); mend it",
        ),
        (
            "own_bad:Refuses",
            "Expected `Refuses` to return a loss, got ValueError: not today (after 0 steps)",
        ),
        (
            "FocalLoss + own_bad:Raises",
            "`Raises` to return a loss, got KeyError: 'key' (after",
        ),
        ("own_bad:Flat", "`Flat`, whose value does not depend on the network"),
    ],
)
def test_a_loss_that_fails_is_named_and_the_folder_is_free_again(capsys, loss, sentence):
    more = ["--allow-import", "own_bad"] if "own_bad" in loss else []
    assert sentence in error_of(capsys, *train_words("--loss", loss, *more))
    files = [path for path in Path("run").rglob("*") if path.is_file() and path.name != ".lock"]
    assert not files
    if loss == "own_bad:Flat":  # once: the corrected command
        assert main([*train_words("--loss", "FocalLoss"), "--quiet"]) == 0


@pytest.mark.parametrize("loss", ["null", "[1]", "3"])
def test_a_loss_that_is_no_text_is_refused(capsys, loss):
    Path("a.yaml").write_text(f"loss: {loss}\nsteps: 2\nhits: {{train: clean.h5, noise: 20}}\n")
    line = error_of(capsys, "train", "hits", "--out", "run", "--config", "a.yaml")
    assert "Expected a text in --loss, got" in line


def test_a_configuration_of_another_encoding_is_named(capsys):
    Path("a.yaml").write_bytes("steps: 2\n".encode("utf-16"))
    line = error_of(capsys, "train", "hits", "--out", "run", "--config", "a.yaml")
    assert "Expected text in UTF-8 in a.yaml, got other bytes; save the file as UTF-8." in line


def test_a_deep_hash_is_a_damaged_file(capsys):
    with h5py.File("clean.h5", "r+") as file:
        file.attrs["content_hash"] = np.bytes_(b"[" * 30000 + b"]" * 30000)
    line = error_of(capsys, "inspect", "clean.h5", "--verify")
    assert "Expected a readable attribute `content_hash`" in line
    words = ["denoise", "hit-density", "clean.h5", "out.h5", "--threshold", "0.5"]
    assert main([*words, "--quiet"]) == 0  # the hits are whole: they are hashed themselves


@pytest.mark.parametrize("n_events", [0, 12])
def test_events_without_hits_are_one_sentence_or_none(capsys, n_events):
    none = np.zeros(0, np.uint16)
    offset = np.zeros(n_events + 1, np.int64)
    write_events(Path("bare.h5"), Events(FRAME, offset, none, none, none, none.astype(np.uint8)))
    for words, code in [
        (["inspect", "bare.h5"], 0),
        (["denoise", "hit-density", "bare.h5", "out.h5", "--threshold", "0.5"], 0),
        (["denoise", "hit-density", "bare.h5", "o.h5", "--choose-on", "bare.h5"], 2),
        (["convert", "bare.h5", "bare.csv"], 0),
        (["convert", "bare.h5", "bare.npy"], 0),
        (["evaluate", "bare.h5"], 2),
        (train_words("--hits.train", "bare.h5"), 2),
        (["compare", "bare.h5", "--signal", "6", "--noise", "20", "--steps", "2"], 2),
    ]:
        assert main([*words, "--quiet"]) == code, words
        lines = capsys.readouterr().err.splitlines()
        assert sum(": error: Expected" in line for line in lines) == (code == 2), lines


def test_a_file_behind_a_list_of_numbers_is_a_file():
    parser = Parser("a program")
    parser.add_argument("paths", type=str, nargs="+")
    parser.add_argument("--noise", type=int, nargs="+", default=[])
    parser.add_argument("--names", type=str, nargs="+", default=[])
    parser.add_argument("--out", type=str)
    for words, paths, noise in [
        ("run --noise 20 a.h5", ["run", "a.h5"], [20]),
        ("--noise 20 40 run a.h5 --out b", ["run", "a.h5"], [20, 40]),
        ("run --noise 20 -1 a.h5 --out b", ["run", "a.h5"], [20, -1]),
        ("run a.h5 --noise 20", ["run", "a.h5"], [20]),
        ("run --names x y --noise 20 z", ["run", "z"], [20]),
    ]:
        options = parser.parse_args(words.split())
        assert (options.paths, options.noise) == (paths, noise), words
    with pytest.raises(SystemExit):
        parser.parse_args(["run", "--noise", "a.h5"])
