"""Data and configurations that would give wrong numbers are refused with one sentence."""

from __future__ import annotations

import pytest
import yaml

from dense_imb.runs import Recipe, open_run, train
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import clean_events, tiny, write_events

QUICK = {"steps": 1, "validate_every": 1}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_events(tmp_path_factory.mktemp("wrong") / "train.h5", clean_events(12))


def test_measured_noise_with_signal_is_refused(path):
    with pytest.raises(ValueError, match=r"96 of 96 hits labelled as signal in .*train\.h5"):
        Recipe.of(tiny(path, hits={"measured_noise": path, "noise": 20}))


def test_measured_noise_that_changes_nothing_is_refused(path):
    with pytest.raises(ValueError, match=r"`hits\.measured_noise` changes nothing while"):
        Recipe.of(tiny(path, hits={"measured_noise": path, "noise": 0}))
    with pytest.raises(ValueError, match=r"`hits\.measured_weight` changes nothing without"):
        Recipe.of(tiny(path, hits={"measured_weight": 2.0}))


def test_the_label_of_hits_without_a_class_is_no_class(path):
    config = tiny(path, model={"name": "hits", "options": {}}, hits={"n_classes": 256})
    with pytest.raises(ValueError, match="`n_classes` from 2 to 255, got 256"):
        Recipe.of(config)


def edit(folder, section, **changes):
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    stored[section] |= changes
    (folder / "config.yaml").write_text(yaml.safe_dump(stored))


@pytest.mark.parametrize(
    "change", [{"threshold": 0.25}, {"channels": ["hit", "fourier", "gapped"]}]
)
def test_an_edited_reading_of_frames_is_refused(path, tmp_path, change):
    train(tiny(path, **QUICK), tmp_path / "run", is_quiet=True)
    open_run(tmp_path / "run").trained(device="cpu")
    edit(tmp_path / "run", "hits", **change)
    with pytest.raises(ValueError, match=r"as in the checkpoint, Reading\(.*which was edited"):
        open_run(tmp_path / "run").trained(device="cpu")


def test_edited_labels_of_masks_are_refused(tmp_path):
    folders = write_folders(tmp_path / "data", values=(0, 255))
    config = tiny_images(folders, images={"labels": [0, 255]}, **QUICK)
    train(config, tmp_path / "run", is_quiet=True)
    open_run(tmp_path / "run").trained(device="cpu")
    edit(tmp_path / "run", "images", labels=[255, 0])
    with pytest.raises(ValueError, match=r"labels as in the checkpoint, \(0, 255\)"):
        open_run(tmp_path / "run").trained(device="cpu")
