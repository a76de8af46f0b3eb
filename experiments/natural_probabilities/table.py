"""Does a balanced loss rank pixels better, or does it move the threshold alone?

A logistic model is trained with each loss on pixels whose true probability is known, 0.5 % of them
foreground. The table shows calibration error, log-loss and F1 at 1/2 of the outputs as trained and
of the natural probabilities, average precision of both, and the F1 at the threshold that the
probabilities choose without labels, beside the best F1 of all thresholds.

    python experiments/natural_probabilities/table.py    # 1 minute of one core
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dense_imb.losses import (
    ACBMSELoss,
    Balance,
    BalancedSoftmaxLoss,
    CrossEntropyLoss,
    FocalLoss,
    HardMiningLoss,
    LDAMLoss,
    class_weights,
)
from dense_imb.losses.core.natural import NoInverseError
from dense_imb.metrics import ScoreHistogram, best_f1_threshold

SHARE = 0.005
LOSSES: dict[str, Callable[[list[int]], nn.Module]] = {
    "CE": lambda n: CrossEntropyLoss(),
    "balanced CE": lambda n: CrossEntropyLoss(balance=Balance()),
    "class weights (sqrt)": lambda n: CrossEntropyLoss(class_weight=class_weights(n, "sqrt")),
    "balanced softmax": lambda n: BalancedSoftmaxLoss(n),
    "focal 2": lambda n: FocalLoss(gamma=2.0),
    "balanced focal 2": lambda n: FocalLoss(gamma=2.0, balance=Balance()),
    "LDAM": lambda n: LDAMLoss(n, scale=4.0),
    "ACB-MSE, sigmoid output": lambda n: ACBMSELoss(),
    "hard mining": lambda n: HardMiningLoss(balance=Balance()),
}
ROW = "{:24s} {:>17s} {:>17s} {:>15s} {:>15s} {:>15s} {:>6s}"


def pixels(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return features (n, 3), a constant among them, and labels of a logistic model."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=rng, dtype=torch.float64)
    x = torch.cat([x, torch.ones(n, 1, dtype=torch.float64)], 1)
    # the intercept that makes 0.5 % foreground, by bisection
    low, high = -30.0, 0.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = float((x[:, :2] @ _SLOPE + middle).sigmoid().mean())
        low, high = (middle, high) if mean < SHARE else (low, middle)
    probability = (x[:, :2] @ _SLOPE + low).sigmoid()
    return x, (torch.rand(n, generator=rng, dtype=torch.float64) < probability).long()


_SLOPE = torch.tensor([2.0, -1.5], dtype=torch.float64)


def trained(loss: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the weights of the best logistic model under a loss."""
    is_value = isinstance(loss, ACBMSELoss)
    weight = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )
    target = y.double() if is_value else y

    def output() -> Tensor:
        z = (x @ weight)[None, None]
        return z.sigmoid() if is_value else z

    def closure() -> Tensor:
        optimizer.zero_grad()
        cost: Tensor = loss(output(), target[None, None])
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach()


def scores(p: Tensor, is_true: Tensor) -> dict[str, float]:
    """Return the scores of probabilities."""
    histogram = ScoreHistogram()
    histogram.update(p, is_true)
    clipped = p.clamp(1e-12, 1 - 1e-12)
    log_loss = -torch.where(is_true, clipped.log(), (-clipped).log1p()).mean()
    return {
        "ece": histogram.calibration_error(),
        "log_loss": float(log_loss),
        "f1": _f1(p >= 0.5, is_true),
        "ap": histogram.average_precision(),
        "best_f1": histogram.best_f1()[0],
        "auto_f1": _f1(p >= best_f1_threshold(p), is_true),
    }


def _f1(is_kept: Tensor, is_true: Tensor) -> float:
    return float(2 * (is_kept & is_true).sum() / (is_kept.sum() + is_true.sum()).clamp(min=1))


def rows(n: int, n_seeds: int) -> dict[str, tuple[dict[str, float], dict[str, float] | None]]:
    """Return scores of each loss before and after the inverse, None without one; means of seeds."""
    found: dict[str, tuple[dict[str, float], dict[str, float] | None]] = {}
    for name, make in LOSSES.items():
        before, after = [], []
        for seed in range(n_seeds):
            x, y = pixels(n, seed)
            test_x, test_y = pixels(n, 1000 + seed)
            counts = torch.bincount(y, minlength=2).tolist()
            loss: Any = make(counts)
            z = (test_x @ trained(loss, x, y))[None, None]
            shown = z.sigmoid() if isinstance(loss, ACBMSELoss) else z
            raw = z.sigmoid().flatten()
            before.append(scores(raw, test_y > 0))
            try:
                after.append(scores(loss.probability(shown, counts).flatten(), test_y > 0))
            except NoInverseError:
                continue
        found[name] = _mean(before), _mean(after) if after else None
    return found


def _mean(every: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(one[name] for one in every) / len(every) for name in every[0]}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])  # type: ignore[union-attr]
    parser.add_argument("--pixels", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    head = ("calibration error", "log-loss", "F1 at 1/2", "AP", "F1 auto", "best")
    print(ROW.format("", *head))
    for name, (before, after) in rows(options.pixels, options.seeds).items():
        cells = [
            f"{before[key]:.4f}" if after is None else f"{before[key]:.4f} -> {after[key]:.4f}"
            for key in ("ece", "log_loss", "f1", "ap", "auto_f1")
        ]
        print(ROW.format(name, *cells, f"{before['best_f1']:.3f}"))


if __name__ == "__main__":
    main()
