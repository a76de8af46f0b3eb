"""Cost of a loss of features in a training step.

    python experiments/benchmarks/feature_step.py            # images and hits, some minutes
    python experiments/benchmarks/feature_step.py --patch 64 --rounds 10

Steps with and without the loss take turns, as in `mixing_step.py`. "x cpu" is the median CPU time
of a step, divided by that of a step without the loss.

Answer (two busy cores, 30 rounds, batches of 16): "x cpu" is 1.19 for images, 1.11 for hits with a
loss on the lit pixels and 1.17 for hits with a loss on the whole frame. With at most 64 pixels of a
class it is 1.14, 1.06 and 1.12.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from mixing_step import N_CLASSES, compare, write_hits, write_images

from dense_imb.config import ModelConfig, TrainConfig

LOSSES = (None, "RangeLoss", "RangeLoss(max_pixels=64)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=3)
    options = parser.parse_args()
    if min(options.patch, options.batch, options.rounds) < 1 or options.warmup < 0:
        parser.error("Expected --patch, --batch and --rounds of at least 1.")
    with tempfile.TemporaryDirectory() as folder:
        images, data = write_images(Path(folder)), write_hits(Path(folder))
        images.patch = [options.patch, options.patch]
        contests = {
            f"images, {options.patch} x {options.patch}, {N_CLASSES} classes": {"images": images},
            "hits, 88 x 128, lit pixels": {"hits": data},
            "hits, 88 x 128, whole frames": {"hits": replace(data, pixels="frame")},
        }
        for title, data_config in contests.items():
            configs = {
                loss or "none": TrainConfig(
                    **data_config,
                    model=ModelConfig("fast_unet"),
                    feature_loss=loss,
                    batch_size=options.batch,
                )
                for loss in LOSSES
            }
            print(f"{title}, batch of {options.batch}, {options.rounds} rounds")
            print(f"{'':26}{'step ms':>9}{'x':>7}{'x cpu':>7}")
            for name, step, x, x_cpu, _ in compare(configs, options.rounds, options.warmup):
                print(f"{name:26}{step:9.1f}{x:7.2f}{x_cpu:7.2f}", flush=True)


if __name__ == "__main__":
    main()
