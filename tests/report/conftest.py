"""A run of a tiny network, trained once."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dense_imb.config import HitsConfig, ModelConfig, TrainConfig
from dense_imb.engine import CollapseWarning
from dense_imb.hits import Degradation, Events, Geometry, degrade, simulate
from dense_imb.runs import train
from tests.hits.files import write

FRAME = Geometry(24, 20, 100)


def clean_events(n_events: int, seed: int) -> Events:
    return simulate("arc", n_events, seed, FRAME, n_photons=60)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clean events to train on and to test on, and noisy ones."""
    folder = tmp_path_factory.mktemp("files")
    write(folder / "train.h5", clean_events(80, 1))
    clean = clean_events(40, 2)
    write(folder / "clean.h5", clean)
    write(folder / "noisy.h5", degrade(clean, Degradation(signal=8, noise=40), seed=2))
    return folder


def config_of(files: Path) -> TrainConfig:
    hits = HitsConfig(train=str(files / "train.h5"), validation_share=0.3, signal=8, noise=30)
    model = ModelConfig(name="fast_unet", options={"widths": [4, 8]})
    return TrainConfig(hits=hits, model=model, steps=30, batch_size=8, validate_every=10)


def trained_in(folder: Path, config: TrainConfig) -> Path:
    with warnings.catch_warnings():  # thirty steps teach little
        warnings.simplefilter("ignore", CollapseWarning)
        train(config, folder, is_quiet=True)
    return folder


@pytest.fixture(scope="session")
def trained(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_in(tmp_path_factory.mktemp("runs") / "tiny", config_of(files))


@pytest.fixture(scope="session")
def value_run(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose output is a time, its loss one of values."""
    config = config_of(files)
    hits = replace(config.hits, output="value", target="pattern", pixels="frame")
    config = replace(config, hits=hits, loss="ACBMSELoss")
    return trained_in(tmp_path_factory.mktemp("runs") / "values", config)


@pytest.fixture
def run_folder(trained: Path, tmp_path: Path) -> Path:
    """A run that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "tiny"))


@pytest.fixture
def edited(run_folder: Path) -> Callable[[str, str, str], Path]:
    """The run with a text replaced in one of its files."""

    def edit(name: str, old: str, new: str) -> Path:
        text = (run_folder / name).read_text()
        assert old in text
        (run_folder / name).write_text(text.replace(old, new))
        return run_folder

    return edit
