"""Old configurations and run folders are read; options of another kind are refused with a cure."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dense_imb.cli import main
from dense_imb.cli.train import TrainParser, config_of
from dense_imb.config import HitsConfig, TrainConfig
from dense_imb.runs import open_run, read_config
from dense_imb.tasks.recipe import Recipe
from tests.runs.tiny import assert_same_runs, clean_events, write_events

OLD = """
data: {{train: {path}, signal: 6, noise: 20, validation_share: 0.25, validation_events: 2000}}
pixels: frame
target: signal
retention: 0.95
value_loss: ACBMSELoss
table: {{train: null, flips: horizontal}}
cifar: {{path: null, imb_ratio: 1.0}}
mixing: {{kind: mixup, alpha: 0.2, hits: union}}
model: {{name: fast_unet, options: {{widths: [4, 8]}}, channels: [gapped, hit], output: score}}
steps: 4
batch_size: 4
"""
NEW = """
hits: {{train: {path}, signal: 6, noise: 20, validation_share: 0.25, validation_events: 2000,
  pixels: frame, retention: 0.95, mixing: union, channels: [gapped, hit]}}
mixing: {{kind: mixup, alpha: 0.2}}
model: {{name: fast_unet, options: {{widths: [4, 8]}}}}
loss: CrossEntropyLoss
steps: 4
batch_size: 4
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_events(tmp_path_factory.mktemp("data") / "clean.h5", clean_events(24))


def config_in(text: str, kind: str, folder: Path) -> TrainConfig:
    file = folder / "config.yaml"
    file.write_text(text)
    options = TrainParser(kind).parse_args(["--config", str(file), "--out", str(folder / "run")])
    return config_of(options, kind, folder / "run")


def refused(capsys: pytest.CaptureFixture[str], *typed: object) -> str:
    """Return the one line that a refused command prints."""
    try:
        code = main([str(word) for word in typed])
    except SystemExit as end:
        code = int(end.code or 0)
    printed = capsys.readouterr()
    assert (code, printed.err.count("\n")) == (2, 1), printed.err
    return printed.err


def train(text: str, folder: Path) -> Path:
    config = folder.with_suffix(".yaml")
    config.write_text(text)
    words = ["--config", config, "--out", folder, "--quiet", "--report", "false"]
    assert main(["train", "hits", *map(str, words)]) == 0
    return folder


def test_an_old_configuration_of_hits_trains_the_same_run(path, tmp_path):
    old, new = (train(text.format(path=path), tmp_path / n) for n, text in (("o", OLD), ("n", NEW)))
    assert_same_runs(old, new)
    stored = yaml.safe_load((old / "config.yaml").read_text())
    assert not {"data", "table", "cifar", "pixels", "retention"} & set(stored)
    assert stored["hits"]["mixing"] == "union"


def test_an_old_run_folder_opens(path, tmp_path, capsys):
    folder = train(NEW.format(path=path), tmp_path / "run")
    recipe = open_run(folder).recipe
    (folder / "config.yaml").write_text(OLD.format(path=path))
    assert open_run(folder).recipe.config == recipe.config
    assert main(["train", "hits", "--out", str(folder), "--resume", "--quiet"]) == 0
    assert "finished before" in capsys.readouterr().out


@pytest.mark.parametrize("written", ["pixels: frame\n", "data: {{noise: 20}}\n", OLD])
def test_an_old_configuration_without_a_network_trains_a_unet(written, path, tmp_path):
    text = re.sub("model: .*\n", "", written.format(path=path))
    recipe = Recipe.of(with_train(config_in(text, "hits", tmp_path), path))
    assert recipe.config.model.name == "fast_unet"
    assert (recipe.config.optimizer.name, recipe.config.optimizer.learning_rate) == ("adamw", 0.006)
    file = tmp_path / "config.yaml"
    typed = ["--config", str(file), "--out", str(tmp_path), "--model.name", "hits"]
    assert config_of(TrainParser("hits").parse_args(typed), "hits", tmp_path).model.name == "hits"


def with_train(config: TrainConfig, path: str) -> TrainConfig:
    return replace(config, hits=replace(config.hits, train=path))


@pytest.mark.parametrize("left_out", ["model", "model.name", "optimizer", "optimizer.name"])
def test_an_old_run_folder_without_these_is_one_of_a_unet(left_out, path, tmp_path, capsys):
    folder = train(NEW.format(path=path), tmp_path / "run")
    recipe = open_run(folder).recipe
    file = folder / "config.yaml"
    stored = yaml.safe_load(file.read_text())
    stored["model"]["options"] = {"widths": [4, 8]}
    section, _, name = left_out.partition(".")
    del (stored[section] if name else stored)[name or section]
    file.write_text(yaml.safe_dump(stored))
    read = open_run(folder).recipe.config
    assert (read.model.name, read.optimizer) == ("fast_unet", recipe.config.optimizer)
    if left_out != "model":  # and with it the widths
        open_run(folder).trained(device="cpu")
        assert main(["train", "hits", "--out", str(folder), "--resume", "--quiet"]) == 0
        assert "finished before" in capsys.readouterr().out


def test_an_old_configuration_of_images_holds_the_defaults_of_hits(tmp_path):
    """Runs store every option, and events were mixed as frames by default."""
    text = "images: {train: a, masks: b}\nhits: {train: [], mixing: linear, noise: 0}\n"
    config = config_in(text, "images", tmp_path)
    assert Recipe.of(config).config.hits == HitsConfig()
    assert read_config(str(tmp_path / "config.yaml")).hits == HitsConfig()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("table: {train: a.csv, images: x}\ncifar: {path: null}\n", ("a.csv", "x", 1.0)),
        ("cifar: {path: c.tar.gz, imb_ratio: 100}\ntable: {images: null}\n",
         ("c.tar.gz", None, 100.0)),
    ],
)  # fmt: skip
def test_old_sections_of_whole_images_are_read(text, wanted, tmp_path):
    labels = config_in(text, "labels", tmp_path).labels
    assert (labels.train, labels.images, labels.imb_ratio) == wanted


def test_options_of_another_kind_lead_to_its_command(capsys):
    told = refused(capsys, "train", "hits", "--out", "run", "--images.masks", "x")
    assert told == (
        "dense-imb train hits: error: --images.masks is an option of images, not of hits; drop it, "
        "or type dense-imb train images --images.masks.\n"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("--data.noise", "--hits.noise"),
        ("--data.validation-share", "--hits.validation_share"),
        ("--pixels", "--hits.pixels"),
        ("--model.output", "--hits.output"),
    ],
)
def test_old_options_lead_to_their_names(old, new, capsys):
    told = refused(capsys, "train", "hits", "--out", "run", old, "3")
    assert told == f"dense-imb train hits: error: {old} was renamed; type {new}.\n"


def test_old_options_of_another_kind_lead_to_its_command(capsys):
    told = refused(capsys, "train", "images", "--out", "run", "--cifar.imb_ratio", "3")
    assert "--cifar.imb_ratio is an option of labels" in told
    assert "dense-imb train labels --labels.imb_ratio" in told


@pytest.mark.parametrize("text", [OLD, NEW])
def test_a_configuration_of_another_kind_names_its_command(text, path, tmp_path, capsys):
    config = tmp_path / "hits.yaml"
    config.write_text(text.format(path=path))
    told = refused(capsys, "train", "images", "--config", config, "--out", tmp_path / "run")
    assert told == (
        "dense-imb train images: error: Expected a configuration of images, got one of hits; "
        "dense-imb train hits takes it.\n"
    )


def test_training_without_a_kind_says_the_whole_command(path, tmp_path, capsys):
    config = tmp_path / "old.yaml"
    config.write_text(OLD.format(path=path))
    for typed in (["--config", config, "--out", "run"], ["--out", "run", "--data.noise", "3"]):
        words = " ".join(map(str, typed))
        told = refused(capsys, "train", *typed)
        assert told.endswith(f"type dense-imb train hits {words}.\n")
    assert "hits|images|labels|values --out run" in refused(capsys, "train", "--out", "run")
    assert "Did you mean 'images'?" in refused(capsys, "train", "image")


def test_hyphens_and_underscores_are_one(path, tmp_path, capsys):
    for option in ("--batch-size", "--batch_size", "--BATCH_SIZE"):
        options = TrainParser("hits").parse_args(["--out", "run", option, "3"])
        assert config_of(options, "hits", Path("run")).batch_size == 3
    first = TrainParser("hits").parse_args(["--warm_start", "run"])
    assert first.warm_start == TrainParser("hits").parse_args(["--warm-start", "run"]).warm_start
    for option in ("--time-steps", "--time_steps"):
        out = tmp_path / f"{option}.h5"
        assert main(["simulate", str(out), "--events", "3", option, "50", "--quiet"]) == 0
    for option in ("--batch-size", "--batch_size"):
        told = refused(capsys, "evaluate", path, option, "many")
        assert "Expected a whole number in --batch-size, got 'many'" in told
