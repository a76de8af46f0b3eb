"""What looks on while a network trains: collapse, stopping, gradients, progress."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping
from typing import Any, Literal

from tqdm.auto import tqdm

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.engine.loop import Callback, Loop
from dense_imb.engine.task import LoggedTerm
from dense_imb.losses import CompoundLoss

Action = Literal["warn", "stop", "roll-back"]
ACTIONS = ("warn", "stop", "roll-back")
Collapse = Literal["dead", "chance", "blank", "lit", "one class"]
COLLAPSED = "collapsed"  # how a run says that it was stopped for it
HOPELESS = ("dead", "chance")  # what to stop for; blank and lit may still rank well
_BALANCE = "use a balanced loss (balance={}), the loss on lit pixels only, or a lower learning rate"
_OTHER = "take a loss of one channel, CrossEntropyLoss of ours or torch.nn:BCEWithLogitsLoss, say"
_THRESHOLD = (
    "harmless if a threshold is chosen on validation data, as a run does; or balance the loss"
)
_BALANCE_CLASSES = "use a balanced loss (BalancedSoftmaxLoss, balance={}), or train for longer"
_TOLD: dict[Collapse, tuple[str, str]] = {
    "dead": ("gets no gradient from its loss", _OTHER),
    "chance": ("ranks no better than chance", _BALANCE),
    "blank": ("is blank at its natural threshold", _THRESHOLD),
    "lit": ("lights everything", _BALANCE),
    "one class": ("calls everything one class", _BALANCE_CLASSES),
}


class CollapseWarning(UserWarning):
    """The network went blank."""


def judged(
    scores: Mapping[str, float], *, least_recall: float = 0.01, least_auc: float = 0.55
) -> Collapse | None:
    """Say how a network has collapsed, None where it has not; `CollapseAlarm` explains the kinds.

    Example:
        >>> judged({"auc": 0.9, "recall_at_half": 0.0, "lit_at_half": 0.0})
        'blank'
    """
    pulls = [value for name, value in scores.items() if name.startswith("gradient_share_")]
    if pulls and all(math.isnan(value) for value in pulls):
        return "dead"
    if not scores.get("auc", math.nan) >= least_auc:
        return "chance"
    if scores.get("recall_at_half", math.nan) < least_recall:
        return "blank"
    if scores.get("lit_at_half", math.nan) > 1 - least_recall:
        return "lit"
    if scores.get("most_called", math.nan) > 1 - least_recall:
        return "one class"
    return None


class CollapseAlarm(Callback):
    """Say at once when a network goes blank, lights everything, ranks by chance, or can't learn.

        blank     the share of the signal that scores above 1/2 is below `least_recall`
        lit       the share of all hits or pixels that score above 1/2 is above 1 - `least_recall`
        chance    AUC is below `least_auc`
        one class more than 1 - `least_recall` of whole images are called the same
        dead      the loss has no gradient at all (where `GradientShares` looks before)

    Blank at its natural threshold is harmless where hits are still ranked well, so "stop" and
    "roll-back" act on chance and on dead only; the others are told.

    Args:
        action: "warn", "stop", or "roll-back" to the best network with half the learning rate.
        least_recall: see above.
        least_auc: see above.
        patience: validations in a row that must look so; the first one of a run is not judged.
    """

    def __init__(
        self,
        action: Action = "warn",
        *,
        least_recall: float = 0.01,
        least_auc: float = 0.55,
        patience: int = 2,
    ) -> None:
        check_choice("action", action, ACTIONS)
        check_at_least("patience", patience, 1)
        self.action, self.least_recall, self.least_auc = action, least_recall, least_auc
        self.patience = patience

    def on_start(self, loop: Loop) -> None:
        if self.action == "roll-back" and loop.folder is None:
            raise ValueError("Expected a folder for the run with a roll-back, got none.")

    def on_validation(self, loop: Loop, scores: dict[str, float]) -> None:
        memory = loop.state.memory.setdefault("collapse", {"bad": 0, "told": ""})
        kind = judged(scores, least_recall=self.least_recall, least_auc=self.least_auc)
        memory["bad"] = memory["bad"] + 1 if kind else 0
        if kind is None:
            memory["told"] = ""
            return
        # the first validation is not judged: a network may begin like this
        if memory["bad"] < self.patience or not loop.state.history:
            return
        what, cure = _TOLD[kind]
        names = ("recall_at_half", "most_called", "auc")
        values = ", ".join(f"{n} {scores[n]:.4f}" for n in names if n in scores)
        if memory["told"] != what and loop.is_main:
            told = f"step {loop.state.step}: the network {what} ({values}); {cure}."
            warnings.warn(told, CollapseWarning, stacklevel=2)
        memory["told"] = what
        if kind not in HOPELESS:
            return
        if self.action == "stop":
            loop.state.stop = f"{COLLAPSED}: the network {what} ({values})"
        elif self.action == "roll-back" and loop.state.best_step >= 0:
            loop.state.roll_back = True
            memory["bad"] = 0


class EarlyStopping(Callback):
    """Stop when the monitored score has not become better for some validations.

    Args:
        patience: validations without a better score.
        least_gain: what counts as better.
    """

    def __init__(self, patience: int, least_gain: float = 0.0) -> None:
        check_at_least("patience", patience, 1)
        self.patience, self.least_gain = patience, least_gain

    def on_validation(self, loop: Loop, scores: dict[str, float]) -> None:
        memory = loop.state.memory.setdefault("early", {"best": -math.inf, "waited": 0})
        score = scores[loop.task.monitor]
        if score > memory["best"] + self.least_gain:
            memory.update(best=score, waited=0)
            return
        memory["waited"] += 1
        if memory["waited"] >= self.patience:
            loop.state.stop = (
                f"{loop.task.monitor} has not become better than {memory['best']:.4f} for "
                f"{self.patience} validations"
            )


class GradientShares(Callback):
    """How much of the loss's gradient each class of pixels gets, on one batch a validation.

    Adds `gradient_share_signal`, `_noise` and `_empty` of hits, `_class_0` and so on of images, to
    the scores: shares of the sum of |d loss / d output|. A signal share near 0 foretells a blank
    network.
    """

    def on_validation(self, loop: Loop, scores: dict[str, float]) -> None:
        task: Any = loop.task
        if not hasattr(task, "gradient_shares"):
            return
        # always the same samples, as this epoch shows them
        samples = loop.samples_of(0)
        if hasattr(task, "probe"):
            samples = task.probe(len(samples))
        batch = task.batch(samples, loop.epoch_of(loop.state.step), loop.accelerator.device)
        bare = loop.accelerator.unwrap_model(loop.network)
        scores.update(task.gradient_shares(bare, batch))


class LossParts(Callback):
    """The parts of a `CompoundLoss`, each before its weight, in the last step of a validation.

    Adds `loss_NAME` to the scores, and `loss_features` of a loss of features.
    """

    def on_validation(self, loop: Loop, scores: dict[str, float]) -> None:
        for module in loop.task.loss.modules():
            if isinstance(module, CompoundLoss):
                scores |= {f"loss_{name}": float(v.mean()) for name, v in module.parts.items()}
            elif isinstance(module, LoggedTerm):
                scores |= module.logged()


class Trackers(Callback):
    """Every validation to the trackers that the accelerator was made with, TensorBoard say."""

    def on_start(self, loop: Loop) -> None:
        loop.accelerator.init_trackers("run")

    def on_saved(self, loop: Loop) -> None:
        if loop.state.history:
            row = dict(loop.state.history[-1])
            loop.accelerator.log(row, step=int(row.pop("step")))

    def on_close(self, loop: Loop) -> None:
        for tracker in loop.accelerator.trackers:
            tracker.finish()


class ProgressBar(Callback):
    """A bar with the loss, and the score that decides.

    Args:
        is_quiet: show none.
        name: what it says.
    """

    def __init__(self, is_quiet: bool = False, name: str = "train") -> None:
        self.is_quiet, self.name = is_quiet, name
        self._bar: Any = None

    def on_start(self, loop: Loop) -> None:
        if loop.is_main and not self.is_quiet:
            self._bar = tqdm(
                total=loop.settings.steps,
                initial=loop.state.step,
                desc=self.name,
                unit="step",
                file=sys.stderr,
                dynamic_ncols=True,
            )

    def on_step(self, loop: Loop) -> None:
        if self._bar is None:
            return
        self._bar.update(1)
        self._tell(loop)

    def on_close(self, loop: Loop) -> None:
        if self._bar is not None:
            self._tell(loop)
            self._bar.close()

    def _tell(self, loop: Loop) -> None:
        state = loop.state
        told = {}
        if state.cost_count:
            told["loss"] = f"{state.cost_sums[loop.process] / state.cost_count:.4f}"
        if state.history:
            told[loop.task.monitor] = f"{state.history[-1][loop.task.monitor]:.4f}"
            told["best"] = f"{state.best:.4f}"
        self._bar.set_postfix(told, refresh=False)
