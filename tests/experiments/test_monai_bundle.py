"""The MONAI bundle, with MONAI's own commands: metadata, network, training, inference."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.limits import HANG_SECONDS

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "experiments" / "monai_bundle"
SCHEMA = ROOT / "tests" / "reference" / "monai_bundle_schema.json"
DATA = os.environ.get("DENSE_IMB_DATA")
NEEDED = {"ignite": "pytorch-ignite", "fire": "fire", "jsonschema": "jsonschema"}
MISSING = [package for module, package in NEEDED.items() if not importlib.util.find_spec(module)]

needs_bundle_commands = pytest.mark.skipif(
    bool(MISSING), reason=f"python -m monai.bundle needs {', '.join(MISSING)}: not installed"
)
TINY = ["--network_def::channels", "[8, 16, 16, 16]", "--patch", "[64, 64]"]
QUICK = [*TINY, "--epochs", "2", "--val_interval", "1", "--epoch_length", "6"]


@pytest.fixture
def bundle(tmp_path):
    """A copy: a run leaves weights and predictions in it."""
    return Path(
        shutil.copytree(BUNDLE, tmp_path / "bundle", ignore=shutil.ignore_patterns("models"))
    )


def monai_bundle(bundle: Path, *words: str) -> str:
    """Run `python -m monai.bundle` there, and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "monai.bundle", *words],
        cwd=bundle, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def train(bundle: Path, data: Path | str, *words: str) -> str:
    config = ["--config_file", "configs/train.yaml", "--dataset_dir", str(data)]
    return monai_bundle(bundle, "run", *config, *words)


def predict(bundle: Path, data: Path | str, *words: str) -> str:
    config = ["--config_file", "configs/inference.yaml", "--dataset_dir", str(data)]
    return monai_bundle(bundle, "run", *config, *words)


def crack_images(folder: Path, n: int = 6, *, is_grey: bool = False) -> Path:
    """Bright lines of two pixels on dark noise, wider than high; masks are 0 and 255."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for i in range(n):
        mask = np.zeros((96, 112), bool)
        row = int(rng.integers(5, 60))
        mask[row : row + 2, 10:100] = True  # in the upper part: a flipped result is seen
        image = rng.integers(0, 90, (96, 112, 3)) + 150 * mask[..., None]
        image = image[..., 0] if is_grey else image
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"{i}.png")
        Image.fromarray(255 * mask.astype(np.uint8)).save(folder / "masks" / f"{i}.png")
    return folder


def test_the_loss_is_ours_by_its_full_path():
    config = yaml.safe_load((BUNDLE / "configs" / "train.yaml").read_text())
    assert config["loss"] == {
        "_target_": "dense_imb.losses.HardMiningLoss",
        "balance": {"_target_": "dense_imb.losses.Balance"},
    }
    assert config["train"]["trainer"]["loss_function"] == "@loss"


def test_training_and_inference_mean_the_same_network():
    both = [
        yaml.safe_load((BUNDLE / "configs" / f"{name}.yaml").read_text())
        for name in ("train", "inference")
    ]
    for key in ("network_def", "patch", "bundle_root", "device"):
        assert both[0][key] == both[1][key]
    for config in both:  # a bundle of colour images must not fail on grey ones
        assert config["network_def"]["in_channels"] == "@in_channels"
        assert config["in_channels"]["_target_"].endswith(".count_channels")


def test_metadata_is_what_monai_wants():
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text())
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(metadata, schema)
    for broken in (
        {key: value for key, value in metadata.items() if key != "numpy_version"},
        {**metadata, "network_data_format": {"inputs": {}}},
        {**metadata, "authors": ["one", "two"]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)


@pytest.mark.slow
@needs_bundle_commands
def test_verify_metadata_and_network(bundle):
    # a schema that is there already is not downloaded
    shutil.copy(SCHEMA, bundle / "schema.json")
    files = ["--meta_file", "configs/metadata.json"]
    told = monai_bundle(bundle, "verify_metadata", *files, "--filepath", "schema.json")
    assert "metadata is verified with no error" in told
    for config in ("train", "inference"):
        told = monai_bundle(
            bundle, "verify_net_in_out", "--net_id", "network_def", *files,
            "--config_file", f"configs/{config}.yaml", "--in_channels", "3", "--device", "cpu",
            "--n", "3",
        )  # fmt: skip
        assert "data shape of network is verified with no error" in told


@pytest.mark.slow
@needs_bundle_commands
def test_train_then_infer_on_images_of_ones_own(bundle, tmp_path):
    data = crack_images(tmp_path / "data")
    told = train(bundle, data, *QUICK, "--learning_rate", "0.02")
    assert "gradient_share_1" in told
    assert "val_average_precision" in told
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    again = tmp_path / "again"
    train(bundle, data, *QUICK, "--learning_rate", "0.02", "--ckpt_dir", str(again))
    same = torch.load(again / "model.pt", weights_only=True)
    assert list(same) == list(weights)
    assert all(torch.equal(same[key], weights[key]) for key in weights), "not deterministic"

    predict(bundle, data, *TINY)
    made = sorted((bundle / "predictions").iterdir())
    assert [path.name for path in made] == [f"{i}.png" for i in range(6)]
    hit = wrong = 0
    for path in made:
        kept = np.asarray(Image.open(path))
        true = np.asarray(Image.open(data / "masks" / path.name)) > 0
        assert kept.shape == true.shape
        assert set(np.unique(kept)) <= {0, 255}
        hit += int(((kept > 0) & true).sum())
        wrong += int(((kept > 0) != true).sum())
    assert 2 * hit / (2 * hit + wrong) > 0.5  # bright lines are easy: and they lie where they are


@pytest.mark.slow
@needs_bundle_commands
def test_grey_images_need_no_option(bundle, tmp_path):
    data = crack_images(tmp_path / "data", is_grey=True)
    train(bundle, data, *TINY, "--epochs", "1", "--val_interval", "1", "--epoch_length", "2")
    predict(bundle, data, *TINY)
    assert len(list((bundle / "predictions").glob("*.png"))) == 6


@pytest.mark.slow
@needs_bundle_commands
@pytest.mark.parametrize("kind", ["dice", "instances"])
def test_region_losses_take_the_place_of_the_loss(bundle, tmp_path, kind):
    data = crack_images(tmp_path / "data")
    words = ["--config_file", "['configs/train.yaml', 'configs/instances.yaml']"]
    if kind == "dice":
        dice = json.dumps({"_target_": "dense_imb.losses.DiceLoss"})
        words = ["--config_file", "configs/train.yaml", "--loss", dice]
    printed = monai_bundle(
        bundle, "run", *words, "--dataset_dir", str(data), *QUICK, "--learning_rate", "0.02"
    )
    assert "gradient_share_1" in printed
    scores = re.findall(r"val_average_precision: (\d\.\d+)", printed)
    assert float(scores[-1]) > 0.5


@pytest.mark.slow
@needs_bundle_commands
@pytest.mark.skipif(DATA is None, reason="DENSE_IMB_DATA is not set: no crack images")
def test_it_runs_on_real_cracks(bundle, tmp_path):
    assert DATA is not None
    cracks, few = Path(DATA).resolve() / "crackforest", tmp_path / "few"
    for kind, suffix in (("images", "jpg"), ("masks", "png")):
        (few / kind).mkdir(parents=True)
        for i in range(1, 11):
            shutil.copy(cracks / kind / f"{i:03}.{suffix}", few / kind)
    told = train(bundle, few, "--epochs", "1", "--val_interval", "1", "--epoch_length", "4")
    assert "val_average_precision" in told
    predict(bundle, few)
    assert len(list((bundle / "predictions").glob("*.png"))) == 10


@pytest.mark.slow
@needs_bundle_commands
def test_an_image_without_a_mask_is_named(bundle, tmp_path):
    data = crack_images(tmp_path / "data")
    (data / "masks" / "3.png").unlink()
    with pytest.raises(AssertionError, match=r"Expected a mask of the same name .* 3\.png"):
        train(bundle, data, *QUICK)
