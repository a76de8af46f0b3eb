"""Recipes of networks that score hits: networks of hits, and networks of frames."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from dense_imb.base.checks import check_at_least, check_choice
from dense_imb.base.refusals import Refused, literal, refusal
from dense_imb.config import OF_FRAMES, OF_HITS, HitsConfig, scores_hits
from dense_imb.data.events.virtual import VirtualEvents
from dense_imb.data.images.labelled import IGNORED
from dense_imb.hits import (
    Blob,
    Burst,
    Degradation,
    Events,
    Geometry,
    HitsFile,
    HitsFiles,
    HotLines,
    HotPixels,
    MeasuredNoise,
    SensorNoise,
    Sensors,
    Uniform,
    open_hits,
)
from dense_imb.hits.columns import describe_unseen
from dense_imb.hits.frames import CHANNELS
from dense_imb.hits.noise import Profile
from dense_imb.hits.scaling import LIGHT
from dense_imb.losses.foreign.feeding import takes_logits, wants_instances
from dense_imb.losses.foreign.parse import parse_call
from dense_imb.losses.foreign.recommended import (
    Recommendation,
    recommended_for_frames,
    recommended_for_hits,
)
from dense_imb.models import build_hit_network, build_model, hit_network_sizes
from dense_imb.tasks.base import TrainingData
from dense_imb.tasks.hits.frames import N_CHANNELS, NO_INSTANCES, FrameReading, FramesTask
from dense_imb.tasks.hits.pseudo_labels import (
    FramePseudoLabels,
    HitsPseudoLabels,
)
from dense_imb.tasks.hits.scoring import EVENTS, HITS, HitsOptions, Pixels, is_signal, is_visible
from dense_imb.tasks.hits.task import (
    DIRECTION,
    HitsReading,
    HitsTask,
    adds_simulated_noise,
    check_columns,
    classes_of_hits,
)
from dense_imb.tasks.hits.trained import TrainedHits, trained_on
from dense_imb.tasks.hits.units import PARTICLE
from dense_imb.tasks.instances import check_per_class
from dense_imb.tasks.mean_teacher import Unlabelled
from dense_imb.tasks.recipe import Recipe, check_share
from dense_imb.tasks.unlabelled import REST, naming_the_option

PROFILES: dict[str, Any] = {
    "uniform": Uniform,
    "blob": Blob,
    "burst": Burst,
    "hot_pixels": HotPixels,
    "hot_lines": HotLines,
    "sensors": SensorNoise,
}
_COUNTED = 256  # events
_FAR = 20.0  # the detector is this much larger or smaller than light travels in an event
_HITS = ("/event/offset", "/hit/x", "/hit/y", "/hit/t")


@dataclass(frozen=True)
class HitsRecipe(Recipe):
    """The recipe of a network that scores hits."""

    def check(self) -> None:
        """Refuse options of hits that cannot be trained."""
        config, hits = self.config, self.config.hits
        if hits.validation_events is not None:
            check_at_least("validation_events", hits.validation_events, 1)
        check_share("validation_share", hits.validation_share)
        if not 0 < hits.retention <= 1:
            raise ValueError(f"Expected `retention` above 0 and up to 1, got {hits.retention}.")
        if hits.measured_noise is None and hits.measured_weight != HitsConfig().measured_weight:
            raise refusal(
                "{hits.measured_weight} changes nothing without measured noise; add "
                "{hits.measured_noise=FILE}."
            )
        for name, is_used in (
            ("profiles", hits.profiles != HitsConfig().profiles),
            ("measured_noise", hits.measured_noise is not None),
        ):
            if is_used and hits.noise == 0:
                raise refusal(
                    f"{{hits.{name}}} changes nothing while {{hits.noise}} is 0; add "
                    "{hits.noise=200}."
                )
        self.degradation  # noqa: B018  # refuses wrong profiles
        if self.sees_hits:
            self._check_network_of_hits()
        else:
            self._check_network_of_frames()
        default = "union" if self.sees_hits else "linear"
        if hits.mixing not in ("auto", default) and config.mixing.kind == "none":
            raise refusal(
                "{hits.mixing} changes nothing while {mixing.kind} is none; add "
                "{mixing.kind=mixup}."
            )
        if hits.mixing == "union" and hits.target == "pattern":
            raise Refused(
                "{hits.target=signal} with {hits.mixing=union}",
                "pattern: hits that thinning removed belong to it as well",
                "take {hits.mixing=linear}, which mixes frames",
            )

    @property
    def sees_hits(self) -> bool:
        """Whether the network sees hits; other networks see frames."""
        return scores_hits(self.config.model.name)

    def recommend(self, class_counts: Sequence[int]) -> Recommendation:
        """Return the loss that `dense-imb inspect` recommends, whatever the class counts."""
        if self.sees_hits:
            return recommended_for_hits()
        return recommended_for_frames(is_value=self.config.hits.output == "value")

    def _refuse_options_of(self, names: Sequence[str], of: str, sees: str, cure: str) -> None:
        """Refuse options of the other kind of network that differ from their defaults."""
        plain, model = HitsConfig(), self.config.model.name
        for name in names:
            if getattr(self.config.hits, name) != getattr(plain, name):
                raise refusal(
                    f"{{hits.{name}}} is an option of networks of {of}, but {model} {sees}; drop "
                    f"it, or take {{model.name={cure}}}."
                )

    def _check_network_of_frames(self) -> None:
        config, hits = self.config, self.config.hits
        self._refuse_options_of(OF_HITS, "hits", "sees frames", "hits")
        check_per_class(self.checked_loss, *NO_INSTANCES)
        reading = self.frame_reading(self.is_logit)
        if reading.output == "value" and reading.is_logit:
            raise Refused(
                "a loss of values with {hits.output=value}",
                f"{config.loss}, a loss of logits",
                "take {loss=ACBMSELoss}, usually with {hits.pixels=frame}",
            )
        if reading.output == "both":
            self.further_loss(hits.value_loss)

    def _check_network_of_hits(self) -> None:
        config, hits = self.config, self.config.hits
        self._refuse_options_of(OF_FRAMES, "frames", "sees hits", "fast_unet")
        if hits.mixing == "linear" and config.mixing.kind != "none":
            raise refusal(
                "{hits.mixing=linear} mixes frames, but a network of hits sees none; take "
                "{hits.mixing=union}."
            )
        check_at_least("n_classes", hits.n_classes, 2)
        if hits.n_classes > IGNORED:
            raise ValueError(
                f"Expected `n_classes` from 2 to {IGNORED}, got {hits.n_classes}; the label "
                f"{IGNORED} marks hits without a class."
            )
        if hits.n_classes > 2 and not self.is_logit:
            raise Refused(
                "a loss of logits for more than two classes of hits",
                f"{config.loss}, a loss of values",
                "take {loss=CrossEntropyLoss}",
            )
        if hits.value is not None:
            self.further_loss(hits.value_loss)

    @cached_property
    def degradation(self) -> Degradation | None:
        """Degradation of each event; None without any."""
        hits = self.config.hits
        smears = (hits.smear_x, hits.smear_y, hits.smear_t)
        if hits.signal is None and hits.noise == 0 and not any(smears):
            return None
        profiles: list[Profile | MeasuredNoise] = [_profile(text) for text in hits.profiles]
        if hits.measured_noise is not None:
            measured = open_hits(hits.measured_noise, in_memory=True)[:]
            _check_noise_only(hits.measured_noise, measured)
            profiles.append(MeasuredNoise(measured, weight=hits.measured_weight))
        return Degradation(
            signal=None if hits.signal is None else _range("signal", hits.signal),
            noise=_range("noise", hits.noise),
            smear_x=hits.smear_x,
            smear_y=hits.smear_y,
            smear_t=hits.smear_t,
            profiles=profiles,
        )

    def frame_reading(self, is_logit: bool) -> FrameReading:
        """Return how events become frames, and how the output becomes scores."""
        hits = self.config.hits
        return FrameReading(tuple(hits.channels), hits.threshold, hits.output, is_logit)

    def open_data(self) -> tuple[VirtualEvents, VirtualEvents, VirtualEvents | None]:
        """Open training and validation events, and training events whose labels are not used."""
        hits, seed = self.config.hits, self.config.seed
        source = open_hits(hits.train)
        if hits.validation:
            train, held_out = VirtualEvents(source, self.degradation, seed), self.open_validation()
        else:
            n_held_out = max(round(hits.validation_share * len(source)), 1)
            cut = len(source) - n_held_out
            if cut < 1:
                raise ValueError(
                    f"Expected at least two events to train and validate on, got {len(source)}."
                )
            train = VirtualEvents(source, self.degradation, seed, count=cut)
            held_out = VirtualEvents(
                source, self.degradation, seed, first=cut, count=hits.validation_events
            )
        for name, events in (("train", train), ("validation", held_out)):
            _check_labels(name, events)
        train, rest = split_labelled_events(train, self.config.labelled_share)
        return train, held_out, rest

    def open_validation(self) -> VirtualEvents:
        """Open the validation events alone; training files of their own may be gone."""
        hits = self.config.hits
        if hits.validation:
            return VirtualEvents(
                open_hits(hits.validation),
                self.degradation,
                self.config.seed,
                count=hits.validation_events,
            )
        return self.open_data()[1]

    def remark(self) -> str:
        """Name the columns of hits that the network does not see, and how it could."""
        hits = self.config.hits
        others = [hits.balance_over, *([hits.value] if hits.value else [])]
        if wants_instances(self.checked_loss) and hits.balance_over == HITS:
            others.append(PARTICLE)
        with open_hits(hits.train, in_memory=False) as source:
            known = {name.removeprefix("/hit/") for name in source.columns}
            wanted = {*(hits.features or ()), *others} - {DIRECTION, HITS, EVENTS, "t"}
            if "/hit/label" not in source.columns or not wanted <= known:
                return ""  # refused in a moment, or one of them may be the label
            unseen, worth = describe_unseen(source, [*(hits.features or ()), *others])
        if not unseen:
            return ""
        sentence = f"columns not used: {unseen}"
        if not worth:
            return f"{sentence}."
        features = f"{{hits.features={' '.join([*(hits.features or ()), worth])}}}"
        if adds_simulated_noise(self.degradation):
            features += ", with events that contain noise or with measured noise,"
        if not self.sees_hits:
            features = f"{{model.name=hits}} with {features}"
        return f"{sentence}; {features} lets the network see {worth.replace(' ', ', ')}."

    def labelled_task(self) -> FramesTask | HitsTask:
        """Open the events and build the network and its losses."""
        return self._task_of_hits() if self.sees_hits else self._task_of_frames()

    def _task_of_hits(self) -> HitsTask:
        hits = self.config.hits
        train, held_out, rest = self.open_data()
        geometry = train.geometry
        is_table = isinstance(geometry, Sensors)
        features = hits.features
        if features is None:
            features = [DIRECTION] if getattr(geometry, "direction", None) is not None else []
        wanted = HitsReading(tuple(features), hits.n_classes, hits.value)
        check_columns(train, wanted, hits.balance_over)
        first = first_events(train)
        class_counts = count_classes(first, hits.n_classes)
        loss = self.loss(class_counts)
        reading = replace(wanted, is_logit=takes_logits(loss))
        content = train.class_content() if self.needs_content else None
        augment = hits.augment
        if augment == "auto":
            augment = "rotate" if is_table else "none"
        options = HitsOptions(
            **self.shared_options(content, len(train)),
            value_loss=None if hits.value is None else self.further_loss(hits.value_loss),
            retention=hits.retention,
            batch_size=self.config.batch_size,
            balance_over=hits.balance_over,
            augment=augment,
        )
        sizes = {**hit_scales(first, reading), "n_outputs": reading.n_outputs}
        return HitsTask(
            self.network(sizes),
            loss,
            TrainingData(train, held_out, class_counts, rest=rest),
            reading,
            options,
        )

    def _task_of_frames(self) -> FramesTask:
        hits = self.config.hits
        train, held_out, rest = self.open_data()
        class_counts = count_pixels(train, hits.pixels)
        loss = self.loss(class_counts)
        content = train.class_content() if self.needs_content else None
        options = HitsOptions(
            **self.shared_options(content, len(train)),
            target=hits.target,
            pixels=hits.pixels,
            value_loss=self.further_loss(hits.value_loss) if hits.output == "both" else None,
            retention=hits.retention,
            batch_size=self.config.batch_size,
        )
        return FramesTask(
            self.network(self.network_sizes(train.grid)),
            loss,
            TrainingData(train, held_out, class_counts, rest=rest),
            self.frame_reading(takes_logits(loss)),
            options,
        )

    def network_sizes(self, geometry: Geometry) -> dict[str, Any]:
        """Return the sizes of the network's input and output."""
        hits = self.config.hits
        return {
            "in_channels": sum(CHANNELS.get(channel, 0) for channel in hits.channels),
            "out_channels": N_CHANNELS[hits.output],
            "frame": (geometry.height, geometry.width),
        }

    def initial_network(self, sizes: Mapping[str, Any]) -> nn.Module:
        """Build the network."""
        model = self.config.model
        if self.sees_hits:
            return build_hit_network(model.name, **{**sizes, **model.options})
        return build_model(model.name, **sizes, **model.options)

    def pseudo_labels(self, task: FramesTask | HitsTask) -> Unlabelled:
        """Open the unlabelled events."""
        events = task.data.rest if self.config.unlabelled.rest else self._unlabelled_events(task)
        kind = HitsPseudoLabels if isinstance(task, HitsTask) else FramePseudoLabels
        return kind(
            task,
            events,
            self.pseudo_label_loss(task.class_counts),
            strong=self.config.unlabelled.strong,
        )

    def _unlabelled_events(self, task: FramesTask | HitsTask) -> VirtualEvents:
        paths = self.config.unlabelled.train
        assert paths is not None
        with naming_the_option():
            source = open_hits(paths)
            if self.config.hits.validation:
                why = "hits.validation, which are validated on"
                _refuse_shared(source, task.validation.source, why)
                why = "hits.train, which are learnt from already"
            else:
                why = "hits.train, whose last events are validated on"
            _refuse_shared(source, task.train.source, why)
        return VirtualEvents(source, None, self.config.seed)

    def trained(self, name: str, content: Mapping[str, Any], device: Any) -> TrainedHits:
        """Build the trained network."""
        setup, weights = content["setup"], content["network"]
        if self.sees_hits:
            network = self.trained_network(hit_network_sizes(weights), weights)
            reading = reading_of_text(setup["target"])
            return TrainedHits(name, network, reading, trained_on(setup["frame"]), device)
        geometry = geometry_of_setup(setup)
        is_logit = FrameReading.is_logit_in(setup["target"])
        network = self.trained_network(self.network_sizes(geometry), weights)
        of_frames = self.frame_reading(is_logit)
        _check_reading(of_frames, setup["target"])
        return TrainedHits(name, network, of_frames, geometry, device)


def _check_reading(reading: FrameReading, setup: str) -> None:
    """Refuse a configuration that reads frames in another way than the network was trained with."""
    _, is_there, trained = setup.partition("Reading(")
    if is_there and f"Reading({trained}" != reading.as_text():
        raise Refused(
            f"channels, threshold and output as in the checkpoint, Reading({trained}",
            f"{reading.as_text()} in config.yaml, which was edited",
            "bring its {hits.channels}, {hits.threshold} and {hits.output} back",
        )


def geometry_of_setup(setup: Mapping[str, str]) -> Geometry:
    """Return the frame of the training events from the setup in a checkpoint."""
    width, height, time_steps = (int(size) for size in setup["frame"].split(" x "))
    return Geometry(width, height, time_steps)


def first_events(events: VirtualEvents) -> Events:
    """Return the first events of an epoch as tensors."""
    return events.degraded(np.arange(min(_COUNTED, len(events))), 0).torch()


def count_classes(events: Events, n_classes: int) -> tuple[int, ...]:
    """Count the hits of each class; a class without hits counts 1."""
    label = classes_of_hits(events, n_classes)
    return tuple(torch.bincount(label, minlength=n_classes).clamp(min=1).tolist())


def hit_scales(events: Events, reading: HitsReading) -> dict[str, Any]:
    """Return the scales of a network of hits, measured on events, for `build_hit_network`.

    A grid has pixels as its unit, and its duration is as long as its sides. Sensors have metres,
    and times travel at the speed of light, or as fast as fills the detector if that is far off.
    """
    geometry, feature = events.geometry, reading.inputs(events).feature
    middle = feature.median(0).values if len(feature) else feature.new_zeros(feature.shape[1])
    spread = (feature - middle).abs().mean(0).clamp(min=1e-6) if len(feature) else middle + 1
    scales: dict[str, Any] = {
        "n_axes": geometry.n_axes + 1,
        "n_features": feature.shape[1],
        "feature_scale": [middle.tolist(), spread.tolist()],
    }
    if isinstance(geometry, Sensors):
        side = float(np.ptp(geometry.position, axis=0).max()) or 1.0
        speed = LIGHT
        time = events.t.double()
        duration = float(time.std()) * math.sqrt(12) if len(time) > 1 else 0.0
        if duration > 0 and not 1 / _FAR < speed * duration / side < _FAR:
            speed = side / duration
        metric = [1.0] * geometry.n_axes + [speed]
        return {**scales, "metric": metric, "wavelengths": (side / 150, 1.2 * side)}
    side = math.sqrt(geometry.width * geometry.height)
    pixel = (geometry.x_mm, geometry.y_mm)
    ratio = math.sqrt(pixel[0] / pixel[1]) if pixel[0] and pixel[1] else 1.0
    return {
        **scales,
        "metric": [ratio, 1 / ratio, side / geometry.time_steps],
        "extent": [float(size) for size in geometry.size],
        "wavelengths": (min(4.4, side / 4), 1.05 * max(side, 4.4)),
    }


def reading_of_text(text: str) -> HitsReading:
    """Return the reading that `HitsReading.as_text` described."""
    _, _, arguments = text.partition("HitsReading(")
    values = ast.literal_eval("{" + re.sub(r"(\w+)=", r"'\1': ", arguments.rstrip(")")) + "}")
    return HitsReading(**values)


def _check_labels(name: str, events: VirtualEvents) -> None:
    """Refuse hits without labels, unless noise is added to them."""
    if "/hit/label" in events.source.columns or not len(events):
        return
    if events.degradation is None or events.degradation.noise in (0, (0, 0)):
        raise Refused(
            f"{name} hits with labels, 0 for noise and 1 and more for signal",
            "hits without labels",
            "convert them with their labels (dense-imb convert IN OUT --columns label=NAME), or, "
            "if every hit is signal, add noise: {hits.noise=200}",
        )


def split_labelled_events(
    events: VirtualEvents, share: float
) -> tuple[VirtualEvents, VirtualEvents | None]:
    """Split off the first events, whose labels are used; the others are None if there are none."""
    if share == 1:
        return events, None
    n = len(events)
    if n < 2:
        raise ValueError(f"Expected two events or more with a `labelled_share`, got {n}.")
    cut = min(max(round(share * n), 1), n - 1)
    rest = replace(events, first=events.first + cut, count=n - cut)
    return replace(events, count=cut), rest


def count_pixels(events: VirtualEvents, pixels: Pixels) -> tuple[int, int]:
    """Count the background and signal pixels that the loss sees in the first events of an epoch."""
    shown = events.degraded(np.arange(min(_COUNTED, len(events))), 0).torch()
    shown = shown.select(is_visible(shown))
    n_signal = int(is_signal(shown).sum())
    frame = shown.grid
    n_pixels = shown.n_hits if pixels == "lit" else len(shown) * frame.width * frame.height
    return max(n_pixels - n_signal, 1), max(n_signal, 1)


def _profile(text: str) -> Profile:
    name, positional, options = parse_call(text, text)
    check_choice("profile", name, PROFILES)
    try:
        profile: Profile = PROFILES[name](*positional, **options)
        return profile
    except TypeError as problem:
        raise ValueError(f"Expected options that {name} takes, got {text!r}: {problem}.") from None


def _range(name: str, value: int | list[int]) -> int | tuple[int, int]:
    if isinstance(value, int):
        return value
    if len(value) != 2:
        raise ValueError(f"Expected `{name}` as a number or [low, high], got {value}.")
    return value[0], value[1]


def _refuse_shared(source: HitsFile | HitsFiles, others: HitsFile | HitsFiles, why: str) -> None:
    """Refuse files of `source` that are also in `others`, or hold the same hits."""
    seen = {file.path.resolve() for file in _files(others)}
    hits = {_digests_of_hits(file) for file in _files(others)} - {None}
    for file in _files(source):
        if file.path.resolve() in seen or _digests_of_hits(file) in hits:
            raise Refused(
                f"other hits files than those of {why}",
                f"the hits of {file.path}",
                f"to learn from events of hits.train without their labels, {REST}",
            )


def _files(source: HitsFile | HitsFiles) -> list[HitsFile]:
    return source.files if isinstance(source, HitsFiles) else [source]


def _check_noise_only(place: str, events: Events) -> None:
    """Refuse measured noise with labelled signal, which would be added with the label of noise."""
    n_signal = 0 if events.label is None else int((events.label > 0).sum())
    if n_signal:
        raise Refused(
            "{hits.measured_noise} as a file of noise, whose hits have the label 0 or none",
            f"{n_signal:,} of {events.n_hits:,} hits labelled as signal in {literal(place)}",
            "write a file of the noise alone, for example of events without signal",
        )


def _digests_of_hits(file: HitsFile) -> tuple[str, ...] | None:
    """Return the stored digests of the hits without labels; None if the file has none."""
    try:
        stored = json.loads(str(file.attributes["content_hash"]))
        return tuple(str(stored[name]) for name in _HITS)
    except (KeyError, ValueError, TypeError, RecursionError):
        return None
