"""`train hits` and `inspect` name the columns of hits that a network does not see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dense_imb.cli import main
from dense_imb.config import HitsConfig, ModelConfig, TrainConfig
from dense_imb.hits import HitsFile
from dense_imb.hits.columns import describe_unseen, unseen_columns
from dense_imb.runs import Recipe
from tests.runs.tiny import clean_events, write_events
from tests.tasks.hits.test_networks_of_hits import telescope_events

pytestmark = pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning")


@pytest.fixture(scope="module")
def telescope(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("data") / "telescope.h5", telescope_events(12))


def remark(path: str, model: str = "hits:tiny", **hits: object) -> str:
    wanted = HitsConfig(train=path, validation_share=0.25, **hits)
    return Recipe.of(TrainConfig(hits=wanted, model=ModelConfig(name=model))).remark()


def test_the_command_names_unused_columns_once_before_training(telescope, tmp_path, capsys):
    typed = ["train", "hits", "--out", str(tmp_path / "run"), "--hits.train", telescope, "--steps",
             "1", "--batch_size", "2", "--model.name", "hits:tiny", "--report", "false",
             "--quiet"]  # fmt: skip
    assert main(typed) == 0
    note = (
        "dense-imb train hits: note: columns not used: charge, particle; --hits.features charge "
        "lets the network see charge.\n"
    )
    assert capsys.readouterr().err.count(note) == 1
    assert main([*typed, "--resume"]) == 0
    assert "columns not used" not in capsys.readouterr().err


def test_the_remark_fits_the_network_and_the_noise(telescope, tmp_path):
    assert remark(telescope, features=["charge"]) == "columns not used: particle."
    assert remark(telescope, features=["charge"], balance_over="particle") == ""
    assert "{hits.features=direction charge} lets" in remark(telescope, features=["direction"])
    clean = clean_events(6)
    charge = np.linspace(0, 1, clean.n_hits, dtype=np.float32)
    path = write_events(tmp_path / "clean.h5", replace(clean, hit={"charge": charge}))
    assert "with events that contain noise or with measured noise" in remark(path, noise=20)
    assert "{model.name=hits} with {hits.features=charge}" in remark(path, "fast_unet", noise=20)
    assert remark(write_events(tmp_path / "plain.h5", clean), noise=20) == ""


def test_results_of_denoising_are_no_features(telescope, tmp_path: Path):
    events = HitsFile(telescope)[:]
    own = {name: np.ones(events.n_hits, kind) for name, kind in
           (("score", np.float32), ("keep", bool), ("class", np.uint8))}  # fmt: skip
    path = write_events(tmp_path / "clean.h5", replace(events, hit={**events.hit, **own}))
    assert unseen_columns(HitsFile(path)) == ["charge", "particle"]
    assert describe_unseen(HitsFile(path)) == ("charge, particle", "charge")
    assert describe_unseen(HitsFile(path), ["charge", "particle"]) == ("", "")


def test_nothing_is_proposed_where_the_label_may_be_among_the_columns(tmp_path, capsys):
    events = telescope_events(8)
    columns = {name: column for name, column in events.hit_columns().items() if name != "label"}
    path = write_events(tmp_path / "a.h5", events.with_hits(events.offset, columns))
    assert main(["train", "hits", "--hits.train", path, "--out", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr().err
    assert "not used" not in printed
    assert "--columns label=NAME" in printed
