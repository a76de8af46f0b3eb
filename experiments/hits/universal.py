"""Is there one network for every pattern, two kinds of which it has never met?

    python experiments/hits/universal.py runs/universal   # 4,000 steps, some 25 minutes of a core

It learns one to three patterns of six kinds in an event, and 50 to 400 noise hits. Scored is one
pattern of each kind, 30 signal and 200 noise hits; thresholds come from other events of that kind.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dense_imb.config import HitsConfig, ModelConfig, TrainConfig
from dense_imb.data.events.simulated import write_simulated
from dense_imb.hits import Degradation, HitDensity, degrade, evaluate, simulate
from dense_imb.runs import train

UNSEEN = ("ring", "parabola")
SEEN = ("arc", "cross", "line", "v", "hemisphere", "torch")


def main(arguments: list[str] | None = None) -> list[dict[str, object]]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--events", type=int, default=12_000)
    parser.add_argument("--test-events", type=int, default=200, help="of each kind")
    parser.add_argument("--model", default="hits:base")
    parser.add_argument("--learning-rate", type=float, default=0.02)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    clean = options.folder / "clean.h5"
    if not clean.exists():
        write_simulated(
            clean, options.events, pattern=SEEN, patterns_per_event=(1, 3), seed=0, n_photons=600
        )
    config = TrainConfig(
        hits=HitsConfig(
            train=str(clean), signal=[20, 90], noise=[50, 400], validation_events=400,
            augment="mirror",
        ),
        model=ModelConfig(options.model),
        steps=options.steps,
        validate_every=max(options.steps // 8, 1),
    )  # fmt: skip
    config.optimizer.learning_rate = options.learning_rate
    run = train(config, options.folder / "run", resume=True)
    scorers = [run.trained(), HitDensity()]
    rows = []
    print("| kind | met in training | removed at 97 / 99 % | hit density |")
    print("| --- | --- | --- | --- |")
    for number, kind in enumerate((*SEEN, *UNSEEN)):
        validation, test = (
            degrade(
                simulate(kind, options.test_events, seed=seed),
                Degradation(signal=30, noise=200),
                seed=seed,
                event_index=np.arange(options.test_events),
            )
            for seed in (100 + number, 200 + number)
        )
        table = evaluate(scorers, validation, test)
        ours, rule = (table[scorer.name] for scorer in scorers)
        rows.append({"kind": kind, **{n: ours[n] for n in ("removal_at_97", "removal_at_99")}})
        print(
            f"| {kind} | {'yes' if kind in SEEN else 'no'} | {100 * ours['removal_at_97']:.1f} / "
            f"{100 * ours['removal_at_99']:.1f} | {100 * rule['removal_at_97']:.1f} |",
            flush=True,
        )
    return rows


if __name__ == "__main__":
    main()
