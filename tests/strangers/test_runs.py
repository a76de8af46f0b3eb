"""Opening the folder of a run that anybody made: nothing runs, and nothing outside it is read."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dense_imb.cli import main
from dense_imb.engine.checkpoint import load_checkpoint, save_checkpoint
from dense_imb.runs import open_run, train
from tests.runs.pictures import tiny_images, write_folders
from tests.runs.tiny import clean_events, tiny, write_events
from tests.strangers.watch import nothing_but

pytestmark = [
    pytest.mark.filterwarnings("ignore::dense_imb.engine.CollapseWarning"),
    pytest.mark.filterwarnings("ignore::dense_imb.hits.drift.DriftWarning"),
]

_RUNS = "import pathlib; pathlib.Path({trap!r}).touch()\n"
_NAMES = ("evil_losses", "hubconf", "segmentation_models_pytorch_2", "nibabel_2", "sitecustomize")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run on images and one on hits, with data to use them on."""
    root = tmp_path_factory.mktemp("trained")
    folders = write_folders(root / "pictures", 6, (32, 32))
    hits = write_events(root / "hits.h5", clean_events(8))
    short = {"steps": 2, "validate_every": 2}
    train(tiny_images(folders, **short), root / "images", is_quiet=True)
    train(tiny(hits, **short), root / "hits", is_quiet=True)
    return {"root": root, "images": root / "images", "hits": root / "hits"}


@pytest.fixture
def stranger(
    trained: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Path]]:
    """Copies of the runs with code in their folders, which are the current folder."""
    trap = tmp_path / "trap" / "ran"
    trap.parent.mkdir()

    def copy(kind: str) -> Path:
        folder = tmp_path / kind
        shutil.copytree(trained[kind], folder)
        code = _RUNS.format(trap=str(trap)) + "from torch.nn import MSELoss as Loss\n"
        for name in _NAMES:
            (folder / f"{name}.py").write_text(code)
        hub = folder / "hub" / "Project-MONAI_perceptual-models_main"
        hub.mkdir(parents=True)
        (hub / "hubconf.py").write_text(code)
        monkeypatch.chdir(folder)
        monkeypatch.syspath_prepend("")
        return folder

    yield copy
    for name in _NAMES:
        assert sys.modules.pop(name, None) is None
    assert not trap.exists()


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    for name, value in changes.items():
        place, _, inner = name.partition("__")
        if inner:
            stored[place][inner] = value
        else:
            stored[place] = value
    path.write_text(yaml.safe_dump(stored))


PERCEPTUAL = (
    'monai.losses:PerceptualLoss(spatial_dims=3, network_type="medicalnet_resnet10_23datasets", '
    'is_fake_3d=False, channel_wise=True, cache_dir="hub")'
)
LOSSES = (PERCEPTUAL, "evil_losses:Loss", "hubconf:Loss + FocalLoss")


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_is_read_without_its_loss(stranger, trained, loss):
    images, hits = stranger("images"), stranger("hits")
    for folder in (images, hits):
        change_config(folder, loss=loss, feature_loss=loss, allow_import=["evil_losses", "hubconf"])
    change_config(hits, hits__value_loss=loss)
    with nothing_but(images, hits):
        for folder in (images, hits):
            run = open_run(folder)
            run.trained(device="cpu")
            run.scores()
            assert run.summary()
        run.geometry()
        run.operating_point()


@pytest.mark.parametrize("loss", LOSSES[:2])
def test_commands_use_a_run_without_its_loss(stranger, trained, tmp_path, loss, capsys):
    root, images = trained["root"], stranger("images")
    change_config(images, loss=loss)
    pictures = [str(root / "pictures" / name) for name in ("images", "masks")]
    with nothing_but(images, root, tmp_path):
        assert main(["segment", ".", pictures[0], str(tmp_path / "out"), "--quiet"]) == 0
        assert main(["evaluate", ".", pictures[0], "--masks", pictures[1], "--quiet"]) == 0
    hits = stranger("hits")
    change_config(hits, loss=loss, hits__value_loss=loss)
    with nothing_but(hits, root, tmp_path):
        words = ["denoise", ".", str(root / "hits.h5"), str(tmp_path / "o.h5"), "--quiet"]
        assert main(words) == 0
    # to train on is another matter: the loss is refused, and nothing runs
    with nothing_but(hits, root, tmp_path):
        assert main(["train", "hits", "--out", ".", "--resume", "--steps", "4", "--quiet"]) == 2
        copied = ["--config", "config.yaml", "--out", "../new", "--quiet"]
        assert main(["train", "hits", *copied]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if ": error: " in line]
    assert len(lines) == 2
    for line in lines:
        assert "loads a network" in line or "nothing else is imported" in line


def link_config(folder: Path, secret: Path) -> None:
    secret.write_bytes((folder / "config.yaml").read_bytes())
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").symlink_to(secret)


def link_checkpoints(folder: Path, secret: Path) -> None:
    (folder / "checkpoints").rename(secret)
    (folder / "checkpoints").symlink_to(secret)


def link_a_checkpoint(folder: Path, secret: Path) -> None:
    best = next((folder / "checkpoints").glob("best-*.pt"))
    best.rename(secret)
    best.symlink_to(secret)


def link_metrics(folder: Path, secret: Path) -> None:
    (folder / "metrics.json").rename(secret)
    (folder / "metrics.json").symlink_to("../secret")


def pipe(folder: Path, secret: Path) -> None:
    (folder / "history.csv").unlink()
    os.mkfifo(folder / "history.csv")


def endless(folder: Path, secret: Path) -> None:
    (folder / "natural").mkdir(exist_ok=True)
    (folder / "natural" / "natural.json").unlink(missing_ok=True)
    (folder / "natural" / "natural.json").symlink_to("/dev/zero")


@pytest.mark.parametrize(
    "change", [link_config, link_checkpoints, link_a_checkpoint, link_metrics, pipe, endless]
)
def test_links_out_of_the_folder_are_refused(stranger, tmp_path, change):
    folder = stranger("images")
    change(folder, tmp_path / "secret")
    with nothing_but(folder), pytest.raises(ValueError, match=r"a link to|a pipe or a device"):
        open_run(folder)


def test_a_link_to_a_run_and_links_inside_it_are_followed(stranger, tmp_path):
    folder = stranger("images")
    (tmp_path / "linked").symlink_to(folder)
    (folder / "checkpoints").rename(folder / "kept")
    (folder / "checkpoints").symlink_to("kept")
    (folder / "data").symlink_to("/dev")  # nothing that is read
    assert open_run(tmp_path / "linked").trained(device="cpu").name == "images"


BOMB = "a0: &a0 [x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12)
)
HOSTILE = {
    "billion laughs": (f"{BOMB}loss: *a11\n", r"the alias \*a0"),
    "an object": ("loss: !!python/object/apply:os.system ['true']\n", "could not determine"),
    "deep": ("loss: " + "[" * 100_000, "values in more than 50 brackets"),
    "deep without brackets": ("? " * 20_000, "nested too deeply"),
    "large": ("loss: " + "x" * (1 << 21), "more than 1,048,576 characters"),
    "binary": ("\x00\x01", "special characters"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_one_sentence(stranger, name, capsys):
    folder = stranger("images")
    text, sentence = HOSTILE[name]
    (folder / "config.yaml").write_text(text)
    start = time.process_time()
    with nothing_but(folder):
        with pytest.raises(ValueError, match=sentence):
            open_run(folder)
        assert main(["train", "images", "--config", "config.yaml", "--out", "new"]) == 2
        assert main(["segment", ".", ".", "out"]) == 2
    assert time.process_time() - start < 5
    for line in capsys.readouterr().err.splitlines():
        assert "Expected YAML in" in line


def test_scores_of_more_counts_than_their_file_holds_are_refused(stranger):
    folder = stranger("hits")
    for path in folder.rglob("*scores.json"):
        stored = json.loads(path.read_text())
        stored["settings"]["n_bins"] = 10**11
        path.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="more counts than its"):
        open_run(folder).scores()


@pytest.mark.parametrize("name", ["metrics.json", "history.csv", "validation_scores.json"])
def test_damaged_records_are_one_sentence(stranger, name):
    folder = stranger("images")
    (folder / name).write_bytes(b"\xff[[[")
    for path in folder.rglob(name):
        path.write_bytes(b"\xff[[[")
    run = open_run(folder)
    with pytest.raises(ValueError, match=f"Expected .*{name}"):
        (run.metrics, run.history, run.scores())


def test_a_network_of_another_size_is_refused_before_it_takes_memory(stranger):
    folder = stranger("images")
    change_config(folder, model__options={"widths": [100_000, 1_000_000]})
    with pytest.raises(ValueError, match="Expected weights of fast_unet"):
        open_run(folder).trained(device="cpu")


def test_a_window_of_another_size_is_refused_before_it_takes_memory(stranger):
    folder = stranger("images")
    for path in (folder / "checkpoints").glob("best-*.pt"):
        content = load_checkpoint(path)
        reading = json.loads(content["setup"]["images"])
        content["setup"]["images"] = json.dumps({**reading, "patch": [1 << 20, 1 << 20]})
        save_checkpoint(path, content)
    with pytest.raises(ValueError, match="a frame of at most 268,435,456 pixels"):
        open_run(folder).trained(device="cpu")


def no_download(*_: object, **__: object) -> None:
    raise AssertionError("a download")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be asked for, not even in a cache."""
    import timm.models._builder as builder
    from monai.networks.nets import efficientnet
    from segmentation_models_pytorch import encoders

    monkeypatch.setattr(encoders, "hf_hub_download", no_download)
    monkeypatch.setattr(encoders, "load_url", no_download, raising=False)
    monkeypatch.setattr(builder, "load_pretrained", no_download)
    monkeypatch.setattr(efficientnet.model_zoo, "load_url", no_download)


NETWORKS = {
    "smp:Unet/resnet18": {"encoder_weights": "imagenet"},
    "smp:Unet/tu-resnet18": {"encoder_weights": True},
    "monai:FlexibleUNet": {"pretrained": True},
}


@pytest.mark.filterwarnings("ignore:Error loading resnet18:UserWarning")  # of smp 0.5
@pytest.mark.parametrize("name", NETWORKS)
def test_weights_that_follow_are_not_downloaded(offline, name):
    from dense_imb.config import ImagesConfig, ModelConfig, TrainConfig
    from dense_imb.tasks import Recipe

    config = TrainConfig(
        images=ImagesConfig(train="none", masks="none"), model=ModelConfig(name, NETWORKS[name])
    )
    recipe = Recipe.read(config)
    sizes = {"in_channels": 3, "out_channels": 1, "frame": (64, 64), "spatial_dims": 2}
    with pytest.raises(AssertionError, match="a download"):
        recipe.network(sizes)
    weights = recipe.without_download().network(sizes).state_dict()
    network = recipe.trained_network(sizes, weights)
    torch.testing.assert_close(network.state_dict(), weights)


@pytest.mark.parametrize(
    "name",
    ["smp:Unet/tu-hf-hub:a/b", "smp:Unet/tu-local-dir:/tmp", "smp:Unet/tu-hf-hub:resnet18.x",
     "smp:Unet/../x", "timm:hf-hub:a/b"],
)  # fmt: skip
def test_names_of_networks_that_lead_elsewhere_are_refused(offline, name):
    from dense_imb.models import build_classifier_network, build_model

    build: Any = build_model
    sizes = {"in_channels": 3, "out_channels": 1}
    if name.startswith("timm"):
        build, sizes = build_classifier_network, {"in_channels": 3, "n_classes": 2}
    with pytest.raises(ValueError, match="Expected one of"):
        build(name, **sizes)
