"""The task of scoring hits by networks of hits: each hit has outputs of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from dense_imb.base.checks import check_choice
from dense_imb.base.random import Draws
from dense_imb.base.refusals import Refused, suggest
from dense_imb.data.epochs.mixing import union
from dense_imb.data.events.virtual import VALIDATION_EPOCH, VirtualEvents
from dense_imb.data.images.labelled import IGNORED
from dense_imb.hits import Degradation, Events, MeasuredNoise, Sensors
from dense_imb.losses import Balance
from dense_imb.losses.core.natural import Natural
from dense_imb.losses.foreign.feeding import Intake, feed, intake_of, wants_instances
from dense_imb.models import HitInput
from dense_imb.tasks.base import TrainingData, as_logits
from dense_imb.tasks.hits.scoring import EVENTS, HITS, HitsOptions, ScoringTask
from dense_imb.tasks.hits.units import column_of_units, number_units, pad_events, unit_keys

DIRECTION = "direction"  # feature: where the sensor of a hit looks
AUGMENT = ("none", "mirror", "rotate")
_PARTNERS = 2**31  # epochs from here on degrade events that others are mixed with
_LABELS = 256  # labels of hits are bytes
_TURN = 106  # purpose of random numbers: mirrors and rotations


@dataclass(frozen=True)
class HitsReading:
    """Input of a network of hits, and meaning of its outputs.

    Args:
        features: columns of hits that the network sees beside position and time; "direction" is
            where the sensor looks.
        n_classes: classes of hits, noise included; 2 has one output, more have one a class.
        value: column of hits that a last output predicts; None predicts none.
        is_logit: whether outputs are logits; otherwise 0 means noise and 1 signal.
        natural: map to the logits of natural probabilities; None leaves them as trained.

    Example:
        >>> from dense_imb.tasks import HitsReading
        >>> HitsReading(["charge"], n_classes=2).n_outputs
        1
        >>> HitsReading(["charge"], n_classes=4, value="t").n_outputs  # a logit a class, and a time
        5
    """

    features: Sequence[str] = ()
    n_classes: int = 2
    value: str | None = None
    is_logit: bool = True
    natural: Natural | None = None  # not in the text: a trained run has it in a file of its own

    @property
    def n_channels(self) -> int:
        """Outputs that tell classes: 1 for two classes, else one a class."""
        return 1 if self.n_classes == 2 else self.n_classes

    @property
    def n_outputs(self) -> int:
        """Outputs of a hit, its value included."""
        return self.n_channels + (self.value is not None)

    def inputs(self, events: Events) -> HitInput:
        """Return the network's input for events of tensors."""
        place = torch.cat([events.position(), events.t.float().unsqueeze(1)], 1)
        columns = [_feature(events, name) for name in self.features]
        feature: Tensor = torch.cat([place.new_zeros(len(place), 0), *columns], 1)
        return HitInput(place, feature, events.offset)

    def probability(self, network: nn.Module, events: Events) -> Tensor:
        """Return the probability of each class, (n_hits, n_classes)."""
        events = events if events.is_torch else events.torch()
        if events.n_hits == 0:
            return torch.zeros(0, self.n_classes, device=events.t.device)
        return self.read_probability(network(self.inputs(events)))

    def score(self, network: nn.Module, events: Events) -> Tensor:
        """Return the score of each hit, (n_hits,) in [0, 1]: the probability of any signal."""
        events = events if events.is_torch else events.torch()
        if events.n_hits == 0:
            return torch.zeros(0, device=events.t.device)
        return self.read_score(network(self.inputs(events)))

    def read_probability(self, output: Tensor) -> Tensor:
        """Return the probabilities (..., n_classes) of outputs (..., n_outputs)."""
        logits = self.read_logits(output)
        if self.n_classes > 2:
            return logits.softmax(-1)
        signal = logits.sigmoid()
        return torch.cat([1 - signal, signal], -1)

    def read_score(self, output: Tensor) -> Tensor:
        """Return the scores (...) of outputs (..., n_outputs)."""
        if self.n_classes > 2:
            return (1 - self.read_probability(output)[..., 0]).clamp(0, 1)
        return self.read_logits(output)[..., 0].sigmoid()

    def read_logits(self, output: Tensor) -> Tensor:
        """Return the logits (..., n_channels) of outputs (..., n_outputs)."""
        output = output.float()[..., : self.n_channels]
        return as_logits(output, is_logit=self.is_logit, natural=self.natural, dim=-1)

    def as_text(self) -> str:
        """Return the text of the description in checkpoints."""
        names = [one.name for one in fields(self) if one.name != "natural"]
        arguments = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"HitsReading({arguments})"


class UnitWeights(NamedTuple):
    """Weights with which each unit of a class, an event or a particle, counts equally.

    Args:
        share: (n_hits,) 1 over the number of hits of the unit.
        label: (n_hits,) class of the unit.
    """

    share: Tensor
    label: Tensor

    def scaled(self, *, over_processes: bool = False) -> Tensor:
        """Return the weights of hits, (n_hits,), with a mean of 1 in each class.

        Args:
            over_processes: take the mean over the batches of all processes.
        """
        sums = self.share.new_zeros(2, _LABELS)
        sums[0] = torch.bincount(self.label, minlength=_LABELS)
        sums[1].index_add_(0, self.label, self.share)
        if over_processes and dist.is_available() and dist.is_initialized():
            dist.all_reduce(sums)
        n_hits, total = sums
        scaled: Tensor = self.share * (n_hits / total.clamp(min=1e-12))[self.label]
        return scaled


@dataclass(frozen=True)
class HitsBatch:
    """Hits of a batch of events and their targets.

    Args:
        shown: input of the network.
        label: (n_hits,) class of each hit, `IGNORED` where it has none.
        weight: weights in the loss; None if all hits have 1.
        value: (n_hits,) value to predict, NaN where it has none; None without values.
        instance: (n_hits,) number of the particle of each signal hit in its event, 0 for noise;
            None if the loss wants no instances.

    Example:
        >>> import torch
        >>> from dense_imb.models import HitInput
        >>> from dense_imb.tasks import HitsBatch
        >>> shown = HitInput(torch.zeros(5, 3), torch.zeros(5, 0), torch.tensor([0, 3, 5]))
        >>> batch = HitsBatch(shown, label=torch.tensor([0, 1, 0, 0, 1]))
        >>> batch.label.shape, batch.weight is None  # every hit counts the same
        (torch.Size([5]), True)
    """

    shown: HitInput
    label: Tensor
    weight: UnitWeights | None = None
    value: Tensor | None = None
    instance: Tensor | None = None


class HitsTask(ScoringTask):
    """The task of scoring hits with a network of hits, see `dense_imb.engine.task.Task`.

    Args:
        network: takes `HitInput`, returns (n_hits, outputs of `reading`).
        loss: takes logits (1, C, n_hits) and labels (1, n_hits); C = 1 for two classes.
        data: training and validation events.
        reading: features, classes and meaning of the outputs.
        options: balance, augmentation, sampling, mixing.

    Example:
        >>> import numpy as np, tempfile, torch
        >>> from dense_imb import HitsConfig, TrainConfig
        >>> from dense_imb.hits import HitsWriter, simulate
        >>> from dense_imb.tasks import HitsTask, build_task
        >>> path, arcs = tempfile.mkdtemp() + "/arcs.h5", simulate("arc", 8, seed=1)
        >>> with HitsWriter(path, arcs.geometry) as writer:
        ...     writer.append(arcs)
        >>> hits = HitsConfig(path, signal=20, noise=50, validation_share=0.5)
        >>> task = build_task(TrainConfig(hits))
        >>> batch = task.batch(np.arange(2), 0, torch.device("cpu"))
        >>> isinstance(task, HitsTask), batch.label.bincount()  # two events
        (True, tensor([100,  40]))
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        data: TrainingData,
        reading: HitsReading | None = None,
        options: HitsOptions | None = None,
    ) -> None:
        reading, options = reading or HitsReading(), options or HitsOptions()
        check_choice("augment", options.augment, AUGMENT)
        if (reading.value is None) != (options.value_loss is None):
            raise ValueError("Expected `value_loss` together with a value to predict.")
        check_columns(data.train, reading, options.balance_over)
        losses = [loss] if options.value_loss is None else [loss, options.value_loss]
        super().__init__(network, losses, data, reading, options)
        self._intake = intake_of(loss)
        self._is_global = is_global(loss)
        self.balance_over, self.augment = options.balance_over, options.augment
        self.wants_instances = wants_instances(loss)
        if self.wants_instances:
            self.balance_over = column_of_units(data.train, options.balance_over)
        elif self.balance_over != HITS and "pixel_weight" not in self._intake.takes:
            raise Refused(
                "a loss of dense_imb, which takes weights of hits, with {hits.balance_over}",
                self._intake.name,
                "for example {loss=CrossEntropyLoss}",
            )

    def describe_input(self) -> Mapping[str, str]:
        """Describe target, geometry and degradation."""
        return {
            "target": f"hits, over {self.balance_over}, augment {self.augment}, "
            + self.reading.as_text(),
            "frame": describe_geometry(self.train.geometry),
            "degradation": f"{self.train.describe()}, seed {self.train.seed}",
        }

    def batch(self, samples: NDArray[np.int64], epoch: int, device: torch.device) -> HitsBatch:
        """Return the hits of these samples, mixed if there is a mixer."""
        clean = self.train.clean(samples)
        events = self.train.degraded(samples, epoch, clean)
        if self.mixer is not None:
            plan = self.mixer.plan(samples, epoch, self._is_present(samples))
            other = events.numpy()
            if self.mixer.draws_images:
                # the same event may be the partner of several: its noise follows the sample
                partners = self.train.clean(plan.partner)
                other = self.train.degraded(samples, epoch + _PARTNERS, partners).numpy()
            else:
                other = other.take(plan.partner)
            events = union(
                events.numpy(),
                other,
                plan.share,
                seed=self.mixer.seed,
                epoch=epoch,
                samples=samples,
                apart=self.balance_over if self.wants_instances else None,
            )
        return self._batch(events.torch(device), samples, epoch)

    def _batch(self, events: Events, samples: NDArray[np.int64], epoch: int) -> HitsBatch:
        reading: HitsReading = self.reading
        shown = self.augmented(reading.inputs(events), samples, epoch)
        over, wants_instances = self.balance_over, self.wants_instances
        return HitsBatch(
            shown,
            classes_of_hits(events, reading.n_classes),
            None if wants_instances else unit_weights(events, over),
            None if reading.value is None else _value(events, reading.value),
            number_units(events, over) if wants_instances else None,
        )

    def augmented(self, shown: HitInput, samples: NDArray[np.int64], epoch: int) -> HitInput:
        """Mirror, or mirror and rotate, the first two axes of each event at random."""
        if self.augment == "none":
            return shown
        numbers = Draws(self.train.seed, epoch, samples).uniform(_TURN, 1)[:, : len(samples)]
        event = torch.repeat_interleave(shown.offset.diff())
        device = shown.coordinate.device
        geometry = self.train.geometry
        matrix = torch.from_numpy(_turns(numbers, self.augment)).float().to(device)[event]
        coordinate, feature = shown.coordinate.clone(), shown.feature
        middle = coordinate.new_zeros(2)
        if not isinstance(geometry, Sensors):
            middle = coordinate.new_tensor([(geometry.width - 1) / 2, (geometry.height - 1) / 2])
        coordinate[:, :2] = _apply(matrix, coordinate[:, :2] - middle) + middle
        if DIRECTION in self.reading.features:
            feature, start = feature.clone(), 0
            for name in self.reading.features:
                if name == DIRECTION:
                    feature[:, start : start + 2] = _apply(matrix, feature[:, start : start + 2])
                start += geometry.n_axes if name == DIRECTION else 1
        return HitInput(coordinate, feature, shown.offset)

    def cost_of(self, output: Tensor, batch: HitsBatch) -> Tensor:
        """Return the loss of the outputs of all hits, of their values included."""
        reading: HitsReading = self.reading
        classes = output[:, : reading.n_channels]
        weight = None
        if batch.weight is not None:
            weight = batch.weight.scaled(over_processes=self._is_global)
        if batch.instance is None:
            cost = cost_of_hits(self._losses[0], self._intake, classes, batch.label, weight)
        else:
            options = pad_events(classes, batch.label, batch.instance, batch.shown.offset)
            cost = feed(self._losses[0], self._intake, **options)
        if batch.value is not None:
            is_known = batch.value.isfinite()
            if bool(is_known.any()) or is_global(self._losses[1]):
                predicted = output[is_known, reading.n_channels]
                cost = cost + self._losses[1](predicted[None], batch.value[is_known][None])
        return cost

    @torch.no_grad()
    def labelled_outputs(
        self, network: nn.Module, device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the logits (n, C) and the classes (n,) of the validation hits."""
        for start in range(0, len(self.validation), self.batch_size):
            numbers = np.arange(start, min(start + self.batch_size, len(self.validation)))
            events = self.validation.degraded(numbers, VALIDATION_EPOCH).torch(device)
            if events.n_hits:
                output = network(self.reading.inputs(events))
                label = classes_of_hits(events, self.reading.n_classes)
                yield self.reading.read_logits(output).cpu(), label.cpu()

    def feature_label(self, batch: HitsBatch) -> Tensor:
        """Return the class of each hit, (n_hits,)."""
        return batch.label

    def pixels_by_class(self, batch: HitsBatch) -> Mapping[str, Tensor]:
        """Return masks of the hits of each class."""
        n_classes = self.reading.n_classes
        if n_classes == 2:
            return {"signal": batch.label == 1, "noise": batch.label == 0}
        return {f"class_{k}": batch.label == k for k in range(n_classes)}


def cost_of_hits(
    loss: nn.Module, intake: Intake, output: Tensor, label: Tensor, weight: Tensor | None = None
) -> Tensor:
    """Return the loss of hits; 0 without any.

    A loss over all processes is called even then: the others wait for it.

    Args:
        loss: loss.
        intake: its signature, see `intake_of`.
        output: (n_hits, C) outputs.
        label: (n_hits,) classes; hits with `IGNORED` are left out.
        weight: (n_hits,) weights; None if all have 1.
    """
    is_known = label != IGNORED
    if not bool(is_known.all()):
        output, label = output[is_known], label[is_known]
        weight = None if weight is None else weight[is_known]
    if len(label) == 0 and not is_global(loss):  # a plain mean would be NaN
        return 0 * output.sum()
    logits = output.T[None]  # (1, C, n_hits)
    target = label.to(output.dtype)[None, None] if output.shape[1] == 1 else label[None]
    options = {} if weight is None else {"pixel_weight": weight.view(1, -1)}
    cost: Tensor = feed(loss, intake, logits, target, options)
    return cost


def classes_of_hits(events: Events, n_classes: int) -> Tensor:
    """Return the class of each hit, (n_hits,): signal or noise, or its label."""
    assert events.label is not None  # checked at the start
    label: Tensor = events.label.long()
    if n_classes == 2:
        return (label > 0).long()
    if events.n_hits and int(label.max()) >= n_classes:
        raise Refused(
            f"labels of hits below {{hits.n_classes}}, {n_classes}",
            int(label.max()),
            f"set {{hits.n_classes={int(label.max()) + 1}}}",
        )
    return label


def hit_weights(events: Events, over: str) -> Tensor | None:
    """Return weights with which each unit of a class counts equally; None for "hits".

    A unit is an event, or a particle in an event. Units of a class have equal sums of weights, and
    the mean weight of a class is 1, so classes keep their weight against each other.

    Args:
        events: events of tensors, with labels.
        over: "hits", "events", or a column of hits that names the particle of each.

    Example:
        >>> from dense_imb.hits import Geometry
        >>> x, label = torch.zeros(5, dtype=torch.long), torch.tensor([1, 1, 1, 1, 0])
        >>> events = Events(Geometry(), torch.tensor([0, 5]), x, x, x + 1, label,
        ...                 {"particle": torch.tensor([1, 1, 1, 2, 0])})
        >>> hit_weights(events, "particle")
        tensor([0.6667, 0.6667, 0.6667, 2.0000, 1.0000])
    """
    weights = unit_weights(events, over)
    return None if weights is None else weights.scaled()


def unit_weights(events: Events, over: str) -> UnitWeights | None:
    """Return the share of each hit in its unit, see `hit_weights`."""
    if over == HITS:
        return None
    assert events.label is not None
    keys = unit_keys(events, over)
    _, unit, count = torch.unique(keys, dim=0, return_inverse=True, return_counts=True)
    return UnitWeights(1 / count[unit].float(), events.label.long())


def is_global(loss: nn.Module) -> bool:
    """Tell whether a loss is a mean over the batches of all processes, see `Balance.scope`."""
    rules = (getattr(part, "balance", None) for part in loss.modules())
    return any(isinstance(rule, Balance) and rule.scope == "global" for rule in rules)


def describe_geometry(geometry: object) -> str:
    """Return the size of a geometry as text, with the digest of a table of sensors."""
    if isinstance(geometry, Sensors):
        return f"{geometry.size_text()}, {geometry.digest}"
    return str(geometry.size_text())  # type: ignore[attr-defined]


def _feature(events: Events, name: str) -> Tensor:
    """Return a column as (n_hits, k) float32."""
    if name == DIRECTION:
        assert isinstance(events.geometry, Sensors)
        return events.geometry.table_on("direction", events.t.device)[events.sensor]
    if name not in events.hit:
        raise Refused(
            f"the column `{name}` of hits, which the network was trained with",
            f"only {', '.join(events.hit) or 'none'}",
            "convert the file with this column, or train without it",
        )
    column: Tensor = events.hit[name].float()
    if not bool(column.isfinite().all()):
        hit = int((~column.isfinite()).nonzero()[0, 0])
        event = int(torch.searchsorted(events.offset, hit, right=True)) - 1
        raise Refused(
            f"finite numbers in the column `{name}`, a feature of the network",
            f"{float(column[hit])} in event {event} of the batch (hit {hit})",
            "drop these hits, or write a number that stands for unknown",
        )
    return column.unsqueeze(1) if column.dim() == 1 else column.flatten(1)


def _value(events: Events, name: str) -> Tensor:
    """Return the value of signal hits, (n_hits,), NaN for noise."""
    assert events.label is not None
    column: Tensor = events.hit[name] if name in events.hit else getattr(events, name)
    return column.float().masked_fill(events.label == 0, math.nan)


def check_columns(events: VirtualEvents, reading: HitsReading, over: str) -> None:
    """Refuse columns that the events lack, and those that added noise has no value for."""
    geometry = events.geometry
    known = [name.removeprefix("/hit/") for name in events.source.columns if "/hit/" in name]
    own = {*geometry.columns, "t", "label"}
    further = [name for name in known if name not in own]
    is_simulated = adds_simulated_noise(events.degradation)
    for option, names in (
        ("features", [name for name in reading.features if name != DIRECTION]),
        ("balance_over", [] if over in (HITS, EVENTS) else [over]),
        ("value", [] if reading.value in (None, "t") else [reading.value]),
    ):
        for name in names:
            if name not in further:
                listed = ", ".join(further) or "none"
                raise Refused(
                    f"{{hits.{option}}} to name further columns of hits ({listed})",
                    f"`{name}`",
                    f"keep it when you convert the file.{suggest(str(name), further)}".rstrip("."),
                )
        if names and is_simulated and option == "features":
            raise Refused(
                f"noise hits with a value of `{names[0]}`, a feature of the network",
                "simulated noise, which has none",
                "add measured noise alone, {hits.measured_noise=FILE} with {hits.profiles=[]}, or "
                "train on files that contain noise",
            )
    if DIRECTION in reading.features and getattr(geometry, "direction", None) is None:
        raise ValueError(
            f"Expected a table of sensors with directions for the feature `direction`, got "
            f"{geometry.size_text()}; drop the feature."
        )


def adds_simulated_noise(degradation: Degradation | None) -> bool:
    """Return whether noise is added that was not measured, and so has no further columns."""
    if degradation is None or degradation.noise in (0, (0, 0)):
        return False
    return any(
        profile.weight > 0 and not isinstance(profile, MeasuredNoise)
        for profile in degradation.profiles
    )


def _turns(numbers: NDArray[np.float64], augment: str) -> NDArray[np.float64]:
    """Return (B, 2, 2) mirrors of both axes, and rotations before them."""
    sign = np.where(numbers[:2] < 0.5, -1.0, 1.0)
    angle = 2 * math.pi * numbers[2] if augment == "rotate" else np.zeros(numbers.shape[1])
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)
    return np.asarray(turn * sign.T[:, :, None])


def _apply(matrix: Tensor, vector: Tensor) -> Tensor:
    return torch.einsum("nij,nj->ni", matrix, vector)
