"""Mean teachers: learn from unlabelled samples beside labelled ones, for any task.

    teacher <- d teacher + (1 - d) network     after step n, d = min(decay, n / (9 + n))
    label    = teacher(weak view)              where its probability reaches the threshold
    cost     = loss(labelled) + w r s loss(network(strong view), label)

w is `weight`, r grows from 0 to 1 over the ramp, and s is the fraction of the pixels (hits,
images) with a confident pseudo-label. Mean teachers: Tarvainen
and Valpola 2017. Weak and strong views: FixMatch, Sohn et al. 2020. Sampling of unlabelled images
by their pseudo-labels: He et al. 2021, "Rethinking Re-Sampling in Imbalanced Semi-Supervised
Learning".
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.base.refusals import Refused
from dense_imb.data.epochs.samplers import SAMPLINGS, ClassSampling, draw_uniform
from dense_imb.data.images.labelled import IGNORED
from dense_imb.losses import LogPrior, Temperature
from dense_imb.losses.foreign.feeding import can_ignore, feed, intake_of
from dense_imb.tasks.base import ShownBatch, joined, n_outputs
from dense_imb.tasks.instances import check_pseudo_loss

# "progressive" needs a known last epoch; sampling by pseudo-label has none
UNLABELLED_SAMPLINGS = tuple(kind for kind in SAMPLINGS if kind != "progressive")
_LISTED = 20  # classes
_DRAW = 104  # purpose of random numbers: which unlabelled samples go with a labelled one


class Unlabelled(Protocol):
    """Unlabelled samples of one kind of task."""

    n_images: int
    n_classes: int
    samples: Any  # by number
    loss: nn.Module  # of pseudo-labels

    def views(
        self,
        samples: NDArray[np.int64],
        places: NDArray[np.int64],
        epoch: int,
        device: torch.device,
    ) -> ShownBatch:
        """Return weak views of the images at some places, and all that strong views need.

        Called in a thread of its own: it must not draw from torch's random generators.
        """

    def label_views(self, teacher: nn.Module, views: Any, threshold: float) -> tuple[Any, Tensor]:
        """Return strong views with the teacher's labels, and the fraction labelled as each class.

        The fractions are (n_classes,), of all pixels, hits or images; the rest was below the
        threshold. Called in the main thread, without gradients.
        """

    def cost(self, output: Tensor, pseudo: Any) -> Tensor:
        """Return the loss of an output for the labelled strong views of `label_views`."""

    def content(
        self, teacher: nn.Module, places: NDArray[np.int64], device: torch.device
    ) -> NDArray[np.int64]:
        """Count pixels, hits or images by the class that the teacher predicts, (n, n_classes)."""

    def describe(self) -> str:
        """Describe the samples and their views in words, for a checkpoint."""


@dataclass(frozen=True)
class SemiBatch:
    """A labelled batch, and weak views of unlabelled samples."""

    labelled: Any
    unlabelled: Any

    @property
    def shown(self) -> Any:
        """Input of the labelled part."""
        return self.labelled.shown


class Teacher(nn.Module):
    """Running mean of a network, and its predicted classes of each unlabelled image.

    Args:
        network: network to begin with.
        n_images: number of unlabelled images; 0 if their classes are not needed.
        n_classes: number of classes.
    """

    content: Tensor  # (n_images, n_classes) predicted pixels of each class; 0 before `refresh`
    sure: Tensor  # (n_classes,) fraction of the pixels with each pseudo-label in the last step
    n_steps: Tensor  # number of steps done

    def __init__(self, network: nn.Module, n_images: int, n_classes: int) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.register_buffer("content", torch.zeros(n_images, n_classes, dtype=torch.int32))
        self.register_buffer("sure", torch.zeros(n_classes))
        self.register_buffer("n_steps", torch.zeros(()))

    @torch.no_grad()
    def follow(self, network: nn.Module, decay: float, n_steps: int) -> None:
        """Move the parameters towards those of a network, and copy its buffers."""
        for mine, theirs in zip(self.network.parameters(), network.parameters(), strict=True):
            mine.lerp_(theirs, 1 - decay)
        for buffer, source in zip(self.network.buffers(), network.buffers(), strict=True):
            buffer.copy_(source)
        self.n_steps.fill_(n_steps)


@dataclass(frozen=True)
class StrongViews:
    """Strong views of unlabelled samples.

    Args:
        kind: kind of view, see `UnlabelledConfig.strong`.
        operations: RandAugment: number of operations in sequence.
        magnitude: RandAugment: strength of each operation, 0 to 30.

    Example:
        >>> from dense_imb.tasks import StrongViews
        >>> StrongViews("randaugment", operations=3).magnitude
        9
    """

    kind: str = "auto"
    operations: int = 2
    magnitude: int = 9


@dataclass(frozen=True)
class TeacherOptions:
    """Options of learning from a mean teacher.

    Args:
        ratio: unlabelled samples for each labelled sample in a batch.
        weight: weight of the loss of the pseudo-labels.
        ramp_steps: number of steps over which this weight grows from 0.
        threshold: smallest probability of a confident pseudo-label.
        decay: fraction of the teacher that is kept in each step.
        sampling: class-balanced sampling of unlabelled samples, by pseudo-label.
        seed: random seed of their draw.

    Example:
        >>> from dense_imb.tasks import TeacherOptions
        >>> options = TeacherOptions(threshold=0.9, ramp_steps=200)
        >>> options.decay  # fraction of the teacher that is kept in each step
        0.99
    """

    ratio: int = 1
    weight: float = 1.0
    ramp_steps: int = 0
    threshold: float = 0.95
    decay: float = 0.99
    sampling: str = "instance"
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least("unlabelled.ratio", self.ratio, 1)
        check_at_least("unlabelled.weight", self.weight, 0)
        if not 0 <= self.threshold < 1:
            raise ValueError(
                f"Expected `unlabelled.threshold` from 0 to below 1, got {self.threshold}: no "
                "probability is larger than that."
            )
        if not 0 <= self.decay < 1:
            raise ValueError(f"Expected `unlabelled.decay` from 0 to below 1, got {self.decay}.")
        check_choice("unlabelled.sampling", self.sampling, UNLABELLED_SAMPLINGS)


class SemiSupervised:
    """A task that learns from unlabelled samples as well, see `dense_imb.engine.task.TaughtTask`.

    Args:
        task: labelled part; it also validates.
        unlabelled: unlabelled samples.
        options: options of the teacher.

    Example:
        >>> import tempfile
        >>> from dense_imb import HitsConfig, TrainConfig
        >>> from dense_imb.hits import HitsWriter, simulate
        >>> from dense_imb.runs import UnlabelledConfig
        >>> from dense_imb.tasks import SemiSupervised, build_task
        >>> path, arcs = tempfile.mkdtemp() + "/arcs.h5", simulate("arc", 8, seed=1)
        >>> with HitsWriter(path, arcs.geometry) as writer:
        ...     writer.append(arcs)
        >>> hits = HitsConfig(path, signal=20, noise=50, validation_share=0.5)
        >>> rest = UnlabelledConfig(rest=True)  # the other half of the training events
        >>> task = build_task(TrainConfig(hits, labelled_share=0.5, unlabelled=rest))
        >>> isinstance(task, SemiSupervised), task.n_samples
        (True, 2)
    """

    def __init__(
        self, task: Any, unlabelled: Unlabelled, options: TeacherOptions | None = None
    ) -> None:
        options = options or TeacherOptions()
        self.task, self.unlabelled, self.options = task, unlabelled, options
        self.ratio, self.weight, self.ramp_steps = (
            options.ratio,
            options.weight,
            options.ramp_steps,
        )
        self.threshold, self.decay = options.threshold, options.decay
        self.sampling, self.seed = options.sampling, options.seed
        sampling = options.sampling
        self.network: nn.Module = task.network
        is_shared = unlabelled.loss is task.output_loss
        self.loss: nn.Module = (
            task.loss if is_shared else nn.ModuleList([task.loss, unlabelled.loss])
        )
        self.monitor: str = task.monitor
        self.n_samples: int = task.n_samples
        self.class_counts = task.class_counts
        n_asked = 0 if sampling == "instance" else unlabelled.n_images
        self.teacher = Teacher(task.network, n_asked, unlabelled.n_classes)
        if hasattr(task, "probe"):
            self.probe = task.probe
        self._drawn: tuple[int, ClassSampling | None] | None = None  # with the version of `content`

    def describe(self) -> Mapping[str, str]:
        """Describe network, losses and data in words, for a checkpoint."""
        text = (
            f"{self.unlabelled.describe()}; {self.ratio} for each labelled one by {self.sampling}, "
            f"weight {self.weight:g} after {self.ramp_steps} steps, threshold {self.threshold:g}, "
            f"decay {self.decay:g}, {' '.join(repr(self.unlabelled.loss).split())}"
        )
        return {**self.task.describe(), "unlabelled": text}

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Return the labelled samples of an epoch."""
        order: NDArray[np.int64] = self.task.order(seed, epoch)
        return order

    def batch(self, samples: NDArray[np.int64], epoch: int, device: torch.device) -> SemiBatch:
        """Return labelled samples, and unlabelled ones that depend on them and the epoch only."""
        number = np.repeat(samples * self.ratio, self.ratio) + np.tile(
            np.arange(self.ratio), len(samples)
        )
        places = self._places(draw_uniform(self.seed, epoch, number, _DRAW))
        return SemiBatch(
            self.task.batch(samples, epoch, device),
            self.unlabelled.views(number, places, epoch, device),
        )

    def _places(self, number: NDArray[np.float64]) -> NDArray[np.int64]:
        by_class = None if self.sampling == "instance" else self._by_class()
        if by_class is None:
            return np.asarray(number * self.unlabelled.n_images, np.int64)
        return by_class.images_at(number, 0)

    def _by_class(self) -> ClassSampling | None:
        """Return the sampling by predicted classes; None before the first `refresh`."""
        content = self.teacher.content
        if self._drawn is None or self._drawn[0] != content._version:
            counts = content.cpu().numpy()
            counts = counts[:, counts.any(0)]  # without classes that are never predicted
            drawn = ClassSampling.of(counts, self.sampling) if counts.size else None
            self._drawn = content._version, drawn
        return self._drawn[1]

    def cost(self, network: nn.Module, batch: SemiBatch) -> Tensor:
        """Return the loss of the labelled part plus that of the pseudo-labels."""
        with torch.no_grad():
            pseudo, sure = self.unlabelled.label_views(
                self.teacher.network, batch.unlabelled, self.threshold
            )
        self.teacher.sure.copy_(sure)
        shown = batch.labelled.shown
        output = network(joined(shown, pseudo.shown)).float()
        n = n_outputs(shown)
        # the labelled loss comes last: a loss that stores its last call then stores true labels
        pseudo_cost = self.unlabelled.cost(output[n:], pseudo)
        cost: Tensor = self.task.cost_of(output[:n], batch.labelled)
        feature_cost = self.task.feature_cost(batch.labelled, n)
        cost = cost if feature_cost is None else cost + feature_cost
        ramp = (self.teacher.n_steps / max(self.ramp_steps, 1)).clamp(max=1)
        return cost + self.weight * ramp * sure.sum().to(cost.dtype) * pseudo_cost

    def follow(self, network: nn.Module, step: int) -> None:
        """Move the teacher towards the network; at step 0 they are equal."""
        self.teacher.follow(network, min(self.decay, step / (9 + step)), step)

    def refresh(self, device: torch.device, process: int, n_processes: int) -> None:
        """Predict the classes of each unlabelled image, if the sampling needs them."""
        if self.sampling == "instance":
            return
        places = np.arange(self.unlabelled.n_images)[process::n_processes]
        content = torch.zeros_like(self.teacher.content)
        counts = self.unlabelled.content(self.teacher.network, places, device)
        content[torch.from_numpy(places).to(content.device)] = torch.from_numpy(counts).to(content)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(content)
        self.teacher.content.copy_(content)

    def validate(
        self, network: nn.Module, device: torch.device, process: int, n_processes: int
    ) -> dict[str, float]:
        """Return the scores of the task, and the fraction of confident pseudo-labels per class."""
        scores: dict[str, float] = self.task.validate(network, device, process, n_processes)
        sure = self.teacher.sure.clone()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(sure)
            sure /= dist.get_world_size()
        shares = {"sure_share": float(sure.sum())}
        if len(sure) <= _LISTED:
            shares |= {f"sure_share_{k}": float(share) for k, share in enumerate(sure)}
        return {**scores, **shares}

    def save_scores(self, path: Path) -> None:
        """Write the counts of the last validation."""
        self.task.save_scores(path)

    def gradient_shares(self, network: nn.Module, batch: SemiBatch) -> dict[str, float]:
        """Return the gradient shares of the labelled part."""
        shares: dict[str, float] = self.task.gradient_shares(network, batch.labelled)
        return shares


class PseudoLoss:
    """Loss of the pixels, or images, with a pseudo-label; the others are `IGNORED`.

    Args:
        loss: loss of logits that can ignore pixels, by `mask=` or `ignore_index`.
        is_dense: whether labels are maps; images without a label are simply dropped.
    """

    def __init__(self, loss: nn.Module, *, is_dense: bool) -> None:
        check_pseudo_loss(loss)
        self.loss, self._intake, self._is_dense = loss, intake_of(loss), is_dense
        if is_dense and not can_ignore(loss):
            raise Refused(
                "a loss of pseudo-labels that can leave pixels out, by `mask` or `ignore_index`",
                self._intake.name,
                "for example {unlabelled.loss=CrossEntropyLoss}",
            )

    def __call__(self, output: Tensor, label: Tensor) -> Tensor:
        """Return the loss of an output (B, C, *spatial) for labels (B, *spatial); 0 without any."""
        is_sure, options = label != IGNORED, {}
        if "mask" in self._intake.takes:
            options, label = {"mask": is_sure}, label.masked_fill(~is_sure, 0)
        elif not bool(is_sure.any()):  # the mean of nothing is NaN
            return 0 * output.sum()
        elif self._is_dense:
            label = label.masked_fill(~is_sure, int(self._intake.ignore_index or 0))
        else:
            output, label = output[is_sure], label[is_sure]
        cost: Tensor = feed(self.loss, self._intake, output, label, options)
        return cost


def as_trained(loss: nn.Module, logits: Tensor, class_counts: Sequence[int]) -> Tensor:
    """Return logits whose softmax gives the class probabilities in the training data.

    A network trained with balanced softmax or a balanced mean predicts as if classes were
    equally frequent: too few background pixels would be confident, and too many others.

    Args:
        loss: loss that the network was trained with.
        logits: logits (B, C, *spatial); a single channel is binary, and two are returned.
        class_counts: number of training pixels of each class.
    """
    adjustment = getattr(loss, "adjustment", None)
    if adjustment is None and getattr(loss, "balance", None) is not None:
        adjustment = LogPrior(class_counts)
    if not isinstance(adjustment, LogPrior | Temperature):
        return logits
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    return adjustment(logits, logits[:, 0])


def sure_shares(label: Tensor, n_classes: int) -> Tensor:
    """Return the fraction of each class among all labels, IGNORED ones included, (n_classes,).

    Example:
        >>> sure_shares(torch.tensor([0, 0, 1, 255]), 3)
        tensor([0.5000, 0.2500, 0.0000])
    """
    return torch.stack([(label == k).float().mean() for k in range(n_classes)])


def pseudo_labels(probability: Tensor, threshold: float) -> Tensor:
    """Return the likeliest class (B, *spatial) of (B, C, *spatial); IGNORED below the threshold.

    Example:
        >>> probability = torch.tensor([[0.97, 0.4], [0.03, 0.6]])[None]  # two pixels
        >>> pseudo_labels(probability, 0.95)
        tensor([[  0, 255]])
    """
    surest, label = probability.max(1)
    return label.masked_fill(surest < threshold, IGNORED)
