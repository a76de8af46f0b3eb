"""Runs of tiny networks, each trained and exported once."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from dense_imb.config import TrainConfig
from dense_imb.engine import CollapseWarning
from dense_imb.export import Exported, export_run
from dense_imb.runs import Run, open_run, train
from dense_imb.tasks.images.recipe import FewPixelsWarning
from tests.runs.labelled_pictures import of_table, write_tables
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import clean_events, tiny, write_events
from tests.tasks.hits.test_networks_of_hits import telescope_events

pytest.importorskip("onnxruntime", reason="ONNX is an extra: pip install 'dense-imb[export]'")


_COSINE = {"depth": 8, "width": 4, "head": "cosine"}


class Case(NamedTuple):
    """A run and the file that it became."""

    run: Run
    exported: Exported


def _hits(folder: Path, **changes: object) -> TrainConfig:
    return tiny(write_events(folder / "clean.h5", clean_events(40)), **changes)


_WINDOW = {"width": 8, "depth": 2, "heads": 1, "window": 26}


def _network_of_hits(folder: Path, **hits: object) -> TrainConfig:
    """Events of 6 to 46 hits on a grid, some above the window."""
    model = {"name": "hits", "options": _WINDOW}
    return _hits(folder, model=model, hits={"noise": [0, 40], **hits})


def _sensors(folder: Path, window: int, **hits: object) -> TrainConfig:
    """Events of 39 hits at sensors."""
    path = write_events(folder / "telescope.h5", telescope_events(24))
    model = {"name": "hits", "options": {**_WINDOW, "window": window}}
    return tiny(path, model=model, hits={"noise": 0, "signal": None, **hits})


def _volumes(folder: Path) -> TrainConfig:
    folders = write_folders(folder, 6, (20, 24, 28), 3, values=(0, 7, 9))
    unet = {"channels": [4, 8], "strides": [2], "num_res_units": 1}
    return tiny_images(
        folders,
        images={"patch": [16, 16, 16], "labels": [0, 7, 9]},
        model={"name": "monai:UNet", "options": unet},
    )


CASES: dict[str, tuple[str, Callable[[Path], TrainConfig]]] = {
    "scores.onnx": ("denoiser", _hits),
    "both.pt2": ("denoiser", lambda f: _hits(f, hits={"output": "both", "channels": ["hit"]})),
    "values.pt2": (
        "denoiser",
        lambda f: _hits(
            f, hits={"output": "value", "target": "pattern", "pixels": "frame"}, loss="ACBMSELoss"
        ),
    ),
    "hits.onnx": ("hits", _network_of_hits),
    "sensors.onnx": ("hits", lambda f: _sensors(f, 64, features=["charge", "direction"])),
    "particles.pt2": (
        "hits",
        lambda f: _sensors(f, 64, features=["charge"], n_classes=3, value="charge"),
    ),
    "long.pt2": ("hits", lambda f: _sensors(f, 20, features=[])),
    "binary.onnx": (
        "segmenter",
        lambda f: tiny_images(write_folders(f, values=(0, 255)), images={"labels": [0, 255]}),
    ),
    "volumes.pt2": ("segmenter", _volumes),
    "fixed.onnx": (
        "segmenter",
        lambda f: tiny_images(
            write_folders(f),
            model={"name": "autoencoder", "options": {"latent": 4, "width": 4, "hidden": 8}},
            loss="ACBMSELoss",  # of values
        ),
    ),
    "skin.onnx": ("classifier", lambda f: of_table(write_tables(f), labels={"size": [20, 28]})),
    "margins.pt2": (
        "classifier",
        lambda f: of_table(  # cosines with a scale
            write_tables(f), loss="LDAM-RW", model={"options": _COSINE}
        ),
    ),
}


@pytest.fixture(scope="session")
def case_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    """A case by its file's name."""
    made: dict[str, Case] = {}

    def make(name: str) -> Case:
        if name not in made:
            folder = tmp_path_factory.mktemp(name.replace(".", "_"))
            with warnings.catch_warnings():  # ten steps teach little
                warnings.simplefilter("ignore", CollapseWarning)
                warnings.simplefilter("ignore", FewPixelsWarning)  # of volumes
                train(CASES[name][1](folder), folder / "run", is_quiet=True)
            run = open_run(folder / "run")
            made[name] = Case(run, export_run(run, folder / name))
        return made[name]

    return make
