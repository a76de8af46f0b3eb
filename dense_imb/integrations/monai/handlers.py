"""Event handlers in the style of MONAI, for `attach(engine)` or an engine's list of handlers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys
from torch import Tensor

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.engine.callbacks import HOPELESS, Collapse, CollapseWarning, find_collapse
from dense_imb.integrations.monai.instances import carries_instances, split_target
from dense_imb.losses import BiasCompensatedLoss
from dense_imb.losses.core.module import Loss
from dense_imb.losses.core.target import pixel_target
from dense_imb.metrics import OperatingPoint, ScoreHistogram

Action = Literal["warn", "stop"]
Partition = Callable[[Tensor, Tensor], Tensor]

_BALANCE = "use a balanced loss (balance=Balance()), or a lower learning rate"
_EXPLANATIONS: dict[Collapse, tuple[str, str]] = {
    "dead": (
        "gets no gradient from its loss",
        "use a loss for this number of channels: softmax over one channel is always 1",
    ),
    "chance": ("ranks the foreground no better than chance", _BALANCE),
    "blank": (
        "is blank at probability 1/2",
        "choose the threshold on validation data (OperatingPointHandler), or balance the loss",
    ),
    "lit": ("calls every pixel foreground", _BALANCE),
}


def _raw(engine: Engine) -> tuple[Tensor, Tensor]:
    """Return logits and target of a batch; of deep supervision, the finest level."""
    output: Any = engine.state.output
    logits, target = output[CommonKeys.PRED], output[CommonKeys.LABEL]
    return logits[0] if isinstance(logits, (list, tuple)) else logits, target


class _Ranking:
    """Histogram of the foreground logit over an epoch of an evaluator."""

    def __init__(self, foreground: int | None, ignore_index: int | None) -> None:
        self.foreground, self.ignore_index = foreground, ignore_index
        self.histogram = ScoreHistogram(scale="logit")

    def attach(self, engine: Engine) -> None:
        """Attach the handler to an evaluator."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        # before postprocessing turns logits into masks
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._count)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end)

    def _start(self) -> None:
        self.histogram = ScoreHistogram(scale="logit")

    def _natural(self, logits: Tensor) -> Tensor:
        """Return logits to count, of natural probabilities where a subclass has them."""
        return logits

    def _count(self, engine: Engine) -> None:
        logits, target = _raw(engine)
        pixels = pixel_target(
            self._natural(logits.detach()),
            target,
            ignore_index=self.ignore_index,
            soft_for=type(self).__name__,
        )
        z = pixels.logits.movedim(1, -1)  # (B, *spatial, C)
        label = pixels.label
        if pixels.valid is not None:
            z, label = z[pixels.valid], label[pixels.valid]
        if self.foreground is None:
            score, is_signal = z[..., 1:].logsumexp(-1) - z[..., 0], label > 0
        else:
            k = self.foreground
            others = torch.cat([z[..., :k], z[..., k + 1 :]], -1)
            score, is_signal = z[..., k] - others.logsumexp(-1), label == k
        self.histogram.update(score, is_signal)

    def _end(self, engine: Engine) -> None:
        raise NotImplementedError


class CollapseHandler(_Ranking):
    """Warn when a network goes blank, lights everything or ranks no better than chance.

        blank     the share of the foreground with probability above 1/2 is below `least_recall`
        lit       the share of all pixels with probability above 1/2 is above 1 - `least_recall`
        chance    AUC of the foreground is below `least_auc`
        dead      the loss has no gradient (where the trainer has a `GradientShareHandler`)

    The metrics of the evaluator get `auc`, `recall_at_half` and `lit_at_half`. "stop" ends the
    trainer on chance and on dead only: a blank network may still rank well. Logits beyond +-20 are
    ties, as float32 probabilities are there.

    Args:
        action: "warn" or "stop".
        trainer: trainer to stop; `set_trainer` sets one that is made later.
        foreground: foreground class; all but class 0 by default.
        ignore_index: label of the pixels to ignore.
        least_recall, least_auc: thresholds, see above.
        patience: consecutive evaluations with the problem; the first evaluation never counts.

    Example:
        >>> import torch
        >>> from monai.engines import SupervisedEvaluator
        >>> from dense_imb.integrations.monai import CollapseHandler
        >>> data = [{"image": torch.zeros(1, 1, 4, 4), "label": torch.eye(4)[None, None]}]
        >>> network = torch.nn.Conv2d(1, 2, 1)  # sees nothing: it ranks by chance
        >>> evaluator = SupervisedEvaluator(
        ...     torch.device("cpu"), data, network, val_handlers=[CollapseHandler()],
        ... )
        >>> evaluator.run()
        >>> evaluator.state.metrics["auc"]
        0.5
    """

    def __init__(
        self,
        action: Action = "warn",
        *,
        trainer: Engine | None = None,
        foreground: int | None = None,
        ignore_index: int | None = None,
        least_recall: float = 0.01,
        least_auc: float = 0.55,
        patience: int = 2,
    ) -> None:
        check_choice("action", action, get_args(Action))
        check_at_least("patience", patience, 1)
        super().__init__(foreground, ignore_index)
        self.action, self.trainer = action, trainer
        self.least_recall, self.least_auc, self.patience = least_recall, least_auc, patience
        self._n_evaluations = self._n_bad = 0
        self._reported: Collapse | None = None

    def set_trainer(self, trainer: Engine) -> None:
        """Set the trainer to stop, where it is made after its evaluator."""
        self.trainer = trainer

    def attach(self, engine: Engine) -> None:
        super().attach(engine)
        engine.add_event_handler(Events.STARTED, self._check)

    def _check(self) -> None:
        if self.action == "stop" and self.trainer is None:
            raise ValueError(
                'Expected a `trainer` to stop with action "stop", got none; '
                "call set_trainer(trainer)."
            )

    def _end(self, engine: Engine) -> None:
        scores = _at_half(self.histogram.reduce_over_processes())
        engine.state.metrics.update(scores)
        trained = {} if self.trainer is None else self.trainer.state.metrics
        shares = [v for name, v in trained.items() if name.startswith(_SHARE)]
        if shares and all(value != value for value in shares):
            scores["gradient_share_signal"] = float("nan")
        self._n_evaluations += 1
        if self.histogram.n_signal == 0:  # no foreground: the network cannot be judged
            return
        kind = find_collapse(scores, least_recall=self.least_recall, least_auc=self.least_auc)
        self._n_bad = self._n_bad + 1 if kind else 0
        if kind is None:
            self._reported = None
            return
        if self._n_bad < self.patience or self._n_evaluations == 1:
            return
        problem, cure = _EXPLANATIONS[kind]
        values = ", ".join(f"{name} {scores[name]:.4f}" for name in ("recall_at_half", "auc"))
        sentence = f"epoch {engine.state.epoch}: the network {problem} ({values}); {cure}."
        if self._reported != kind:
            warnings.warn(sentence, CollapseWarning, stacklevel=2)
        self._reported = kind
        if self.action == "stop" and kind in HOPELESS and self.trainer is not None:
            self.trainer.logger.error(f"Stopped at {sentence}")
            self.trainer.terminate()


def _at_half(histogram: ScoreHistogram) -> dict[str, float]:
    """Return the scores that reveal a collapse."""
    n_all = histogram.n_signal + histogram.n_noise
    half = histogram.at(0.0)
    lit = half.retention * histogram.n_signal if histogram.n_signal else 0.0
    lit += (1 - half.removal) * histogram.n_noise if histogram.n_noise else 0.0
    return {
        "auc": histogram.auc(),
        "recall_at_half": half.retention,
        "lit_at_half": lit / n_all if n_all else float("nan"),
    }


class OperatingPointHandler(_Ranking):
    """Choose the threshold of the foreground on an evaluator's data.

    The metrics of the evaluator get `threshold` (a probability), `threshold_logit`, the `recall`,
    `precision` and `f1` at that threshold, and `average_precision`. All are NaN without
    foreground. After an evaluation `point` is the `OperatingPoint`, on the scale of the logit.

    Args:
        retention: recall of the foreground to keep; None for the best F1.
        foreground: foreground class; all but class 0 by default.
        ignore_index: label of the pixels to ignore.
        prefix: prefix of the names of the metrics.
        path: JSON file of the point. It is written when the evaluator's key metric is the best so
            far, and so belongs to the weights that MONAI's `CheckpointSaver` keeps.
        loss: training loss of dense_imb. Its inverse turns the logits into those of natural
            probabilities: apply the threshold to `loss.probability(logits, class_share)`.
        class_share: fraction of pixels of each class in training, for a loss with a balance.

    Example:
        >>> import torch
        >>> from monai.engines import SupervisedEvaluator
        >>> from dense_imb.integrations.monai import OperatingPointHandler
        >>> label = torch.eye(4)[None, None]
        >>> class Perfect(torch.nn.Module):
        ...     def forward(self, image):  # logits (B, 2, H, W)
        ...         return torch.cat([-3 * image, 3 * image], 1)
        >>> handler = OperatingPointHandler(retention=0.97)
        >>> evaluator = SupervisedEvaluator(
        ...     torch.device("cpu"),
        ...     [{"image": label, "label": label}],
        ...     Perfect(),
        ...     val_handlers=[handler],
        ... )
        >>> evaluator.run()
        >>> handler.point.retention, handler.point.removal
        (1.0, 1.0)
    """

    def __init__(
        self,
        retention: float | None = 0.97,
        *,
        foreground: int | None = None,
        ignore_index: int | None = None,
        prefix: str = "",
        path: str | os.PathLike[str] | None = None,
        loss: Loss | None = None,
        class_share: Any = None,
    ) -> None:
        if retention is not None and not 0 < retention <= 1:
            raise ValueError(f"Expected `retention` above 0 and up to 1, got {retention}.")
        super().__init__(foreground, ignore_index)
        self.retention, self.prefix, self.path = retention, prefix, path
        self.point: OperatingPoint | None = None
        self.loss, self.class_share = loss, class_share
        if loss is None and class_share is not None:
            raise ValueError("Expected the training `loss` with `class_share`, got none.")

    def _natural(self, logits: Tensor) -> Tensor:
        if self.loss is None:
            return logits
        n_classes = max(logits.shape[1], 2)
        return self.loss.natural(n_classes, self.class_share).logits(logits)

    def _end(self, engine: Engine) -> None:
        histogram = self.histogram.reduce_over_processes()
        self.point = None
        metrics = dict.fromkeys(("threshold", "threshold_logit", "recall", "precision", "f1"))
        if histogram.n_signal:
            self.point = point = _point(histogram, self.retention)
            kept_all = point.retention + point.purity
            metrics = {
                "threshold": float(torch.tensor(point.threshold, dtype=torch.float64).sigmoid()),
                "threshold_logit": point.threshold,
                "recall": point.retention,
                "precision": point.purity,
                "f1": 2 * point.retention * point.purity / kept_all if kept_all > 0 else 0.0,
            }
        metrics["average_precision"] = histogram.average_precision()
        for name, value in metrics.items():
            engine.state.metrics[self.prefix + name] = float("nan") if value is None else value
        if self.path is not None and self.point is not None and _is_best(engine):
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            self.point.save(self.path)


def _is_best(engine: Any) -> bool:
    """Whether this process is to save the point of this epoch's weights."""
    state = engine.state
    is_best = state.key_metric_name is None or state.best_metric_epoch == state.epoch
    return bool(is_best and state.rank == 0)


def _point(histogram: ScoreHistogram, retention: float | None) -> OperatingPoint:
    if retention is not None:
        return histogram.operating_point(retention)
    curve = histogram.curve()
    f1 = 2 * curve.retention * curve.purity / (curve.retention + curve.purity)
    return histogram.at(float(curve.threshold[f1.nan_to_num(0.0).argmax()]))


_SHARE = "gradient_share_"


class GradientShareHandler:
    """Share of the gradient that each class of pixels gets, measured on a batch now and then.

        share_c = sum over the pixels of class c of |d loss / d logits|  /  the same of all pixels

    The metrics of the trainer and its log get `gradient_share_0`, `gradient_share_1` and so on. A
    foreground share near 0 predicts a blank network; NaN means that the loss has no gradient. The
    training is not changed.

    Args:
        every: iterations between two measurements; the first iteration is measured.
        ignore_index: label of the pixels to ignore.
        class_of: class of each pixel, for losses of values: `Hits()`, `ValueBins(edges)`, or a
            function (prediction, target) -> label. By default the target holds the classes.

    Example:
        >>> import torch
        >>> from monai.engines import SupervisedTrainer
        >>> from dense_imb.integrations.monai import GradientShareHandler
        >>> from dense_imb.losses import Balance, CrossEntropyLoss
        >>> network = torch.nn.Conv2d(1, 2, 1, bias=False)
        >>> data = [{"image": torch.zeros(1, 1, 4, 4), "label": torch.eye(4)[None, None]}]
        >>> trainer = SupervisedTrainer(
        ...     torch.device("cpu"), 1, data, network, torch.optim.SGD(network.parameters()),
        ...     CrossEntropyLoss(balance=Balance()), train_handlers=[GradientShareHandler()],
        ... )
        >>> trainer.run()
        >>> {name: round(share, 3) for name, share in trainer.state.metrics.items()}
        {'gradient_share_0': 0.5, 'gradient_share_1': 0.5}
    """

    def __init__(
        self,
        every: int = 100,
        *,
        ignore_index: int | None = None,
        class_of: Partition | None = None,
    ) -> None:
        check_at_least("every", every, 1)
        self.every, self.ignore_index, self.class_of = every, ignore_index, class_of

    def attach(self, engine: Engine) -> None:
        """Attach the handler to a trainer."""
        # no LOSS_COMPLETED(every=...): ignite knows that of its own events only
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.iteration != 1 and engine.state.iteration % self.every:
            return
        output: Any = engine.state.output
        prediction, target = _raw(engine)
        if carries_instances(getattr(engine, "loss_function", None)):
            target, _ = split_target(target)
        loss = output[CommonKeys.LOSS]
        gradient = None
        if loss.requires_grad and prediction.requires_grad:
            (gradient,) = torch.autograd.grad(
                loss, prediction, retain_graph=True, allow_unused=True
            )
        if gradient is None:
            gradient = torch.zeros_like(prediction)
        shares = self._shares(gradient, prediction.detach(), target)
        engine.state.metrics.update({f"{_SHARE}{k}": s for k, s in enumerate(shares)})
        text = ", ".join(f"{share:.4f}" for share in shares)
        engine.logger.info(f"Iteration {engine.state.iteration}: gradient shares {text}")

    def _shares(self, gradient: Tensor, prediction: Tensor, target: Tensor) -> list[float]:
        if self.class_of is None:
            pixels = pixel_target(prediction, target, ignore_index=self.ignore_index)
            label, n_classes = pixels.slot, pixels.n_classes
            size = gradient.abs().double().sum(1)
        else:
            label = self.class_of(prediction, target).long()
            n_classes = int(getattr(self.class_of, "n_classes", int(label.max()) + 1))
            size = gradient.abs().double()
        # two more slots for ignored pixels
        total = torch.zeros(n_classes + 2, dtype=torch.float64, device=size.device)
        total.index_add_(0, label.reshape(-1), size.reshape(-1))
        class_total = total[:n_classes].cpu()
        return (class_total / class_total.sum()).tolist()  # 0 / 0: no gradient at all


class ProgressHandler:
    """Set the progress of a `BiasCompensatedLoss` at the start of each epoch.

    Args:
        loss: the loss, or a module that holds it, for example `DeepSupervisionLoss(loss)`.

    Example:
        >>> from ignite.engine import Engine
        >>> from dense_imb.integrations.monai import ProgressHandler
        >>> from dense_imb.losses import BiasCompensatedLoss
        >>> loss = BiasCompensatedLoss((9000, 1000))
        >>> trainer = Engine(lambda engine, batch: None)  # a SupervisedTrainer of MONAI
        >>> ProgressHandler(loss).attach(trainer)
        >>> _ = trainer.run([0], max_epochs=4)
        >>> float(loss.progress)  # at the start of the last epoch
        0.75
    """

    def __init__(self, loss: torch.nn.Module) -> None:
        self.losses = [part for part in loss.modules() if isinstance(part, BiasCompensatedLoss)]
        if not self.losses:
            raise TypeError(
                f"Expected `loss` with a BiasCompensatedLoss in it, got {type(loss).__name__}; "
                "no other loss depends on the progress."
            )

    def attach(self, engine: Engine) -> None:
        """Attach the handler to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        n_epochs = max(engine.state.max_epochs or 1, 1)
        for loss in self.losses:
            loss.set_progress(min((engine.state.epoch - 1) / n_epochs, 1.0))
