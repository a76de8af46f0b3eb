"""Callbacks of the loop: collapse alarm, early stopping, gradient shares, progress bar."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping
from typing import Any, Literal

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.base.progress import tqdm
from dense_imb.engine.loop import Callback, Loop
from dense_imb.engine.task import LoggedTerm
from dense_imb.losses import CompoundLoss

Action = Literal["warn", "stop", "roll-back"]
ACTIONS = ("warn", "stop", "roll-back")
Collapse = Literal["dead", "chance", "blank", "lit", "one class"]
COLLAPSED = "collapsed"  # first word of the reason to stop
HOPELESS = ("dead", "chance")  # reasons to stop; blank and lit networks may still rank well
# a task may know better: its attribute `balance_cure`
_BALANCE = "use a balanced loss (BalancedSoftmaxLoss, balance={}), or a lower learning rate"
_SUPPORTED = (
    "use a loss that supports one output channel, for example CrossEntropyLoss of dense_imb or "
    "torch.nn:BCEWithLogitsLoss"
)
_THRESHOLD = (
    "the threshold that a run chooses on validation data is lower, and finds the signal only where "
    "it ranks high: if the scores stay low, use a balanced loss (BalancedSoftmaxLoss)"
)
_BALANCE_CLASSES = "use a balanced loss (BalancedSoftmaxLoss, balance={}), or train for longer"
_SYMPTOMS: dict[Collapse, tuple[str, str]] = {  # and their cures
    "dead": ("gets no gradient from its loss", _SUPPORTED),
    "chance": ("ranks no better than chance", _BALANCE),
    "blank": ("calls nothing signal at a probability of 1/2", _THRESHOLD),
    "lit": ("predicts signal everywhere", _BALANCE),
    "one class": ("predicts one class for every image", _BALANCE_CLASSES),
}


class CollapseWarning(UserWarning):
    """A network that has collapsed, see `CollapseAlarm`.

    Example:
        >>> import warnings
        >>> from dense_imb.engine import CollapseWarning
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", CollapseWarning)  # stop at a collapse
    """


def find_collapse(
    scores: Mapping[str, float], *, least_recall: float = 0.01, least_auc: float = 0.55
) -> Collapse | None:
    """Return the kind of collapse that validation scores show; None without one.

    `CollapseAlarm` explains the kinds.

    Args:
        scores: validation scores by name.
        least_recall: smallest recall at a probability of 1/2.
        least_auc: smallest AUC.


    Example:
        >>> find_collapse({"auc": 0.9, "recall_at_half": 0.0, "lit_at_half": 0.0})
        'blank'
    """
    pulls = [value for name, value in scores.items() if name.startswith("gradient_share_")]
    if pulls and all(math.isnan(value) for value in pulls):
        return "dead"
    if "auc" in scores and not scores["auc"] >= least_auc:
        return "chance"
    if scores.get("recall_at_half", math.nan) < least_recall:
        return "blank"
    if scores.get("lit_at_half", math.nan) > 1 - least_recall:
        return "lit"
    if scores.get("most_called", math.nan) > 1 - least_recall:
        return "one class"
    return None


class CollapseAlarm(Callback):
    """Warn as soon as a network collapses: it is blank, all signal, random or cannot learn.

        blank      recall at a probability of 1/2 is below `least_recall`
        lit        the fraction of hits or pixels above 1/2 is above 1 - `least_recall`
        chance     AUC is below `least_auc`
        one class  more than 1 - `least_recall` of whole images get the same class
        dead       the loss has no gradient at all (needs `GradientShares` before this callback)

    "stop" and "roll-back" act on chance and dead only. The other kinds only warn: a network that
    is blank at 1/2 may still rank the signal well, or badly.

    Args:
        action: "warn", "stop", or "roll-back" to the best network with half the learning rate.
        least_recall: smallest recall at a probability of 1/2.
        least_auc: smallest AUC.
        patience: consecutive validations that must show a collapse; the first one of a run is
            not counted.
        grace: fraction of the steps before a network is judged; one that cannot learn is reported
            at once.

    Example:
        >>> from types import SimpleNamespace
        >>> from dense_imb.engine import CollapseAlarm, LoopSettings, State
        >>> state, settings = State(step=80, history=[{}]), LoopSettings(steps=100, batch_size=4)
        >>> loop = SimpleNamespace(state=state, settings=settings, task=None, is_main=False)
        >>> alarm = CollapseAlarm("stop", patience=2)
        >>> for _ in range(2):
        ...     alarm.on_validation(loop, {"auc": 0.5})
        >>> loop.state.stop
        'collapsed: the network ranks no better than chance (auc 0.5000)'
    """

    def __init__(
        self,
        action: Action = "warn",
        *,
        least_recall: float = 0.01,
        least_auc: float = 0.55,
        patience: int = 2,
        grace: float = 0.25,
    ) -> None:
        check_choice("action", action, ACTIONS)
        check_at_least("patience", patience, 1)
        if not 0 <= grace <= 1:
            raise ValueError(f"Expected `grace` from 0 to 1, a fraction of the steps, got {grace}.")
        self.action, self.least_recall, self.least_auc = action, least_recall, least_auc
        self.patience, self.grace = patience, grace

    def on_start(self, loop: Loop) -> None:
        if self.action == "roll-back" and loop.folder is None:
            raise ValueError(
                "Expected a folder of checkpoints for a roll-back, got none; give `folder`, or "
                'use action="stop".'
            )

    def on_validation(self, loop: Loop, scores: dict[str, float]) -> None:
        memory = loop.state.memory.setdefault("collapse", {"bad": 0, "warned": ""})
        kind = find_collapse(scores, least_recall=self.least_recall, least_auc=self.least_auc)
        memory["bad"] = memory["bad"] + 1 if kind else 0
        if kind is None:
            memory["warned"] = ""
            return
        # the first validation does not count: a network may begin like this
        if memory["bad"] < self.patience or not loop.state.history:
            return
        if kind != "dead" and loop.state.step < self.grace * loop.settings.steps:
            return
        symptom, cure = _SYMPTOMS[kind]
        if cure == _BALANCE:
            cure = getattr(loop.task, "balance_cure", cure)
        names = ("average_precision", "recall_at_half", "most_called", "auc")
        values = ", ".join(f"{n} {scores[n]:.4f}" for n in names if n in scores)
        # checkpoints of older versions have no "warned"
        if memory.get("warned") != symptom and loop.is_main:
            message = f"step {loop.state.step}: the network {symptom} ({values}); {cure}."
            warnings.warn(message, CollapseWarning, stacklevel=2)
        memory["warned"] = symptom
        if kind not in HOPELESS:
            return
        if self.action == "stop":
            loop.state.stop = f"{COLLAPSED}: the network {symptom} ({values})"
        elif self.action == "roll-back" and loop.state.best_step >= 0:
            loop.state.roll_back = True
            memory["bad"] = 0


class EarlyStopping(Callback):
    """Stop when the monitored score has not improved for some validations.

    Args:
        patience: number of validations without an improvement.
        least_gain: smallest improvement that counts.

    Example:
        >>> from types import SimpleNamespace
        >>> from dense_imb.engine import EarlyStopping, State
        >>> loop = SimpleNamespace(state=State(), task=SimpleNamespace(monitor="auc"))
        >>> stopping = EarlyStopping(patience=2)
        >>> for auc in (0.7, 0.9, 0.8, 0.8):
        ...     stopping.on_validation(loop, {"auc": auc})
        >>> loop.state.stop
        'auc has not improved on 0.9000 for 2 validations'
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
                f"{loop.task.monitor} has not improved on {memory['best']:.4f} for "
                f"{self.patience} validations"
            )


class GradientShares(Callback):
    """Share of the loss's gradient that each class of pixels gets, on one batch per validation.

    A share is one of the sum of |d loss / d output|. The scores get `gradient_share_signal`,
    `_noise` and `_empty` for hits, and `_class_0`, `_class_1`, ... for images. A signal share near
    0 predicts a blank network.

    Example:
        >>> import numpy as np, torch
        >>> from dense_imb.data.labels.classified import ArrayImages, ClassifiedImages
        >>> from dense_imb.engine import GradientShares, Loop, LoopSettings
        >>> from dense_imb.losses import Balance, CrossEntropyLoss
        >>> from dense_imb.tasks import LabelsReading, LabelsTask, TrainingData
        >>> pixels = np.zeros((8, 3, 8, 8), np.uint8)
        >>> images = ClassifiedImages(ArrayImages(pixels), [0] * 6 + [1] * 2, ["sound", "cracked"])
        >>> reading = LabelsReading(("sound", "cracked"), (6, 2), (0.0,) * 3, (1.0,) * 3, (8, 8))
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2, False))
        >>> data = TrainingData(images, images, class_counts=(6, 2))
        >>> task = LabelsTask(network, CrossEntropyLoss(balance=Balance()), data, reading)
        >>> settings = LoopSettings(steps=1, batch_size=8)
        >>> optimizer = torch.optim.SGD(network.parameters())
        >>> state = Loop(task, optimizer, settings, callbacks=[GradientShares()]).run()
        >>> [round(state.history[0][f"gradient_share_class_{k}"], 2) for k in (0, 1)]
        [0.5, 0.5]
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
    """Terms of a `CompoundLoss` without their weights, in the last step before a validation.

    The scores get `loss_NAME` for each term, and `loss_features` for a feature loss.

    Example:
        >>> import torch
        >>> from types import SimpleNamespace
        >>> from dense_imb.engine import LossParts
        >>> from dense_imb.losses import CompoundLoss, CrossEntropyLoss, DiceLoss
        >>> loss, scores = CompoundLoss(CrossEntropyLoss(), DiceLoss()), {}
        >>> _ = loss(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]))
        >>> LossParts().on_validation(SimpleNamespace(task=SimpleNamespace(loss=loss)), scores)
        >>> {name: round(value, 2) for name, value in scores.items()}
        {'loss_CrossEntropyLoss': 0.69, 'loss_DiceLoss': 0.67}
    """

    def on_validation(self, loop: Loop, scores: dict[str, float]) -> None:
        for module in loop.task.loss.modules():
            if isinstance(module, CompoundLoss):
                scores |= {f"loss_{name}": float(v.mean()) for name, v in module.parts.items()}
            elif isinstance(module, LoggedTerm):
                scores |= module.logged()


class Trackers(Callback):
    """Log every validation to the trackers of the accelerator, for example TensorBoard."""

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
    """Progress bar with the mean loss and the monitored score.

    Args:
        is_quiet: show no bar.
        name: label of the bar.

    Example:
        >>> from dense_imb.engine import ProgressBar
        >>> callbacks = [ProgressBar(name="arcs")]  # for `Loop`
        >>> callbacks[0].name
        'arcs'
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
        self._show(loop)

    def on_close(self, loop: Loop) -> None:
        if self._bar is not None:
            self._show(loop)
            self._bar.close()

    def _show(self, loop: Loop) -> None:
        state = loop.state
        values = {}
        if state.cost_count:
            values["loss"] = f"{state.cost_sums[loop.process] / state.cost_count:.4f}"
        if state.history:
            values[loop.task.monitor] = f"{state.history[-1][loop.task.monitor]:.4f}"
            values["best"] = f"{state.best:.4f}"
        self._bar.set_postfix(values, refresh=False)
