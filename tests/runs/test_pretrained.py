"""Networks that come with the package: there, small, and as good as their card says."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest

import dense_imb
from dense_imb.cli import main
from dense_imb.hits import Degradation, Events, HitsFile, Sensors, degrade, evaluate, simulate
from dense_imb.runs.pretrained import CARD, pretrained_names
from tests.runs.tiny import write_events


def test_all_fit_into_a_megabyte():
    names = pretrained_names()
    assert names == ["arc", "km3net"]
    folders = [dense_imb.pretrained(name).folder for name in names]
    size = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    assert size < 1_000_000
    for folder in folders:
        card = (folder / CARD).read_text()
        assert "MIT licence" in card
        assert "of the noise removed" in card


def noisy(n_events: int, noise: int = 200, pattern: str = "arc") -> Events:
    clean = simulate(pattern, n_events, seed=77)
    return degrade(clean, Degradation(signal=30, noise=noise), seed=77)


def test_arcs_are_found_as_the_card_says():
    network = dense_imb.pretrained("arc")
    scorer = network.trained(device="cpu")
    table = evaluate([scorer], None, noisy(60), stored={"arc": network.scores()})
    assert table["arc"]["removal"] > 0.995
    assert table["arc"]["retention"] > 0.95


def test_a_raw_file_is_cleaned_without_training(tmp_path, capsys):
    raw = write_events(tmp_path / "raw.h5", noisy(20))
    clean = str(tmp_path / "clean.h5")
    assert main(["denoise", "--pretrained", "arc", raw, clean, "--quiet"]) == 0
    assert "of the noise removed" in capsys.readouterr().out
    assert HitsFile(clean)[:].hit["keep"].sum() > 500


def test_a_labelled_file_measures_it(tmp_path, capsys):
    labelled = write_events(tmp_path / "labelled.h5", noisy(40))
    assert main(["evaluate", "--pretrained", "arc", labelled, "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "\narc " in printed
    assert "\nhit density " in printed


def test_a_frame_with_x_and_y_exchanged_names_the_options_that_turn_it(tmp_path, capsys):
    (tmp_path / "raw.csv").write_text("event,row,col,t\n" + "0,80,127,500\n0,70,120,505\n")
    raw, clean = str(tmp_path / "raw.h5"), str(tmp_path / "clean.h5")
    words = ["convert", str(tmp_path / "raw.csv"), raw, "--overwrite"]
    turned = ["--width", "128", "--height", "88", "--time-steps", "1000"]
    assert main([*words, "--columns", "x=col,y=row", *turned]) == 0
    assert main(["denoise", "--pretrained", "arc", raw, clean, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "x and y are exchanged: convert your data again with --columns" in error
    cure = error[error.index("--columns") :].rstrip(".\n").split()
    cure[1] = cure[1].replace("COLUMN_OF_Y", "row").replace("COLUMN_OF_X", "col")
    assert main([*words, *cure]) == 0
    assert main(["denoise", "--pretrained", "arc", raw, clean, "--quiet"]) == 0


def test_events_unlike_the_training_are_noted(tmp_path, capsys):
    raw = write_events(tmp_path / "raw.h5", noisy(60, pattern="cross"))
    assert main(["denoise", "--pretrained", "arc", raw, str(tmp_path / "c.h5"), "--quiet"]) == 0
    assert "validation" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (
            ["--pretrained", "arcs"],
            "pretrained network, .*got 'arcs'. Did you mean 'arc'",
        ),
        ([], "Expected a hits file and the file to write, got"),
    ],
)
def test_bad_names_are_one_sentence(tmp_path, capsys, typed, sentence):
    raw = write_events(tmp_path / "raw.h5", noisy(2))
    words = ["denoise", *typed, raw, str(tmp_path / "clean.h5"), "--quiet"]
    assert main(words if typed else ["denoise", "--pretrained", "arc", raw]) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_another_geometry_says_what_it_was_trained_on(tmp_path, capsys):
    table = Sensors(np.random.default_rng(0).normal(size=(5, 3)))
    one = Events(table, np.array([0, 2]), t=np.zeros(2, np.float32), sensor=np.array([0, 1]))
    raw = write_events(tmp_path / "raw.h5", one)
    assert main(["denoise", "--pretrained", "arc", raw, str(tmp_path / "clean.h5")]) == 2
    assert "as arc was trained on, got 5 sensors in 3-D" in capsys.readouterr().err
    assert not (tmp_path / "clean.h5").exists()


def test_a_telescope_is_cleaned_out_of_its_raw_file(tmp_path, capsys):
    """From somebody else's file to a clean one in two commands, on events that no training met."""
    data = os.environ.get("DENSE_IMB_DATA")
    if data is None:
        pytest.skip("needs DENSE_IMB_DATA, the folder of the example data")
    source, hits = f"{data}/km3net_muons/events.h5", str(tmp_path / "hits.h5")
    assert main(["convert", source, hits, "--columns", "t=hit/t_ns", "--quiet"]) == 0
    with HitsFile(hits, in_memory=False) as file:
        raw = write_events(tmp_path / "raw.h5", file[350:354])
    capsys.readouterr()
    clean = str(tmp_path / "clean.h5")
    assert main(["denoise", "--pretrained", "km3net", raw, clean, "--quiet"]) == 0
    printed = capsys.readouterr().out
    removed = re.search(r"([0-9.]+) % of the noise removed", printed)
    assert removed is not None
    assert float(removed[1]) > 99
