"""A tiny data set in nnU-Net's format, and short trainings by its own commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from dense_imb.integrations.nnunet import trainers_folder
from tests.limits import HANG_SECONDS

ROOT = Path(__file__).parents[2]
SIDE = 48  # pixels
LABELS = {"background": 0, "disc": 1, "spot": 2}
REGIONS = {"background": 0, "object": [1, 2], "spot": [2], "ignore": 3}

# trainings of 1,000 epochs made short, in a second folder of nnUNet_extTrainer
SHORT = """
from dense_imb.integrations.nnunet import trainers


class Short:
    def initialize(self):
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 2, 4, 2
        super().initialize()
"""
SHORT_CLASS = "\n\nclass Short_{name}(Short, trainers.{name}):\n    pass\n"


def image_and_label(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Make an image with a disc of 5 pixels in radius and two spots of 2 x 2 pixels."""
    label = np.zeros((SIDE, SIDE), np.uint8)
    rows, columns = np.indices(label.shape)
    y, x = rng.integers(8, SIDE - 8, 2)
    label[(rows - y) ** 2 + (columns - x) ** 2 <= 25] = 1
    for y, x in rng.integers(2, SIDE - 2, (2, 2)):
        label[y : y + 2, x : x + 2] = 2
    image = 60 + 70 * label + rng.normal(0, 15, label.shape)
    return image.clip(0, 255).astype(np.uint8), label


def write_dataset(folder: Path, labels: dict, n_images: int = 10) -> None:
    """Write images, labels and dataset.json of a data set of nnU-Net."""
    rng = np.random.default_rng(0)
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for k in range(n_images):
        image, label = image_and_label(rng)
        if "ignore" in labels:
            label[:6] = labels["ignore"]
        Image.fromarray(image).save(folder / "imagesTr" / f"case{k}_0000.png")
        Image.fromarray(label).save(folder / "labelsTr" / f"case{k}.png")
    Image.fromarray(image_and_label(rng)[0]).save(folder / "imagesTs" / "new_0000.png")
    facts = {
        "channel_names": {"0": "gray"},
        "labels": labels,
        "numTraining": n_images,
        "file_ending": ".png",
    }
    if "ignore" in labels:
        facts["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(facts))


class Workplace:
    """Folders and commands of nnU-Net.

    Args:
        folder: folder that holds them.
    """

    def __init__(self, folder: Path) -> None:
        self.raw, self.results = folder / "raw", folder / "results"
        short = folder / "trainers"
        short.mkdir(parents=True)
        names = ("DiceBalancedCE", "DiceHardMining", "Blob", "CC")
        classes = (SHORT_CLASS.format(name=f"nnUNetTrainer{name}Loss") for name in names)
        (short / "short_trainers.py").write_text(SHORT + "".join(classes))
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(folder / "preprocessed"),
            "nnUNet_results": str(self.results),
            "nnUNet_extTrainer": os.pathsep.join([str(trainers_folder()), str(short)]),
            "nnUNet_n_proc_DA": "1",  # planning takes it for a number of threads
            "nnUNet_def_n_proc": "1",
            "OMP_WAIT_POLICY": "passive",  # it takes every core, and others may be at work
        }

    def run(self, command: str, *words: object, **environment: str) -> str:
        """Run a command of nnU-Net; return what it prints."""
        program = Path(sys.executable).parent / command
        done = subprocess.run(
            [sys.executable, "-W", "ignore", program, *map(str, words)],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def prepare(self, number: int, labels: dict) -> None:
        """Write, plan and preprocess a data set."""
        write_dataset(self.raw / f"Dataset{number:03}_Tiny", labels)
        self.run(
            "nnUNetv2_plan_and_preprocess", "-d", number, "-c", "2d", "-np", 1, "-npfp", 1,
            "--verify_dataset_integrity",
        )  # fmt: skip

    def train(self, number: int, trainer: str) -> str:
        """Train fold 0 for two epochs; return what is printed."""
        return self.run(
            "nnUNetv2_train", number, "2d", 0, "-tr", trainer, "-device", "cpu",
            nnUNet_n_proc_DA="0",  # no processes besides
        )  # fmt: skip

    def predict(self, number: int, trainer: str) -> Path:
        """Predict the test images; return the folder of labels."""
        predicted = self.results / f"predicted{number}"
        self.run(
            "nnUNetv2_predict", "-d", number, "-c", "2d", "-f", 0, "-tr", trainer, "-device", "cpu",
            "-npp", 1, "-nps", 1, "-o", predicted,
            "-i", self.raw / f"Dataset{number:03}_Tiny" / "imagesTs",
        )  # fmt: skip
        return predicted
