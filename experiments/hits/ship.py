"""Make a network of the package from a run: half-precision weights, scores, setup, card.

    python experiments/hits/ship.py runs/arc arc --test raw.h5 --says "Trained on ..."

The card holds the scores on the test file, with the thresholds of the validation events.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import yaml
from safetensors.torch import load_file, save_file

import dense_imb
from dense_imb.config import HitsConfig
from dense_imb.hits import evaluate, open_hits
from dense_imb.runs import open_run
from dense_imb.runs.pretrained import CARD, SETUP, pretrained
from dense_imb.runs.write import SCORES
from dense_imb.tasks.recipe import build_task

FOLDER = Path(dense_imb.__file__).parent / "runs" / "weights"
KEPT = ("features", "n_classes", "retention", "signal", "noise", "profiles", "augment")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("name")
    parser.add_argument("--test", required=True, help="labelled hits file")
    parser.add_argument("--says", required=True, help="training data and limits, for the card")
    options = parser.parse_args()
    run, folder = open_run(options.run), FOLDER / options.name
    folder.mkdir(parents=True, exist_ok=True)

    weights = load_file(run.folder / "best.safetensors")
    save_file({name: value.half() for name, value in weights.items()}, folder / "best.safetensors")
    setup = run.checkpoint()["setup"]
    (folder / SETUP).write_text(
        json.dumps({name: setup[name] for name in ("target", "frame")}, indent=1) + "\n"
    )
    kept = {name: getattr(run.config.hits, name) for name in KEPT}
    hits = HitsConfig(train="(not part of the package)", **kept)
    config = replace(run.config, hits=hits, trackers=[])
    (folder / "config.yaml").write_text(yaml.safe_dump(asdict(config), sort_keys=False))
    (folder / "best.safetensors").chmod(0o644)

    # scores of the stored weights, which are rounded
    network = pretrained(options.name)
    task = build_task(run.config)
    task.validate(network.trained().network, network.trained().device, 0, 1)
    task.save_scores(folder / SCORES)
    with open_hits(options.test) as test:
        table = evaluate([network.trained()], None, test, stored={network.name: network.scores()})
    row = table[network.name]
    n_weights = sum(value.numel() for value in weights.values())
    (folder / CARD).write_text(
        f"# {options.name}: a network of hits\n\n{options.says}\n\n"
        f"- {n_weights:,} numbers in half precision, {config.model.name}, {config.steps} steps, "
        f"MIT licence\n"
        f"- measured on {int(row['n_events']):,} other events, thresholds from the validation "
        f"events: {100 * row['removal']:.2f} % of the noise removed at "
        f"{100 * row['retention']:.2f} % of the signal kept\n"
        f"- use: `dense-imb denoise --pretrained {options.name} raw.h5 clean.h5`\n"
    )
    print((folder / CARD).read_text())


if __name__ == "__main__":
    main()
