"""The commands under test, a row each, and the inputs that they share."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

_FRAME = "--width 16 --height 16 --time-steps 50"
_STEPS = "--steps 4 --validate_every 2 --save_every 1 --batch_size 4 --report false --quiet"
_UNET = """--model.options '{"widths": [4, 8]}'"""
_RESNET = """--model.name resnet32 --model.options '{"depth": 8, "width": 4}'"""


@dataclass(frozen=True)
class Command:
    """A command, written so that the same words begin it and continue it.

    Args:
        name: name of the row.
        words: the command line; {i} is the folder of the inputs, {o} of the outputs.
        out: the word that is its output.
        same: inputs that may not be its output.
        changes: patterns of files among the inputs that it writes.
        in_stages: files change until the end, so that a stopped run has other ones.
        saves: SIGTERM saves the work, and ends it with 75.
        skips: files that are finished are kept; --overwrite replaces them.
        is_slow: takes seconds, too long for `make test`.
    """

    name: str
    words: str
    out: str
    same: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    in_stages: bool = False
    saves: bool = False
    skips: bool = False
    is_slow: bool = False

    def argv(self, i: str, o: str, out: str | None = None) -> list[str]:
        """Return the words for two folders, with another output if given."""
        words = shlex.split(self.words)
        assert self.out in words
        return [
            out
            if out is not None and word == self.out
            else re.sub(r"\{([io])\}", lambda found: {"i": i, "o": o}[found[1]], word)
            for word in words
        ]


COMMANDS = {
    row.name: row
    for row in (
        Command(
            "simulate",
            f"simulate {{o}}/sim.h5 --events 200 --photons 30 --overwrite --quiet {_FRAME}",
            "{o}/sim.h5",
        ),
        Command(
            "convert",
            f"convert {{i}}/hits.csv {{o}}/hits.h5 --overwrite --quiet {_FRAME}",
            "{o}/hits.h5",
            same=("{i}/hits.csv",),
        ),
        Command(
            "inspect",
            "inspect {i}/hits.h5 --out {o}/look --overwrite --quiet",
            "{o}/look",
            same=("{i}", "{i}/hits.h5"),
            is_slow=True,
        ),
        Command(
            "train hits",
            "train hits --out {o}/run --resume --hits.train {i}/hits.h5 --hits.signal 6 "
            f"--hits.noise 10 --hits.validation_share 0.25 {_STEPS}",
            "{o}/run",
            same=("{i}", "{i}/hits.h5"),
            in_stages=True,
            saves=True,
        ),
        Command(
            "train hits --devices 2",
            "train hits --out {o}/run --resume --hits.train {i}/hits.h5 --hits.signal 6 "
            f"--hits.noise 10 --hits.validation_share 0.25 --devices 2 --device cpu {_STEPS}",
            "{o}/run",
            same=("{i}",),
            in_stages=True,
            saves=True,
            is_slow=True,
        ),
        Command(
            "train images",
            "train images --out {o}/run --resume --images.train {i}/images --images.masks "
            f"{{i}}/masks --images.patch 16 16 {_UNET} {_STEPS}",
            "{o}/run",
            same=("{i}/images", "{i}/masks"),
            in_stages=True,
            saves=True,
        ),
        Command(
            "train labels",
            "train labels --out {o}/run --resume --labels.train {i}/labels.csv --labels.images "
            f"{{i}}/pictures --labels.classes thin thick {_RESNET} {_STEPS}",
            "{o}/run",
            same=("{i}/pictures", "{i}/labels.csv"),
            in_stages=True,
            saves=True,
        ),
        Command(
            "train values",
            "train values --out {o}/run --resume --values.train {i}/images --values.targets "
            f"{{i}}/targets --values.patch 16 16 {_UNET} {_STEPS}",
            "{o}/run",
            same=("{i}/images", "{i}/targets"),
            in_stages=True,
            saves=True,
        ),
        Command(
            "evaluate",
            "evaluate {i}/run_hits {i}/raw.h5 --out {o}/table --overwrite --quiet",
            "{o}/table",
            same=("{i}/raw.h5", "{i}/run_hits"),
        ),
        Command(
            "denoise",
            "denoise {i}/run_hits {i}/raw.h5 {o}/clean.h5 --resume --batch-size 4 --quiet",
            "{o}/clean.h5",
            same=("{i}/raw.h5",),
            skips=True,
        ),
        Command(
            "denoise --out",
            "denoise {i}/run_hits {i}/raw.h5 {i}/hits.h5 --out {o}/clean --quiet",
            "{o}/clean",
            same=("{i}", "{i}/raw.h5"),
            skips=True,
        ),
        Command(
            "segment",
            "segment {i}/run_images {i}/images {o}/masks --quiet",
            "{o}/masks",
            same=("{i}/images", "{i}/masks", "{i}/images/00.png"),
            skips=True,
        ),
        Command(
            "predict",
            "predict {i}/run_values {i}/images {o}/maps --quiet",
            "{o}/maps",
            same=("{i}/images", "{i}/targets", "{i}/images/00.png"),
            skips=True,
        ),
        Command(
            "report",
            "report {i}/run_images --test {i}/images --masks {i}/masks --quiet",
            "{i}/run_images",
            changes=("run_images/report.*", "run_images/figures/*"),
            is_slow=True,
        ),
        Command(
            "export",
            "export {i}/run_labels {o}/model.onnx --overwrite --quiet",
            "{o}/model.onnx",
            same=("{i}/run_labels", "{i}/run_labels/best.safetensors"),
            is_slow=True,
        ),
        Command(
            "compare",
            "compare {i}/images --masks {i}/masks --out {o}/compare --loss focal --loss Dice "
            "--steps 2 --seeds 1 --batch-size 2 --patch 16 16 --widths 4 8 --quiet",
            "{o}/compare",
            same=("{i}/images", "{i}/hits.h5"),
            in_stages=True,
            saves=True,
            is_slow=True,
        ),
        Command(
            "curves",
            "curves --out {o}/figures --loss ACBMSELoss --scenario recovery --points 5 "
            "--frame 8x8 --format png --overwrite --quiet",
            "{o}/figures",
        ),
        Command(
            "demo",
            "demo --out {o}/demo --events 100 --test-events 10 --steps 2 --quiet",
            "{o}/demo",
            in_stages=True,
            saves=True,
            is_slow=True,
        ),
    )
}

# runs that other commands read, made by the commands themselves
_RUNS = ("hits", "images", "labels", "values")


def write_data(folder: Path, n: int = 8, side: int = 16) -> None:
    """Write images with masks, with maps of values, and with labels; and a list of hits."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks", "targets", "pictures"):
        (folder / name).mkdir(parents=True)
    table = ["image,label"]
    for k in range(n):
        mask = np.zeros((side, side), np.uint8)
        mask[k : k + 3, 2:12] = 1
        image = (rng.integers(60, 120, mask.shape) + 90 * mask).astype(np.uint8)
        Image.fromarray(image).save(folder / "images" / f"{k:02d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{k:02d}.png")
        np.save(folder / "targets" / f"{k:02d}.npy", 3 * mask.astype(np.float32))
        for label in ("thin", "thick"):
            bright = 90 * mask if label == "thin" else 90 * np.maximum(mask, mask.T)
            pixels = (rng.integers(60, 120, mask.shape) + bright).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / f"{label}{k}.png")
            table.append(f"{label}{k},{label}")
    (folder / "labels.csv").write_text("\n".join(table) + "\n")
    hits = [f"{e},{x},{y},{t}" for e in range(20) for x, y, t in rng.integers(1, 16, (30, 3))]
    (folder / "hits.csv").write_text("event,x,y,t\n" + "\n".join(hits) + "\n")


def preparations(folder: str) -> list[list[str]]:
    """Return the commands that make hits files and runs, beside the files of `write_data`."""
    simulate = f"simulate {folder}/%s --events 24 --photons 30 --quiet {_FRAME}"
    lines = [simulate % "hits.h5", simulate % "raw.h5" + " --signal 6 --noise 10 --seed 1"]
    made = [shlex.split(line) for line in lines]
    for kind in _RUNS:
        made.append(COMMANDS[f"train {kind}"].argv(folder, folder, f"{folder}/run_{kind}"))
    return made
